"""4x1 block-sparse s8 weights times u8 activations, 32 tokens wide, on 512-bit registers.

    for panel in P:                                32 tokens
      for group in M / 4:                          4 output rows; two sets of 8 accumulators, one for each of two quads
        for pair of quads in the group:
          twice: k0 | k2 and k1 | k3 in one register each, 2 unpacks, 2 word permutations, 4 weight broadcasts
                 8 x vpdpbusd                      v0 = tokens 0-7, 16-23; v1 = tokens 8-15, 24-31

A line is 32 bytes here, half of what `offsets` counts.  Two quads at a time keep 16 sums in flight: 8 are too few to
hide the latency of the dot product.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

import numpy as np

from sparsefab.kernels_cpu.intrinsics import broadcast, dot, load, pack_i8, pack_u8, splat, store, view
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.layer import Output
from sparsefab.kernels_cpu.panels import aligned_empty
from sparsefab.kernels_cpu.reals import added_up_of, real_of
from sparsefab.kernels_cpu.requantizing import finished_of, row_of
from sparsefab.kernels_cpu.scalars import read_i32, read_i64
from sparsefab.kernels_cpu.shuffles import (
    high_halves,
    join,
    low_halves,
    permute_dwords,
    permute_words,
    unpack_high_bytes,
    unpack_low_bytes,
)
from sparsefab.kernels_cpu.vector import f32x16, i8x32, i8x64, i16x32, i32x16

__all__ = ["epilogue_of", "interleaved_lines", "spmm", "tables"]

_requantized = row_of(i32x16)


@functools.cache
def tables() -> Any:
    """Return the shuffle indices, uint8[128]: words i and i + 16 in turn; dwords of two rows, each in order."""
    result = aligned_empty((128,), np.uint8)
    result[:64].view(np.int16)[:] = np.arange(32).reshape(2, 16).T.reshape(-1)
    # After the packs, lane L holds tokens 4L, 8 + 4L of the first row, then of the second (L > 1: 16 tokens on).
    result[64:].view(np.int32)[:] = [0, 4, 1, 5, 8, 12, 9, 13, 2, 6, 3, 7, 10, 14, 11, 15]
    return result


@functools.cache
def spmm(*, permute: bool, output: Output) -> Any:
    """Return the compiled kernel for one kind of output, not interleaved; `permute` as in `spmm_vnni.spmm`.

    Returns
    -------
    kernel                       With the signature that `layer` describes; panels of 32 tokens, `tables()` in it.
    """
    return _assemble(epilogue_of(output, permute))


def _assemble(epilogue: Any) -> Any:
    @kernel
    def spmm_4x1x32(layers, activations, out, token_scales, task, first_panel, last_panel, first_group, last_group):
        layer = layers[0]
        quads, weights = layer.offsets, layer.values
        panel_bytes, row_bytes = activations.shape[1] * 32, out.itemsize * 32
        index, dwords = load(i16x32, layer.tables), load(i32x16, layer.tables + 64)
        for panel in range(first_panel, last_panel):
            lines = activations.ctypes.data + panel * panel_bytes
            tokens = token_scales.ctypes.data + panel * 128
            for group in range(first_group, last_group):
                row, begin = 4 * group, layer.start + 16 * group
                a0 = a1 = splat(i32x16, read_i32(begin))
                b0 = b1 = splat(i32x16, read_i32(begin + 4))
                c0 = c1 = splat(i32x16, read_i32(begin + 8))
                d0 = d1 = splat(i32x16, read_i32(begin + 12))
                e0 = e1 = f0 = f1 = g0 = g1 = h0 = h1 = splat(i32x16, 0)
                at = layer.pointers + 8 * group
                first, last = 16 * read_i64(at), 16 * read_i64(at + 8)
                even = first + (last - first) // 32 * 32
                for at in range(first, even, 32):
                    v0, v1 = _tokens(lines, quads + at, index)
                    w = broadcast(i8x64, weights + at)
                    a0, a1 = dot(a0, v0, w), dot(a1, v1, w)
                    w = broadcast(i8x64, weights + at + 4)
                    b0, b1 = dot(b0, v0, w), dot(b1, v1, w)
                    w = broadcast(i8x64, weights + at + 8)
                    c0, c1 = dot(c0, v0, w), dot(c1, v1, w)
                    w = broadcast(i8x64, weights + at + 12)
                    d0, d1 = dot(d0, v0, w), dot(d1, v1, w)
                    v0, v1 = _tokens(lines, quads + at + 16, index)
                    w = broadcast(i8x64, weights + at + 16)
                    e0, e1 = dot(e0, v0, w), dot(e1, v1, w)
                    w = broadcast(i8x64, weights + at + 20)
                    f0, f1 = dot(f0, v0, w), dot(f1, v1, w)
                    w = broadcast(i8x64, weights + at + 24)
                    g0, g1 = dot(g0, v0, w), dot(g1, v1, w)
                    w = broadcast(i8x64, weights + at + 28)
                    h0, h1 = dot(h0, v0, w), dot(h1, v1, w)
                if even < last:
                    v0, v1 = _tokens(lines, quads + even, index)
                    w = broadcast(i8x64, weights + even)
                    a0, a1 = dot(a0, v0, w), dot(a1, v1, w)
                    w = broadcast(i8x64, weights + even + 4)
                    b0, b1 = dot(b0, v0, w), dot(b1, v1, w)
                    w = broadcast(i8x64, weights + even + 8)
                    c0, c1 = dot(c0, v0, w), dot(c1, v1, w)
                    w = broadcast(i8x64, weights + even + 12)
                    d0, d1 = dot(d0, v0, w), dot(d1, v1, w)
                to = out.ctypes.data + (panel * out.shape[1] + row) * row_bytes
                a0, a1, b0, b1, c0, c1, d0, d1 = a0 + e0, a1 + e1, b0 + f0, b1 + f1, c0 + g0, c1 + g1, d0 + h0, d1 + h1
                epilogue(to, layer, tokens, row, dwords, a0, a1, b0, b1, c0, c1, d0, d1)

    return spmm_4x1x32


@piece
def _tokens(lines, quad, index):
    k0, k1 = lines + (read_i32(quad) >> 1), lines + (read_i32(quad + 4) >> 1)
    return interleaved_lines(k0, k1, lines + (read_i32(quad + 8) >> 1), lines + (read_i32(quad + 12) >> 1), index)


@piece
def interleaved_lines(at0, at1, at2, at3, index):
    """Read four lines of 32 tokens; a dword of the two results holds the four inputs of one token."""
    k0, k1, k2, k3 = load(i8x32, at0), load(i8x32, at1), load(i8x32, at2), load(i8x32, at3)
    k02, k13 = join(k0, k2), join(k1, k3)
    low, high = view(i16x32, unpack_low_bytes(k02, k13)), view(i16x32, unpack_high_bytes(k02, k13))
    return view(i8x64, permute_words(low, index)), view(i8x64, permute_words(high, index))


def epilogue_of(output: Output, permute: bool) -> Any:
    """Return epilogue(to, layer, tokens, row, dwords, a0, a1, b0, b1, c0, c1, d0, d1)."""
    if output.kind == "s32":
        return _store_sums
    if output.kind == "f32":
        return _reals(real_of(f32x16, residual=output.residual), added_up_of(f32x16, kind=output.statistics))
    finished = finished_of(i8x64, signed=output.kind == "s8", lookup=output.lookup, permute=permute)
    return _codes(pack_u8 if output.kind == "u8" else pack_i8, finished)


@piece
def _store_sums(to, layer, tokens, row, dwords, a0, a1, b0, b1, c0, c1, d0, d1):
    store(to, low_halves(a0, a1))
    store(to + 64, high_halves(a0, a1))
    store(to + 128, low_halves(b0, b1))
    store(to + 192, high_halves(b0, b1))
    store(to + 256, low_halves(c0, c1))
    store(to + 320, high_halves(c0, c1))
    store(to + 384, low_halves(d0, d1))
    store(to + 448, high_halves(d0, d1))


def _reals(real: Any, added_up: Any) -> Any:
    @piece
    def of_row(to, layer, row, tokens, x0, x1):
        y0 = real(to, layer, row, tokens, low_halves(x0, x1))
        return y0, real(to + 64, layer, row, tokens + 64, high_halves(x0, x1))

    @piece
    def epilogue(to, layer, tokens, row, dwords, a0, a1, b0, b1, c0, c1, d0, d1):
        a0, a1 = of_row(to, layer, row, tokens, a0, a1)
        b0, b1 = of_row(to + 128, layer, row + 1, tokens, b0, b1)
        c0, c1 = of_row(to + 256, layer, row + 2, tokens, c0, c1)
        d0, d1 = of_row(to + 384, layer, row + 3, tokens, d0, d1)
        added_up(layer, row, tokens, a0, b0, c0, d0)
        added_up(layer, row, tokens + 64, a1, b1, c1, d1)

    return epilogue


def _codes(pack: Any, finished: Any) -> Any:
    @piece
    def of_rows(to, layer, row, dwords, a0, a1, b0, b1):
        codes = finished(layer, pack(_requantized(layer, row, a0, a1), _requantized(layer, row + 1, b0, b1)))
        store(to, permute_dwords(view(i32x16, codes), dwords))

    @piece
    def epilogue(to, layer, tokens, row, dwords, a0, a1, b0, b1, c0, c1, d0, d1):
        of_rows(to, layer, row, dwords, a0, a1, b0, b1)
        of_rows(to + 64, layer, row + 2, dwords, c0, c1, d0, d1)

    return epilogue
