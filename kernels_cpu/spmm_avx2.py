"""4x1 block-sparse s8 weights times u8 activations on 256-bit registers: AVX-VNNI, or plain AVX2 by widening.

    for panel in P, group in M / 4, half in 2:     32 tokens: one 32-byte half of each line
      low sweep, then high sweep over the quads:   4 half lines, 4 unpacks, 4 weight broadcasts, 8 dot products
      epilogue                                     8 accumulators: 4 rows of 16 tokens, in the registers that AVX2 has

The low sweep covers tokens 0-7 and 16-23 of the half, the high sweep 8-15 and 24-31: what unpacks inside lanes give.
"""

import functools
from typing import Any

from sparsefab.kernels_cpu.intrinsics import (
    broadcast,
    dot,
    high_lanes,
    load,
    low_lanes,
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
    saturating_add,
    splat,
    store,
    store_low_halves,
    to_float,
    unpack_high_bytes,
    unpack_high_words,
    unpack_low_bytes,
    unpack_low_words,
    view,
)
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.vector import f32x8, i8x32, i16x16, i32x8

__all__ = ["spmm"]


@functools.cache
def spmm(*, vnni: bool, output: str) -> Any:
    """Return the compiled kernel for one kind of output: 's32', 'f32', 'u8' or 's8'.

    Parameters
    ----------
    vnni : bool                  True uses vpdpbusd; False needs AVX2 only.
    output : str                 What the epilogue stores.

    Returns
    -------
    kernel(ptr, offsets, values, activations, start, parameters, out, panels, groups)
        As in `spmm_vnni.spmm`.
    """
    product = dot if vnni else _dot_widened
    return _assemble(_sweep(product, unpack_low_bytes), _sweep(product, unpack_high_bytes), _EPILOGUES[output])


def _assemble(low_sweep: Any, high_sweep: Any, epilogue: Any) -> Any:
    @kernel
    def spmm_4x1x32(ptr, offsets, values, activations, start, parameters, out, panels, groups):  # type: ignore[no-untyped-def]
        panel_bytes, row_bytes, token_bytes = activations.shape[1] * 64, out.itemsize * 64, out.itemsize
        for panel in range(panels[0], panels[1]):
            lines = activations.ctypes.data + panel * panel_bytes
            for group in range(groups[0], groups[1]):
                row, first, count = 4 * group, ptr[group], ptr[group + 1] - ptr[group]
                quads, weights = offsets.ctypes.data + 16 * first, values.ctypes.data + 16 * first
                begin = start.ctypes.data + 4 * row
                for half in range(0, 64, 32):
                    to = out.ctypes.data + (panel * out.shape[1] + row) * row_bytes + half * token_bytes
                    token = 64 * panel + half
                    a, b, c, d, e, f, g, h = low_sweep(quads, weights, count, lines + half, begin)
                    epilogue(to, parameters, token, row, a, b)
                    epilogue(to + row_bytes, parameters, token, row + 1, c, d)
                    epilogue(to + 2 * row_bytes, parameters, token, row + 2, e, f)
                    epilogue(to + 3 * row_bytes, parameters, token, row + 3, g, h)
                    a, b, c, d, e, f, g, h = high_sweep(quads, weights, count, lines + half, begin)
                    to += 8 * token_bytes
                    epilogue(to, parameters, token + 8, row, a, b)
                    epilogue(to + row_bytes, parameters, token + 8, row + 1, c, d)
                    epilogue(to + 2 * row_bytes, parameters, token + 8, row + 2, e, f)
                    epilogue(to + 3 * row_bytes, parameters, token + 8, row + 3, g, h)

    return spmm_4x1x32


def _sweep(dot: Any, unpack_bytes: Any) -> Any:
    """Make the loop over a group's quads for the tokens that `unpack_bytes` selects; it returns the 8 accumulators."""

    @piece
    def sweep(quads, weights, count, lines, begin):  # type: ignore[no-untyped-def]
        a = b = splat(i32x8, read_i32(begin))
        c = d = splat(i32x8, read_i32(begin + 4))
        e = f = splat(i32x8, read_i32(begin + 8))
        g = h = splat(i32x8, read_i32(begin + 12))
        for at in range(0, 16 * count, 16):
            k0, k1 = load(i8x32, lines + read_i32(quads + at)), load(i8x32, lines + read_i32(quads + at + 4))
            k2, k3 = load(i8x32, lines + read_i32(quads + at + 8)), load(i8x32, lines + read_i32(quads + at + 12))
            k01, k23 = unpack_bytes(k0, k1), unpack_bytes(k2, k3)
            u, v = unpack_low_words(k01, k23), unpack_high_words(k01, k23)
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


@piece
def _dot_widened(acc, codes, weights):  # type: ignore[no-untyped-def]
    """Add four products u8 * s8 a dword without VNNI: bytes widened to words, even and odd apart."""
    eight, byte = splat(i16x16, 8), splat(i16x16, 255)
    u, s = view(i16x16, codes), view(i16x16, weights)
    even = multiply_add_words(u & byte, (s << eight) >> eight)
    odd = multiply_add_words((u >> eight) & byte, s >> eight)
    return acc + even + odd


@piece
def _store_sums(to, parameters, token, row, x0, x1):  # type: ignore[no-untyped-def]
    store(to, low_lanes(x0, x1))
    store(to + 64, high_lanes(x0, x1))


@piece
def _store_reals(to, parameters, token, row, x0, x1):  # type: ignore[no-untyped-def]
    row_scales, token_scales = parameters
    scale, tokens = splat(f32x8, read_f32(row_scales.ctypes.data + 4 * row)), token_scales.ctypes.data + 4 * token
    store(to, to_float(low_lanes(x0, x1)) * scale * load(f32x8, tokens))
    store(to + 64, to_float(high_lanes(x0, x1)) * scale * load(f32x8, tokens + 64))


@piece
def _requantize(parameters, row, x0, x1):  # type: ignore[no-untyped-def]
    """Return 16 codes as s16, by the house's requantization."""
    shifts, multipliers, offset, code_min, code_max = parameters
    shift = read_i32(shifts.ctypes.data + 4 * row)
    if shift >= 0:
        x0, x1 = x0 >> splat(i32x8, shift), x1 >> splat(i32x8, shift)
    else:
        top, bottom, count = splat(i32x8, 32767), splat(i32x8, -32768), splat(i32x8, -shift)
        x0, x1 = maximum(minimum(x0, top), bottom) << count, maximum(minimum(x1, top), bottom) << count
    y = multiply_round(pack_i16(x0, x1), splat(i16x16, read_i16(multipliers.ctypes.data + 2 * row)))
    y = saturating_add(y, splat(i16x16, offset)) >> splat(i16x16, 6)
    return minimum(maximum(y, splat(i16x16, code_min)), splat(i16x16, code_max))


@piece
def _store_u8(to, parameters, token, row, x0, x1):  # type: ignore[no-untyped-def]
    codes = _requantize(parameters, row, x0, x1)
    store_low_halves(to, pack_u8(codes, codes))


@piece
def _store_s8(to, parameters, token, row, x0, x1):  # type: ignore[no-untyped-def]
    codes = _requantize(parameters, row, x0, x1)
    store_low_halves(to, pack_i8(codes, codes))


_EPILOGUES = {"s32": _store_sums, "f32": _store_reals, "u8": _store_u8, "s8": _store_s8}
