"""Epilogues of the 512-bit kernels: what becomes of the 16 accumulators of four rows and 64 tokens.

Accumulator j of a row holds, in lane L and dword i, token 16 L + 4 j + i.  Packs work inside lanes, so that packing
the four accumulators of a row restores the order of tokens for nothing; sums and reals take a transpose of lanes.
Packing the four rows of one j instead gives the interleaved form that aligned 4x4 kernels read.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

from typing import Any

from sparsefab.kernels_cpu.intrinsics import (
    load,
    maximum,
    minimum,
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
    to_float,
)
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.shuffles import transpose_bytes, transpose_lanes
from sparsefab.kernels_cpu.vector import f32x16, i16x32, i32x16

__all__ = ["EPILOGUES", "scaled", "shifted"]


def _by_rows(store_row: Any) -> Any:
    """Make the epilogue of a group from that of a row."""

    @piece
    def epilogue(to, row_bytes, layer, tokens, row, a, b, c, d):
        store_row(to, layer, tokens, row, a)
        store_row(to + row_bytes, layer, tokens, row + 1, b)
        store_row(to + 2 * row_bytes, layer, tokens, row + 2, c)
        store_row(to + 3 * row_bytes, layer, tokens, row + 3, d)

    return epilogue


@piece
def _store_sums(to, layer, tokens, row, x):
    t0, t1, t2, t3 = transpose_lanes(x[0], x[1], x[2], x[3])
    store(to, t0)
    store(to + 64, t1)
    store(to + 128, t2)
    store(to + 192, t3)


@piece
def _store_reals(to, layer, tokens, row, x):
    scale = splat(f32x16, read_f32(layer.row_scales + 4 * row))
    t0, t1, t2, t3 = transpose_lanes(x[0], x[1], x[2], x[3])
    store(to, to_float(t0) * scale * load(f32x16, tokens))
    store(to + 64, to_float(t1) * scale * load(f32x16, tokens + 64))
    store(to + 128, to_float(t2) * scale * load(f32x16, tokens + 128))
    store(to + 192, to_float(t3) * scale * load(f32x16, tokens + 192))


@piece
def shifted(layer, row, x):
    """Shift sums as the row's requantization asks, exact within the saturation to 16 bits that follows."""
    shift = read_i32(layer.shifts + 4 * row)
    if shift >= 0:
        return x >> splat(i32x16, shift)
    # Saturating to 16 bits first keeps a shift of up to 16 places exact; packing then saturates again.
    return maximum(minimum(x, splat(i32x16, 32767)), splat(i32x16, -32768)) << splat(i32x16, -shift)


@piece
def _shifted(layer, row, x):
    x0, x1, x2, x3 = x
    return shifted(layer, row, x0), shifted(layer, row, x1), shifted(layer, row, x2), shifted(layer, row, x3)


@piece
def scaled(layer, x, multiplier):
    """Multiply, add the zero point, round off the fraction and clamp: 32 codes as s16."""
    y = saturating_add(multiply_round(x, multiplier), splat(i16x32, layer.rounding)) >> splat(i16x32, 6)
    return minimum(maximum(y, splat(i16x32, layer.code_min)), splat(i16x32, layer.code_max))


@piece
def _requantize(layer, row, x):
    """Return 64 codes as s16 in two vectors, by the house's requantization."""
    x0, x1, x2, x3 = _shifted(layer, row, x)
    multiplier = splat(i16x32, read_i16(layer.multipliers + 2 * row))
    return scaled(layer, pack_i16(x0, x1), multiplier), scaled(layer, pack_i16(x2, x3), multiplier)


@piece
def _store_u8(to, layer, tokens, row, x):
    low, high = _requantize(layer, row, x)
    store(to, pack_u8(low, high))


@piece
def _store_s8(to, layer, tokens, row, x):
    low, high = _requantize(layer, row, x)
    store(to, pack_i8(low, high))


@piece
def _store_interleaved(to, row_bytes, layer, tokens, row, a, b, c, d):
    """Store u8 codes as [16 tokens][4 rows] for each j: four rows are four consecutive inputs of the next layer."""
    a0, a1, a2, a3 = _shifted(layer, row, a)
    b0, b1, b2, b3 = _shifted(layer, row + 1, b)
    c0, c1, c2, c3 = _shifted(layer, row + 2, c)
    d0, d1, d2, d3 = _shifted(layer, row + 3, d)
    at = layer.multipliers + 2 * row
    ab = pack_i16(splat(i32x16, read_i16(at)), splat(i32x16, read_i16(at + 2)))
    cd = pack_i16(splat(i32x16, read_i16(at + 4)), splat(i32x16, read_i16(at + 6)))
    v0 = pack_u8(scaled(layer, pack_i16(a0, b0), ab), scaled(layer, pack_i16(c0, d0), cd))
    v1 = pack_u8(scaled(layer, pack_i16(a1, b1), ab), scaled(layer, pack_i16(c1, d1), cd))
    v2 = pack_u8(scaled(layer, pack_i16(a2, b2), ab), scaled(layer, pack_i16(c2, d2), cd))
    v3 = pack_u8(scaled(layer, pack_i16(a3, b3), ab), scaled(layer, pack_i16(c3, d3), cd))
    store(to, transpose_bytes(v0))
    store(to + 64, transpose_bytes(v1))
    store(to + 128, transpose_bytes(v2))
    store(to + 192, transpose_bytes(v3))


EPILOGUES = {
    "s32": _by_rows(_store_sums),
    "f32": _by_rows(_store_reals),
    "u8": _by_rows(_store_u8),
    "s8": _by_rows(_store_s8),
    "interleaved": _store_interleaved,
}
