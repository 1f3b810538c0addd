"""The house's requantization and the 256-entry table after it, on registers of any width."""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu.intrinsics import (
    broadcast,
    load,
    maximum,
    maximum_unsigned,
    minimum,
    minimum_unsigned,
    multiply_round,
    pack_i16,
    saturating_add,
    select_negative,
    splat,
    view,
)
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.scalars import read_i32
from sparsefab.kernels_cpu.shuffles import load_lanes, look_up_128, look_up_bytes
from sparsefab.kernels_cpu.vector import VectorType, vector

__all__ = ["finished_of", "row_of", "rows_of", "scaled_of", "shifted_of"]


@functools.cache
def shifted_of(dwords: VectorType) -> Any:
    """Return shifted(layer, row, x): sums s32 shifted as the row asks, exact within the saturation that follows."""

    @piece
    def shifted(layer, row, x):
        shift = read_i32(layer.shifts + 4 * row)
        if shift >= 0:
            return x >> load_lanes(dwords, layer.shift_lanes + 16 * row)
        # Saturating to 16 bits first keeps a shift of up to 16 places exact; packing then saturates again.
        return maximum(minimum(x, splat(dwords, 32767)), splat(dwords, -32768)) << splat(dwords, -shift)

    return shifted


@functools.cache
def scaled_of(words: VectorType) -> Any:
    """Return scaled(layer, x, multiplier): multiply, add the zero point and round off the fraction, s16.

    Packing to bytes comes next, which clamps to what they hold, and `finished_of` to less.
    """
    dwords = words.of("i32")

    @piece
    def scaled(layer, x, multiplier):
        rounding = view(words, splat(dwords, layer.rounding_lanes))
        return saturating_add(multiply_round(x, multiplier), rounding) >> splat(words, 6)

    return scaled


@functools.cache
def row_of(dwords: VectorType) -> Any:
    """Return requantized(layer, row, x, y): the sums of one row, packed inside lanes and scaled to words."""
    words = dwords.of("i16")
    shifted, scaled = shifted_of(dwords), scaled_of(words)

    @piece
    def requantized(layer, row, x, y):
        packed = pack_i16(shifted(layer, row, x), shifted(layer, row, y))
        return scaled(layer, packed, broadcast(words, layer.multiplier_lanes + 8 * row))

    return requantized


@functools.cache
def rows_of(dwords: VectorType) -> Any:
    """Return requantized(layer, row, a, b, c, d): of four rows, in each lane four words of rows 0 and 1; of 2 and 3."""
    words = dwords.of("i16")
    shifted, scaled = shifted_of(dwords), scaled_of(words)

    @piece
    def requantized(layer, row, a, b, c, d):
        a, b = shifted(layer, row, a), shifted(layer, row + 1, b)
        c, d = shifted(layer, row + 2, c), shifted(layer, row + 3, d)
        at = layer.multiplier_lanes + 8 * row
        ab, cd = load_lanes(words, at), load_lanes(words, at + 16)
        return scaled(layer, pack_i16(a, b), ab), scaled(layer, pack_i16(c, d), cd)

    return requantized


@functools.cache
def finished_of(bytes_type: VectorType, *, signed: bool, lookup: bool, permute: bool) -> Any:
    """Return finished(layer, codes): bytes clamped to the layer's codes, then each replaced by the table's if `lookup`.

    Parameters
    ----------
    signed : bool                Codes are s8, not u8.
    permute : bool               True uses vpermi2b, two of them and a blend, on 512 bits; False 16 vpshufb, 15 blends.
    """
    clamped = _clamped_of(bytes_type, minimum if signed else minimum_unsigned, maximum if signed else maximum_unsigned)
    if not lookup:
        return clamped
    look_up = _permuted if permute and bytes_type.bits == 512 else _tree_of(bytes_type)

    @piece
    def finished(layer, codes):
        return look_up(layer, clamped(layer, codes))

    return finished


def _clamped_of(kind: VectorType, smaller: Any, larger: Any) -> Any:
    dwords = kind.of("i32")

    @piece
    def clamped(layer, codes):
        if layer.clamped:
            least = view(kind, splat(dwords, layer.code_min_lanes))
            return smaller(larger(codes, least), view(kind, splat(dwords, layer.code_max_lanes)))
        return codes

    return clamped


_i8x64 = vector("i8", 64)


@piece
def _permuted(layer, codes):
    at = layer.lookup
    low = look_up_128(load(_i8x64, at), codes, load(_i8x64, at + 64))
    high = look_up_128(load(_i8x64, at + 128), codes, load(_i8x64, at + 192))
    return select_negative(codes, high, low)


def _tree_of(kind: VectorType) -> Any:
    words = kind.of("i16")

    @piece
    def sixteen(layer, part, low):
        return look_up_bytes(load_lanes(kind, layer.lookup + 16 * part), low)

    @piece
    def half(layer, part, low, bit4, bit5, bit6):
        a = select_negative(bit4, sixteen(layer, part + 1, low), sixteen(layer, part, low))
        b = select_negative(bit4, sixteen(layer, part + 3, low), sixteen(layer, part + 2, low))
        c = select_negative(bit4, sixteen(layer, part + 5, low), sixteen(layer, part + 4, low))
        d = select_negative(bit4, sixteen(layer, part + 7, low), sixteen(layer, part + 6, low))
        return select_negative(bit6, select_negative(bit5, d, c), select_negative(bit5, b, a))

    @piece
    def lookup(layer, codes):
        """Look each byte up in 16 rows of 16, and choose by its upper four bits, one after the other."""
        low = codes & splat(kind, 15)
        wide = view(words, codes)  # a shift of words moves each byte's bits to its sign, whatever comes from below
        bit6, bit5 = view(kind, wide << splat(words, 1)), view(kind, wide << splat(words, 2))
        bit4 = view(kind, wide << splat(words, 3))
        return select_negative(codes, half(layer, 8, low, bit4, bit5, bit6), half(layer, 0, low, bit4, bit5, bit6))

    return lookup
