"""4x1 and aligned 4x4 block-sparse s8 weights times u8 activations of 1 to 16 tokens, on 512-bit registers.

    for panel in P:                                16 tokens, one in each dword
      for group in M / 4:                          4 output rows; two sets of 4 accumulators, one for each of two quads
        for pair of quads in the group:
          twice: v, a token's four inputs a dword
                   4x1       4 lines of 16 bytes in one register, a byte permutation; without VBMI a dword permutation
                             and a byte transpose inside lanes
                   aligned   one load
                 4 x vpdpbusd, the weights broadcast from memory

A line is 16 bytes here, a quarter of what `offsets` counts.  Few tokens are bound by the weights: 32 bytes a quad of
4x1 blocks, 20 of aligned ones.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

import numpy as np

from sparsefab.kernels_cpu.ahead import ahead_of_blocks, ahead_of_quads
from sparsefab.kernels_cpu.intrinsics import broadcast, load, pack_i8, pack_u8, splat, store, view
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.layer import Output
from sparsefab.kernels_cpu.panels import aligned_empty
from sparsefab.kernels_cpu.products import dot_of
from sparsefab.kernels_cpu.reals import added_up_of, real_of
from sparsefab.kernels_cpu.requantizing import finished_of, rows_of
from sparsefab.kernels_cpu.scalars import read_i32, read_i64, read_u32
from sparsefab.kernels_cpu.shuffles import join, permute_bytes, permute_dwords, transpose_bytes
from sparsefab.kernels_cpu.vector import f32x16, i8x16, i8x64, i32x16

__all__ = ["epilogue_of", "interleaved_lines", "spmm", "tables"]

_requantized = rows_of(i32x16)


@functools.cache
def tables() -> Any:
    """Return int32[32]: indices that transpose a 4 x 4 matrix of dwords, lanes to elements and back; byte indices.

    The latter, uint8[64], bring the four inputs of each of 16 tokens together out of four lines.
    """
    result = aligned_empty((32,), np.int32)
    result[:16] = np.arange(16).reshape(4, 4).T.reshape(-1)
    result[16:] = np.arange(64, dtype=np.uint8).reshape(4, 16).T.reshape(-1).view(np.int32)
    return result


@functools.cache
def spmm(*, product: str, permute: bool, aligned: bool, output: Output) -> Any:
    """Return the compiled kernel for one kind of output.

    Parameters
    ----------
    product, permute, aligned, output         As in `spmm_vnni.spmm`; interleaved activations are [P, K / 4, 64].

    Returns
    -------
    kernel                       With the signature that `layer` describes; panels of 16 tokens, `tables()` in it.
    """
    return _assemble(
        dot_of(i32x16, product),
        _aligned if aligned else _permuted if permute else _interleaved,
        ahead_of_blocks if aligned else ahead_of_quads,
        epilogue_of(output, permute),
    )


def _assemble(dot: Any, tokens_of: Any, ahead_of: Any, epilogue: Any) -> Any:
    @kernel
    def spmm_16(layers, activations, out, token_scales, task, first_panel, last_panel, first_group, last_group):
        layer = layers[0]
        panel_bytes, row_bytes = activations.shape[1] * activations.shape[2], out.itemsize * 16
        out_bytes = out.shape[1] * out.shape[2] * out.itemsize
        index, order = load(i32x16, layer.tables), load(i8x64, layer.tables + 64)
        for panel in range(first_panel, last_panel):
            lines = activations.ctypes.data + panel * panel_bytes
            tokens = token_scales.ctypes.data + panel * 64
            for group in range(first_group, last_group):
                row, begin = 4 * group, layer.start + 16 * group
                a, b = splat(i32x16, read_i32(begin)), splat(i32x16, read_i32(begin + 4))
                c, d = splat(i32x16, read_i32(begin + 8)), splat(i32x16, read_i32(begin + 12))
                e = f = g = h = splat(i32x16, 0)
                at = layer.pointers + 8 * group
                first, last = 16 * read_i64(at), 16 * read_i64(at + 8)
                even = first + (last - first) // 32 * 32
                for quad in range(first, even, 32):
                    at = layer.values + quad
                    ahead_of(layer.offsets, layer.values, quad)
                    v = tokens_of(lines, layer.offsets, quad, index, order)
                    a, b = dot(a, v, broadcast(i8x64, at)), dot(b, v, broadcast(i8x64, at + 4))
                    c, d = dot(c, v, broadcast(i8x64, at + 8)), dot(d, v, broadcast(i8x64, at + 12))
                    v = tokens_of(lines, layer.offsets, quad + 16, index, order)
                    e, f = dot(e, v, broadcast(i8x64, at + 16)), dot(f, v, broadcast(i8x64, at + 20))
                    g, h = dot(g, v, broadcast(i8x64, at + 24)), dot(h, v, broadcast(i8x64, at + 28))
                if even < last:
                    at = layer.values + even
                    v = tokens_of(lines, layer.offsets, even, index, order)
                    a, b = dot(a, v, broadcast(i8x64, at)), dot(b, v, broadcast(i8x64, at + 4))
                    c, d = dot(c, v, broadcast(i8x64, at + 8)), dot(d, v, broadcast(i8x64, at + 12))
                to = out.ctypes.data + panel * out_bytes + row * row_bytes
                epilogue(to, layer, tokens, row, index, (a + e, b + f, c + g, d + h))

    return spmm_16


@piece
def _permuted(lines, offsets, quad, index, order):
    k0, k1, k2, k3 = _places(lines, offsets + quad)
    return permute_bytes(_joined(k0, k1, k2, k3), order)


@piece
def _interleaved(lines, offsets, quad, index, order):
    k0, k1, k2, k3 = _places(lines, offsets + quad)
    return interleaved_lines(k0, k1, k2, k3, index)


@piece
def _places(lines, at):
    k0, k1 = lines + (read_u32(at) >> 2), lines + (read_u32(at + 4) >> 2)
    return k0, k1, lines + (read_u32(at + 8) >> 2), lines + (read_u32(at + 12) >> 2)


@piece
def interleaved_lines(at0, at1, at2, at3, index):
    """Read four lines of 16 tokens, and bring the four inputs of each token together."""
    return transpose_bytes(permute_dwords(_joined(at0, at1, at2, at3), index))


@piece
def _joined(at0, at1, at2, at3):
    return join(join(load(i8x16, at0), load(i8x16, at1)), join(load(i8x16, at2), load(i8x16, at3)))


@piece
def _aligned(lines, offsets, quad, index, order):
    return load(i8x64, lines + (read_u32(offsets + (quad >> 2)) >> 2))


def epilogue_of(output: Output, permute: bool) -> Any:
    """Return epilogue(to, layer, tokens, row, index, sums)."""
    if output.kind == "s32":
        return _store_sums
    if output.kind == "f32":
        return _reals(real_of(f32x16, residual=output.residual), added_up_of(f32x16, kind=output.statistics))
    finished = finished_of(i8x64, signed=output.kind == "s8", lookup=output.lookup, permute=permute)
    if output.kind == "interleaved":
        return _codes(pack_u8, finished, _in_place)
    return _codes(pack_u8 if output.kind == "u8" else pack_i8, finished, _by_rows)


@piece
def _store_sums(to, layer, tokens, row, index, sums):
    for r in range(4):
        store(to + 64 * r, sums[r])


def _reals(real: Any, added_up: Any) -> Any:
    @piece
    def epilogue(to, layer, tokens, row, index, sums):
        a, b = real(to, layer, row, tokens, sums[0]), real(to + 64, layer, row + 1, tokens, sums[1])
        c, d = real(to + 128, layer, row + 2, tokens, sums[2]), real(to + 192, layer, row + 3, tokens, sums[3])
        added_up(layer, row, tokens, a, b, c, d)

    return epilogue


@piece
def _by_rows(codes, index):
    return view(i8x64, permute_dwords(view(i32x16, codes), index))


@piece
def _in_place(codes, index):
    return transpose_bytes(codes)


def _codes(pack: Any, finished: Any, order: Any) -> Any:
    @piece
    def epilogue(to, layer, tokens, row, index, sums):
        ab, cd = _requantized(layer, row, sums[0], sums[1], sums[2], sums[3])
        store(to, order(finished(layer, pack(ab, cd)), index))

    return epilogue
