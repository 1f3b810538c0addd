"""The house's requantization and the 256-entry table after it, on registers of any width."""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu.intrinsics import (
    load,
    maximum,
    minimum,
    multiply_round,
    read_i32,
    saturating_add,
    select_negative,
    splat,
    view,
)
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.shuffles import load_lanes, look_up_128, look_up_bytes
from sparsefab.kernels_cpu.vector import VectorType, vector

__all__ = ["lookup_of", "scaled_of", "shifted_of"]


@functools.cache
def shifted_of(dwords: VectorType) -> Any:
    """Return shifted(layer, row, x): sums s32 shifted as the row asks, exact within the saturation that follows."""

    @piece
    def shifted(layer, row, x):
        shift = read_i32(layer.shifts + 4 * row)
        if shift >= 0:
            return x >> splat(dwords, shift)
        # Saturating to 16 bits first keeps a shift of up to 16 places exact; packing then saturates again.
        return maximum(minimum(x, splat(dwords, 32767)), splat(dwords, -32768)) << splat(dwords, -shift)

    return shifted


@functools.cache
def scaled_of(words: VectorType) -> Any:
    """Return scaled(layer, x, multiplier): multiply, add the zero point, round off the fraction and clamp, s16."""

    @piece
    def scaled(layer, x, multiplier):
        y = saturating_add(multiply_round(x, multiplier), splat(words, layer.rounding)) >> splat(words, 6)
        return minimum(maximum(y, splat(words, layer.code_min)), splat(words, layer.code_max))

    return scaled


@functools.cache
def lookup_of(bytes_type: VectorType, *, present: bool, permute: bool) -> Any:
    """Return lookup(layer, codes): each byte replaced by the table's, or the codes as they are if not `present`.

    Parameters
    ----------
    permute : bool               True uses vpermi2b, two of them and a blend, on 512 bits; False 16 vpshufb, 15 blends.
    """
    if not present:
        return _unchanged
    return _permuted if permute and bytes_type.bits == 512 else _tree_of(bytes_type)


@piece
def _unchanged(layer, codes):
    return codes


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
