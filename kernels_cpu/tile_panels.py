"""AMX tiles of activations and of sums: panels arranged as tiles, stored sums finished by fours of rows.

    arranged   u8[halves][K / 64][tiles][16 quads][16 tokens][4 inputs]     a half is two tiles of tokens, of 16 one
    sums       s32[halves][2][tiles][16 rows][16 tokens]                  of a block of 32 rows

The order of tokens is that of the registers of the vpdpbusd kernel of the same width, whose epilogues these are.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu import spmm_vnni16, spmm_vnni32
from sparsefab.kernels_cpu.epilogues import epilogue_of
from sparsefab.kernels_cpu.intrinsics import load, splat, store
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.layer import Output
from sparsefab.kernels_cpu.scalars import read_i32
from sparsefab.kernels_cpu.spmm_vnni import interleaved_lines
from sparsefab.kernels_cpu.tile_weights import STEP_INPUTS
from sparsefab.kernels_cpu.tiles import TILE_BYTES
from sparsefab.kernels_cpu.vector import i8x64, i16x32, i32x16

__all__ = ["arrange_of", "finish_of", "tiles_across"]


def tiles_across(width: int) -> int:
    """Return how many tiles of 16 tokens are multiplied beside each other."""
    return min(2, width // 16)


@functools.cache
def arrange_of(width: int, *, aligned: bool) -> Any:
    """Return arrange(layer, lines, to, inputs): bring a panel's lines into tiles.

    Parameters
    ----------
    aligned : bool               They come interleaved: `inputs` counts lines of four inputs.
    """
    if aligned:
        return _copied_of(width)
    return {64: _interleaved_64, 32: _interleaved_32, 16: _interleaved_16}[width]


@functools.cache
def _copied_of(width: int) -> Any:
    vectors, across = width // 16, tiles_across(width)

    @piece
    def arrange(layer, lines, to, inputs):
        for quad in range(min(inputs, STEP_INPUTS // 4 * layer.inner_steps)):
            here = to + quad // 16 * (across * TILE_BYTES) + quad % 16 * 64
            for vector in range(vectors):
                place = vector // across * layer.inner_steps * (across * TILE_BYTES) + vector % across * TILE_BYTES
                store(here + place, load(i8x64, lines + 64 * (vectors * quad + vector)))

    return arrange


@piece
def _interleaved_64(layer, lines, to, inputs):
    """Interleave the lines of a panel by fours; weights of inputs that are not there are zero."""
    half_bytes, last = layer.inner_steps * (2 * TILE_BYTES), lines + 64 * (inputs - 1)
    for k in range(0, inputs, 4):
        at = lines + 64 * k
        v0, v1, v2, v3 = interleaved_lines(at, min(at + 64, last), min(at + 128, last), min(at + 192, last))
        here = to + k // STEP_INPUTS * (2 * TILE_BYTES) + k % STEP_INPUTS * 16
        store(here, v0)
        store(here + TILE_BYTES, v1)
        store(here + half_bytes, v2)
        store(here + half_bytes + TILE_BYTES, v3)


@piece
def _interleaved_32(layer, lines, to, inputs):
    index, last = load(i16x32, layer.tables), lines + 32 * (inputs - 1)
    for k in range(0, inputs, 4):
        at = lines + 32 * k
        v0, v1 = spmm_vnni32.interleaved_lines(at, min(at + 32, last), min(at + 64, last), min(at + 96, last), index)
        here = to + k // STEP_INPUTS * (2 * TILE_BYTES) + k % STEP_INPUTS * 16
        store(here, v0)
        store(here + TILE_BYTES, v1)


@piece
def _interleaved_16(layer, lines, to, inputs):
    index, last = load(i32x16, layer.tables), lines + 16 * (inputs - 1)
    for k in range(0, inputs, 4):
        at = lines + 16 * k
        v = spmm_vnni16.interleaved_lines(at, min(at + 16, last), min(at + 32, last), min(at + 48, last), index)
        store(to + 16 * k, v)


@functools.cache
def finish_of(width: int, output: Output, *, permute: bool) -> Any:
    """Return finish(layer, out, token_scales, panel, group, sums): the epilogue of four rows whose sums are stored."""
    if width == 64:
        return _finish_64(epilogue_of(output, permute=permute))
    if width == 32:
        return _finish_32(spmm_vnni32.epilogue_of(output, permute))
    return _finish_16(spmm_vnni16.epilogue_of(output, permute))


@piece
def _started(layer, row, sums):
    return load(i32x16, sums) + splat(i32x16, read_i32(layer.start + 4 * row))


def _finish_64(epilogue: Any) -> Any:
    @piece
    def row_of(layer, row, sums):
        x0, x1 = _started(layer, row, sums), _started(layer, row, sums + TILE_BYTES)
        return x0, x1, _started(layer, row, sums + 4 * TILE_BYTES), _started(layer, row, sums + 5 * TILE_BYTES)

    @piece
    def finish(layer, out, token_scales, panel, group, sums):
        row, row_bytes = 4 * group, out.itemsize * 64
        to = out.ctypes.data + panel * out.shape[1] * out.shape[2] * out.itemsize + row * row_bytes
        a, b = row_of(layer, row, sums), row_of(layer, row + 1, sums + 64)
        c, d = row_of(layer, row + 2, sums + 128), row_of(layer, row + 3, sums + 192)
        epilogue(to, row_bytes, layer, token_scales.ctypes.data + 256 * panel, row, a, b, c, d)

    return finish


def _finish_32(epilogue: Any) -> Any:
    @piece
    def row_of(layer, row, sums):
        return _started(layer, row, sums), _started(layer, row, sums + TILE_BYTES)

    @piece
    def finish(layer, out, token_scales, panel, group, sums):
        row, dwords = 4 * group, load(i32x16, layer.tables + 64)
        to = out.ctypes.data + (panel * out.shape[1] + row) * out.itemsize * 32
        a0, a1 = row_of(layer, row, sums)
        b0, b1 = row_of(layer, row + 1, sums + 64)
        c0, c1 = row_of(layer, row + 2, sums + 128)
        d0, d1 = row_of(layer, row + 3, sums + 192)
        tokens = token_scales.ctypes.data + 128 * panel
        epilogue(to, layer, tokens, row, dwords, a0, a1, b0, b1, c0, c1, d0, d1)

    return finish


def _finish_16(epilogue: Any) -> Any:
    @piece
    def finish(layer, out, token_scales, panel, group, sums):
        row = 4 * group
        to = out.ctypes.data + panel * out.shape[1] * out.shape[2] * out.itemsize + row * out.itemsize * 16
        a, b = _started(layer, row, sums), _started(layer, row + 1, sums + 64)
        c, d = _started(layer, row + 2, sums + 128), _started(layer, row + 3, sums + 192)
        index = load(i32x16, layer.tables)
        epilogue(to, layer, token_scales.ctypes.data + 64 * panel, row, index, (a, b, c, d))

    return finish
