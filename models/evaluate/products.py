"""Exact integer products, fast: by float matrix products whose every partial sum is exact.

    s8 x s8               float32, in slices of the input axis whose sums stay below 2^24; slices added in float64
    up to 53 bits         one float64 product
    up to 62 bits         float64, in slices whose sums stay below 2^53; slices added as int64
    wider                 `digits`; blocks with shifts between them: `windows`

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
INT64_EXACT_BITS = 62


def _bits(magnitude: int) -> int:
    return int(magnitude).bit_length()


def choose_method(largest_weight: int, largest_activation: int, columns: int) -> Method:
    """Return 'float32', 'float64', 'int64' or 'digits': the fastest product that is exact for these ranges."""
    product = max(largest_weight * largest_activation, 1)
    if (FLOAT32_EXACT - 1) // product >= min(columns, MIN_SLICE):
        return "float32"
    if _bits(product * columns) <= FLOAT64_EXACT_BITS:
        return "float64"
    if _bits(product * columns) <= INT64_EXACT_BITS and _bits(product * MIN_SLICE) <= FLOAT64_EXACT_BITS:
        return "int64"
    return "digits"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExactWeights:
    """Integer weights prepared for exact products with activations of a known range.

    Build it with `ExactWeights.of`; `accumulate` then takes activations of at most the stated magnitude.
    """

    method: Method
    slices: tuple[tuple[int, int, NDArray[np.floating]], ...]  # (start, stop, weights [in, out])
    rows: int

    @staticmethod
    def of(integers: NDArray[np.int64], largest_activation: int) -> "ExactWeights":
        """Prepare int64[out, in] for activations of magnitude up to `largest_activation`.

        Raises
        ------
        OverflowError               If sums may exceed 62 bits: those are `DigitWeights`'.
        """
        rows, columns = integers.shape
        largest = int(np.abs(integers).max(initial=0))
        method = choose_method(largest, largest_activation, columns)
        if method == "digits":
            raise OverflowError(f"sums of {columns} products of {largest} and {largest_activation} exceed 62 bits")
        limit = FLOAT32_EXACT if method == "float32" else 1 << FLOAT64_EXACT_BITS
        dtype = "float32" if method == "float32" else "float64"
        step = min((limit - 1) // max(largest * largest_activation, 1), max(columns, 1))
        parts = tuple(
            (start, min(start + step, columns), integers[:, start : start + step].T.astype(dtype, order="C"))
            for start in range(0, columns, step)
        )
        return ExactWeights(method=method, slices=parts, rows=rows)

    def accumulate(self, activations: Integers) -> NDArray[np.float64] | NDArray[np.int64]:
        """Return exact sums [tokens, out]: float64 where that is exact, else int64."""
        x: NDArray[np.floating] = activations.astype(np.float32 if self.method == "float32" else np.float64)
        if self.method == "int64":
            sums = np.zeros((len(activations), self.rows), np.int64)
            for start, stop, weights in self.slices:
                sums += (x[:, start:stop] @ weights).astype(np.int64)
            return sums
        total = np.zeros((len(activations), self.rows))
        for start, stop, weights in self.slices:
            total += x[:, start:stop] @ weights
        return total  # from +0.0: a float sum of products 0 * -w alone would be -0.0, which no integer is

    def accumulate_float32(self, activations: Integers) -> NDArray[np.float32]:
        """Return the sums rounded once to float32[tokens, out]."""
        if self.method == "float32" and len(self.slices) == 1:
            return (activations.astype(np.float32) @ self.slices[0][2] + np.float32(0)).astype(np.float32, copy=False)
        return self.accumulate(activations).astype(np.float32)
