"""Plain decode tables: what a format looks like to a reader that knows nothing of formats."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DecodeTable", "FixedPoint"]

MAX_GRID_BITS = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeTable:
    """Value of every code as significand * 2**exponent; specials have `finite` False and significand 0.

    significand : int64[2**bits]
    exponent : int32[2**bits]
    finite : bool[2**bits]
    """

    significand: NDArray[np.int64]
    exponent: NDArray[np.int32]
    finite: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for part in (self.significand, self.exponent, self.finite):
            part.flags.writeable = False

    @property
    def grid_exponent(self) -> int:
        """Exponent of the grid that holds all finite values: the smallest in use."""
        used = self.finite & (self.significand != 0)
        return int(self.exponent[used].min()) if used.any() else 0

    @property
    def shifts(self) -> NDArray[np.int64]:
        """int64[2**bits]: value = significand * 2**shift on the grid; 0 for zero and specials."""
        used = self.finite & (self.significand != 0)
        return np.where(used, self.exponent.astype(np.int64) - self.grid_exponent, 0)

    @property
    def largest(self) -> int:
        """Greatest magnitude on the grid, of any width."""
        shifts = self.shifts
        top = int(
            np.argmax(np.ldexp(np.abs(self.significand).astype(np.float64), shifts))
        )  # exact: few bits, 2^8 shifts
        return abs(int(self.significand[top])) << int(shifts[top])

    @property
    def wide(self) -> bool:
        """Whether the grid's values need more than an int64."""
        return self.largest.bit_length() > MAX_GRID_BITS

    @property
    def unit_exponent(self) -> int:
        """Exponent of what accumulators and scales count in: of the grid, or, where that is wide, 0 if it can be.

        A float32 could not hold sums counted in a wide grid. The unit lies at least 63 bits above the grid, and not
        above the largest value.
        """
        if not self.wide:
            return self.grid_exponent
        return self.grid_exponent + min(max(-self.grid_exponent, MAX_GRID_BITS), self.largest.bit_length() - 1)

    def fits(self, bits: int) -> bool:
        """Say whether every value fits `bits`-bit two's complement on the grid."""
        return not self.wide and self.fixed_point().fits(bits)

    def fixed_point(self) -> "FixedPoint":
        """Put all finite values on one grid.

        Raises
        ------
        OverflowError               If the widest value needs more than 63 bits on that grid.
        """
        if self.wide:
            bits = self.largest.bit_length() + 1
            raise OverflowError(f"fixed-point values need {bits} bits; at most {MAX_GRID_BITS + 1} fit an int64")
        return FixedPoint(values=self.significand << self.shifts, exponent=self.grid_exponent)


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """Value of every code as values * 2**exponent, with one exponent for all codes; specials are 0.

    values : int64[2**bits], read-only: one table serves every tensor of the format
    """

    values: NDArray[np.int64]
    exponent: int

    def __post_init__(self) -> None:
        self.values.flags.writeable = False

    @property
    def bits(self) -> int:
        """Width of the widest value in two's complement, sign included."""
        low, high = int(self.values.min()), int(self.values.max())
        return max(high.bit_length() + 1, (-low - 1).bit_length() + 1 if low < 0 else 1)

    def fits(self, bits: int) -> bool:
        """Say whether every value fits `bits`-bit two's complement."""
        return self.bits <= bits
