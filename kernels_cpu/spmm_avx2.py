"""4x1 block-sparse s8 weights times u8 activations on 256-bit registers: AVX-VNNI, or plain AVX2 by widening.

    for panel in P, group in M / 4, half in 2:     32 tokens: one 32-byte half of each line (or all of a narrow one)
      low sweep, then high sweep over the quads:   4 half lines, 4 unpacks, 4 weight broadcasts, 8 dot products
      epilogue                                     8 accumulators: 4 rows of 16 tokens, in the registers that AVX2 has

The low sweep covers tokens 0-7 and 16-23 of the half, the high sweep 8-15 and 24-31: what unpacks inside lanes give.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu.intrinsics import (
    broadcast,
    dot,
    load,
    pack_i8,
    pack_i16,
    pack_u8,
    read_i16,
    read_i32,
    read_i64,
    splat,
    store,
)
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.layer import Output
from sparsefab.kernels_cpu.products import dot_widened_256
from sparsefab.kernels_cpu.reals import added_up_of, real_of
from sparsefab.kernels_cpu.requantizing import lookup_of, scaled_of, shifted_of
from sparsefab.kernels_cpu.shuffles import (
    high_halves,
    low_halves,
    store_quarters,
    unpack_high_bytes,
    unpack_high_words,
    unpack_low_bytes,
    unpack_low_words,
)
from sparsefab.kernels_cpu.vector import f32x8, i8x32, i16x16, i32x8

__all__ = ["spmm"]

_shifted, _scaled = shifted_of(i32x8), scaled_of(i16x16)


@functools.cache
def spmm(*, vnni: bool, aligned: bool, output: Output) -> Any:
    """Return the compiled kernel for one kind of output, not interleaved.

    Parameters
    ----------
    vnni : bool                  True uses vpdpbusd; False needs AVX2 only.
    aligned : bool               As in `spmm_vnni.spmm`.
    output : Output              What the epilogue stores.

    Returns
    -------
    kernel                       With the signature that `layer` describes; panels of 64 or 32 tokens.
    """
    product = dot if vnni else dot_widened_256
    low, high = (_aligned(0), _aligned(128)) if aligned else (_unpacked(unpack_low_bytes), _unpacked(unpack_high_bytes))
    return _assemble(_sweep(product, low), _sweep(product, high), _epilogue(output))


def _assemble(low_sweep: Any, high_sweep: Any, epilogue: Any) -> Any:
    @kernel
    def spmm_4x1_ymm(layers, activations, out, token_scales, task, first_panel, last_panel, first_group, last_group):
        layer = layers[0]
        width, token_bytes = out.shape[2], out.itemsize
        panel_bytes, row_bytes = activations.shape[1] * activations.shape[2], width * token_bytes
        scale = 1 if width == 32 else 0
        for panel in range(first_panel, last_panel):
            lines = activations.ctypes.data + panel * panel_bytes
            for group in range(first_group, last_group):
                row, begin, at = 4 * group, layer.start + 16 * group, layer.pointers + 8 * group
                first, last = 16 * read_i64(at), 16 * read_i64(at + 8)
                for half in range(0, width, 32):
                    to = out.ctypes.data + (panel * out.shape[1] + row) * row_bytes + half * token_bytes
                    tokens = token_scales.ctypes.data + 4 * (width * panel + half)
                    a, b, c, d, e, f, g, h = low_sweep(layer, first, last, lines + half, scale, begin)
                    epilogue(to, row_bytes, layer, tokens, row, a, b, c, d, e, f, g, h)
                    a, b, c, d, e, f, g, h = high_sweep(layer, first, last, lines + half, scale, begin)
                    epilogue(to + 8 * token_bytes, row_bytes, layer, tokens + 32, row, a, b, c, d, e, f, g, h)

    return spmm_4x1_ymm


def _sweep(dot: Any, tokens_of: Any) -> Any:
    """Make the loop over a group's quads for the 16 tokens that `tokens_of` reads; it returns the 8 accumulators."""

    @piece
    def sweep(layer, first, last, lines, scale, begin):
        a = b = splat(i32x8, read_i32(begin))
        c = d = splat(i32x8, read_i32(begin + 4))
        e = f = splat(i32x8, read_i32(begin + 8))
        g = h = splat(i32x8, read_i32(begin + 12))
        offsets, weights = layer.offsets, layer.values
        for at in range(first, last, 16):
            u, v = tokens_of(lines, offsets, at, scale)
            w = broadcast(i8x32, weights + at)
            a, b = dot(a, u, w), dot(b, v, w)
            w = broadcast(i8x32, weights + at + 4)
            c, d = dot(c, u, w), dot(d, v, w)
            w = broadcast(i8x32, weights + at + 8)
            e, f = dot(e, u, w), dot(f, v, w)
            w = broadcast(i8x32, weights + at + 12)
            g, h = dot(g, u, w), dot(h, v, w)
        return a, b, c, d, e, f, g, h

    return sweep


