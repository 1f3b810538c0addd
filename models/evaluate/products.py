"""Exact integer products, fast: by float matrix products whose every partial sum is exact.

    s8 x s8               float32, in slices of the input axis whose sums stay below 2^24; slices added in float64
    up to 53 bits         one float64 product
    wider (E5M2 x E5M2)   float64 products of limbs, added as 96-bit integers

All give the accumulator of `sim.reference.linear` and its rounding to float32, to the bit; tests/agreement holds it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FLOAT64_EXACT_BITS", "ExactWeights", "Method", "choose_method"]

Method = str
Integers = NDArray[np.int32] | NDArray[np.int64]
FLOAT32_EXACT = 1 << 24
FLOAT64_EXACT_BITS = 53
MIN_SLICE = 128  # below this, one float64 product is faster than many float32 ones
LOW_BITS = 32
ACTIVATION_LIMB_BITS = 16


def _bits(magnitude: int) -> int:
    return int(magnitude).bit_length()


def choose_method(largest_weight: int, largest_activation: int, columns: int) -> Method:
    """Return 'float32', 'float64' or 'limbs': the fastest product that is exact for these ranges."""
    product = max(largest_weight * largest_activation, 1)
    if (FLOAT32_EXACT - 1) // product >= min(columns, MIN_SLICE):
        return "float32"
    if _bits(product * columns) <= FLOAT64_EXACT_BITS:
        return "float64"
    return "limbs"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExactWeights:
    """Integer weights prepared for exact products with activations of a known range.

    Build it with `ExactWeights.of`; `accumulate` then takes activations of at most the stated magnitude.
    """

    method: Method
    slices: tuple[tuple[int, int, NDArray[np.floating]], ...]  # (start, stop, weights [in, out]); limbs: (shift, 0, ..)
    rows: int

    @staticmethod
    def of(integers: NDArray[np.int64], largest_activation: int) -> "ExactWeights":
        """Prepare int64[out, in] for activations of magnitude up to `largest_activation`."""
        rows, columns = integers.shape
        largest = int(np.abs(integers).max(initial=0))
        method = choose_method(largest, largest_activation, columns)
        if method == "float32":
            step = min((FLOAT32_EXACT - 1) // max(largest * largest_activation, 1), columns)
            parts = tuple(
                (start, min(start + step, columns), integers[:, start : start + step].T.astype(np.float32, order="C"))
                for start in range(0, columns, step)
            )
        elif method == "float64":
            parts = ((0, columns, integers.T.astype(np.float64, order="C")),)
        else:
            bits = FLOAT64_EXACT_BITS - ACTIVATION_LIMB_BITS - _bits(columns) - 1
            parts = tuple((shift, 0, limb.T.astype(np.float64, order="C")) for shift, limb in _limbs(integers, bits))
        return ExactWeights(method=method, slices=parts, rows=rows)

    def accumulate(self, activations: Integers) -> NDArray[np.float64] | NDArray[np.int64]:
        """Return exact sums [tokens, out] of up to 62 bits: float64 where that is exact, else int64.

        Raises
        ------
        OverflowError               If a sum is wider; `accumulate_float32` takes any width.
        """
        if self.method == "limbs":
            high, low = self._limb_sums(activations)
            if (np.abs(high) >= 1 << (61 - LOW_BITS)).any():
                raise OverflowError("an accumulator is wider than 62 bits")
            wide: NDArray[np.int64] = (high << LOW_BITS) + low
            return wide
        x: NDArray[np.floating] = activations.astype(np.float32 if self.method == "float32" else np.float64)
        total = np.zeros((len(activations), self.rows))
        for start, stop, weights in self.slices:
            total += x[:, start:stop] @ weights
        return total  # from +0.0: a float sum of products 0 * -w alone would be -0.0, which no integer is

    def accumulate_float32(self, activations: Integers) -> NDArray[np.float32]:
        """Return the sums rounded once to float32[tokens, out], whatever their width."""
        if self.method == "float32" and len(self.slices) == 1:
            return (activations.astype(np.float32) @ self.slices[0][2] + np.float32(0)).astype(np.float32, copy=False)
        if self.method != "limbs":
            return self.accumulate(activations).astype(np.float32)
        high, low = self._limb_sums(activations)
        # small sums fit an int64, which converts with one rounding; of large ones only a sticky bit of `low` matters
        small = np.abs(high) < (1 << 29)
        exact = np.where(small, (high << LOW_BITS) + low, 0).astype(np.float32)
        odd = ((np.where(small, 0, high) << 1) | (low != 0)).astype(np.float64)
        return np.where(small, exact, np.ldexp(odd.astype(np.float32), LOW_BITS - 1)).astype(np.float32)

    def _limb_sums(self, activations: Integers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sums as high * 2^32 + low, 0 <= low < 2^32."""
        high = np.zeros((len(activations), self.rows), np.int64)
        low = np.zeros_like(high)
        for activation_shift, digits in _limbs(activations.astype(np.int64), ACTIVATION_LIMB_BITS):
            x = digits.astype(np.float64)
            for weight_shift, _, weights in self.slices:
                _add_shifted(high, low, (x @ weights).astype(np.int64), activation_shift + weight_shift)
        high += low >> LOW_BITS
        low &= (1 << LOW_BITS) - 1
        return high, low


def _limbs(integers: NDArray[np.int64], bits: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Split integers into (shift, digits) with unsigned digits of `bits` bits but for a signed last one."""
    parts: list[tuple[int, NDArray[np.int64]]] = []
    shift, rest = 0, integers
    while True:
        if np.abs(rest).max(initial=0) < 1 << (bits - 1):
            return [*parts, (shift, rest)]
        parts.append((shift, rest & ((1 << bits) - 1)))
        rest = rest >> bits
        shift += bits


def _add_shifted(high: NDArray[np.int64], low: NDArray[np.int64], value: NDArray[np.int64], shift: int) -> None:
    """Add value * 2^shift to high * 2^32 + low, in place."""
    if shift >= LOW_BITS:
        high += value << (shift - LOW_BITS)
        return
    high += value >> (LOW_BITS - shift)
    low += (value & ((1 << (LOW_BITS - shift)) - 1)) << shift
