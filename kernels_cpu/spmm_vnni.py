"""4x1 block-sparse s8 weights times u8 activations, 64 tokens wide, on 512-bit registers.

    for panel in P:                                64 tokens
      for group in M / 4:                          4 output rows; 16 accumulators of 16 tokens
        for quad in the group's kept k, by four:   4 lines of 64 tokens, 8 unpacks, 4 weight broadcasts
          16 x vpdpbusd                            v_j, lane L, dword i = token 16 L + 4 j + i
        epilogue                                   packs or lane transposes restore the order of tokens

The innermost loop holds 16 ``vpdpbusd`` on zmm, 8 ``vpunpck*`` and no spilled register; a test reads the code for it.
Without VNNI the dot product is two ``vpmaddwd`` on widened bytes, exact too (``vpmaddubsw`` would saturate).
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu.intrinsics import (
    broadcast,
    dot,
    load,
    maximum,
    minimum,
    multiply_add_words,
    multiply_round,
    pack_i8,
    pack_i16,
    pack_u8,
    read_f32,
    read_i16,
    read_i32,
    read_i64,
    saturating_add,
    splat,
    store,
    to_float,
    transpose_lanes,
    unpack_high_bytes,
    unpack_high_words,
    unpack_low_bytes,
    unpack_low_words,
    view,
)
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.vector import f32x16, i8x64, i16x32, i32x16

__all__ = ["spmm"]


@functools.cache
def spmm(*, vnni: bool, output: str) -> Any:
    """Return the compiled kernel for one kind of output: 's32', 'f32', 'u8' or 's8'.

    Parameters
    ----------
    vnni : bool                  True uses vpdpbusd; False needs AVX512BW only.
    output : str                 What the epilogue stores.

    Returns
    -------
    kernel                       With the signature that `layer` describes; panels of 64 tokens.
    """
    return _assemble(dot if vnni else _dot_widened, _EPILOGUES[output])


def _assemble(dot: Any, epilogue: Any) -> Any:
    @kernel
    def spmm_4x1x64(layers, activations, out, token_scales, task, first_panel, last_panel, first_group, last_group):
        layer = layers[0]
        panel_bytes, row_bytes = activations.shape[1] * 64, out.itemsize * 64
        for panel in range(first_panel, last_panel):
            lines = activations.ctypes.data + panel * panel_bytes
            tokens = token_scales.ctypes.data + panel * 256
            for group in range(first_group, last_group):
                row, begin = 4 * group, layer.start + 16 * group
                a0 = a1 = a2 = a3 = splat(i32x16, read_i32(begin))
                b0 = b1 = b2 = b3 = splat(i32x16, read_i32(begin + 4))
                c0 = c1 = c2 = c3 = splat(i32x16, read_i32(begin + 8))
                d0 = d1 = d2 = d3 = splat(i32x16, read_i32(begin + 12))
                quads = layer.pointers + 8 * group
                for quad in range(16 * read_i64(quads), 16 * read_i64(quads + 8), 16):
                    at = layer.offsets + quad
                    k0 = load(i8x64, lines + read_i32(at))
                    k1 = load(i8x64, lines + read_i32(at + 4))
                    k2 = load(i8x64, lines + read_i32(at + 8))
                    k3 = load(i8x64, lines + read_i32(at + 12))
                    low01, high01 = unpack_low_bytes(k0, k1), unpack_high_bytes(k0, k1)
                    low23, high23 = unpack_low_bytes(k2, k3), unpack_high_bytes(k2, k3)
                    v0, v1 = unpack_low_words(low01, low23), unpack_high_words(low01, low23)
                    v2, v3 = unpack_low_words(high01, high23), unpack_high_words(high01, high23)
                    at = layer.values + quad
                    w = broadcast(i8x64, at)
                    a0, a1, a2, a3 = dot(a0, v0, w), dot(a1, v1, w), dot(a2, v2, w), dot(a3, v3, w)
                    w = broadcast(i8x64, at + 4)
                    b0, b1, b2, b3 = dot(b0, v0, w), dot(b1, v1, w), dot(b2, v2, w), dot(b3, v3, w)
                    w = broadcast(i8x64, at + 8)
                    c0, c1, c2, c3 = dot(c0, v0, w), dot(c1, v1, w), dot(c2, v2, w), dot(c3, v3, w)
                    w = broadcast(i8x64, at + 12)
                    d0, d1, d2, d3 = dot(d0, v0, w), dot(d1, v1, w), dot(d2, v2, w), dot(d3, v3, w)
                to = out.ctypes.data + (panel * out.shape[1] + row) * row_bytes
                epilogue(to, layer, tokens, row, a0, a1, a2, a3)
                epilogue(to + row_bytes, layer, tokens, row + 1, b0, b1, b2, b3)
                epilogue(to + 2 * row_bytes, layer, tokens, row + 2, c0, c1, c2, c3)
                epilogue(to + 3 * row_bytes, layer, tokens, row + 3, d0, d1, d2, d3)

    return spmm_4x1x64


@piece
def _dot_widened(acc, codes, weights):
    """Add four products u8 * s8 a dword without VNNI: bytes widened to words, even and odd apart."""
    eight, byte = splat(i16x32, 8), splat(i16x32, 255)
    u, s = view(i16x32, codes), view(i16x32, weights)
    even = multiply_add_words(u & byte, (s << eight) >> eight)
    odd = multiply_add_words((u >> eight) & byte, s >> eight)
    return acc + even + odd


@piece
def _store_sums(to, layer, tokens, row, x0, x1, x2, x3):
    t0, t1, t2, t3 = transpose_lanes(x0, x1, x2, x3)
    store(to, t0)
    store(to + 64, t1)
    store(to + 128, t2)
    store(to + 192, t3)


@piece
def _store_reals(to, layer, tokens, row, x0, x1, x2, x3):
    scale = splat(f32x16, read_f32(layer.row_scales + 4 * row))
    t0, t1, t2, t3 = transpose_lanes(x0, x1, x2, x3)
    store(to, to_float(t0) * scale * load(f32x16, tokens))
    store(to + 64, to_float(t1) * scale * load(f32x16, tokens + 64))
    store(to + 128, to_float(t2) * scale * load(f32x16, tokens + 128))
    store(to + 192, to_float(t3) * scale * load(f32x16, tokens + 192))


@piece
def _requantize(layer, row, x0, x1, x2, x3):
    """Return 64 codes as s16 in two vectors, by the house's requantization."""
    shift = read_i32(layer.shifts + 4 * row)
    if shift >= 0:
        count = splat(i32x16, shift)
        x0, x1, x2, x3 = x0 >> count, x1 >> count, x2 >> count, x3 >> count
    else:
        # Saturating to 16 bits first keeps a shift of up to 16 places exact; packing then saturates again.
        top, bottom, count = splat(i32x16, 32767), splat(i32x16, -32768), splat(i32x16, -shift)
        x0, x1 = maximum(minimum(x0, top), bottom) << count, maximum(minimum(x1, top), bottom) << count
        x2, x3 = maximum(minimum(x2, top), bottom) << count, maximum(minimum(x3, top), bottom) << count
    multiplier, rounding = splat(i16x32, read_i16(layer.multipliers + 2 * row)), splat(i16x32, layer.rounding)
    six, least, most = splat(i16x32, 6), splat(i16x32, layer.code_min), splat(i16x32, layer.code_max)
    low = saturating_add(multiply_round(pack_i16(x0, x1), multiplier), rounding) >> six
    high = saturating_add(multiply_round(pack_i16(x2, x3), multiplier), rounding) >> six
    return minimum(maximum(low, least), most), minimum(maximum(high, least), most)


@piece
def _store_u8(to, layer, tokens, row, x0, x1, x2, x3):
    low, high = _requantize(layer, row, x0, x1, x2, x3)
    store(to, pack_u8(low, high))


@piece
def _store_s8(to, layer, tokens, row, x0, x1, x2, x3):
    low, high = _requantize(layer, row, x0, x1, x2, x3)
    store(to, pack_i8(low, high))


_EPILOGUES = {"s32": _store_sums, "f32": _store_reals, "u8": _store_u8, "s8": _store_s8}