def _unpacked(unpack_bytes: Any) -> Any:
    """Make the reader of a quad's four half lines, from the byte unpack that selects the tokens."""

    @piece
    def tokens_of(lines, offsets, quad, scale):
        at = offsets + quad
        k0 = load(i8x32, lines + (read_i32(at) >> scale))
        k1 = load(i8x32, lines + (read_i32(at + 4) >> scale))
        k2 = load(i8x32, lines + (read_i32(at + 8) >> scale))
        k3 = load(i8x32, lines + (read_i32(at + 12) >> scale))
        k01, k23 = unpack_bytes(k0, k1), unpack_bytes(k2, k3)
        return unpack_low_words(k01, k23), unpack_high_words(k01, k23)

    return tokens_of


def _aligned(first: int) -> Any:
    """Make the reader of interleaved activations: registers 0 and 1 (from byte 0) or 2 and 3 (from byte 128)."""

    @piece
    def tokens_of(lines, offsets, quad, scale):
        at = lines + read_i32(offsets + (quad >> 2)) + first
        return load(i8x32, at), load(i8x32, at + 64)

    return tokens_of


def _epilogue(output: Output) -> Any:
    """Return epilogue(to, row_bytes, layer, tokens, row, a, b, c, d, e, f, g, h): the sums of four rows, two each.

    `to` and `tokens` point at the first of the 16 tokens; the second eight lie 16 tokens further on.
    """
    if output.kind == "s32":
        return _by_rows(_store_sums)
    if output.kind == "f32":
        return _reals(real_of(f32x8, residual=output.residual), added_up_of(f32x8, present=output.statistics))
    return _codes(pack_u8 if output.kind == "u8" else pack_i8, lookup_of(i8x32, present=output.lookup, permute=False))


def _by_rows(store_row: Any) -> Any:
    @piece
    def epilogue(to, row_bytes, layer, tokens, row, a, b, c, d, e, f, g, h):
        store_row(to, a, b)
        store_row(to + row_bytes, c, d)
        store_row(to + 2 * row_bytes, e, f)
        store_row(to + 3 * row_bytes, g, h)

    return epilogue


@piece
def _store_sums(to, x0, x1):
    store(to, low_halves(x0, x1))
    store(to + 64, high_halves(x0, x1))


def _reals(real: Any, added_up: Any) -> Any:
    @piece
    def epilogue(to, row_bytes, layer, tokens, row, a, b, c, d, e, f, g, h):
        a0, b0 = (
            real(to, layer, row, tokens, low_halves(a, b)),
            real(to + row_bytes, layer, row + 1, tokens, low_halves(c, d)),
        )
        c0 = real(to + 2 * row_bytes, layer, row + 2, tokens, low_halves(e, f))
        d0 = real(to + 3 * row_bytes, layer, row + 3, tokens, low_halves(g, h))
        added_up(layer, row, tokens, a0, b0, c0, d0)
        to, tokens = to + 64, tokens + 64
        a1 = real(to, layer, row, tokens, high_halves(a, b))
        b1 = real(to + row_bytes, layer, row + 1, tokens, high_halves(c, d))
        c1 = real(to + 2 * row_bytes, layer, row + 2, tokens, high_halves(e, f))
        d1 = real(to + 3 * row_bytes, layer, row + 3, tokens, high_halves(g, h))
        added_up(layer, row, tokens, a1, b1, c1, d1)

    return epilogue


@piece
def _requantize(layer, row, x0, x1):
    """Return 16 codes as s16, by the house's requantization."""
    multiplier = splat(i16x16, read_i16(layer.multipliers + 2 * row))
    return _scaled(layer, pack_i16(_shifted(layer, row, x0), _shifted(layer, row, x1)), multiplier)


def _codes(pack: Any, lookup: Any) -> Any:
    @piece
    def epilogue(to, row_bytes, layer, tokens, row, a, b, c, d, e, f, g, h):
        codes = pack(_requantize(layer, row, a, b), _requantize(layer, row + 1, c, d))
        store_quarters(to, row_bytes, 16, lookup(layer, codes))
        codes = pack(_requantize(layer, row + 2, e, f), _requantize(layer, row + 3, g, h))
        store_quarters(to + 2 * row_bytes, row_bytes, 16, lookup(layer, codes))

    return epilogue
