"""Plain decode tables: what a format looks like to a reader that knows nothing of formats."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DecodeTable", "FixedPoint"]


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

    def fixed_point(self) -> "FixedPoint":
        """Put all finite values on one grid, that of the smallest exponent in use.

        Raises
        ------
        OverflowError               If the widest value needs more than 63 bits on that grid.
        """
        used = self.finite & (self.significand != 0)
        lsb = int(self.exponent[used].min()) if used.any() else 0
        shifts = np.where(used, self.exponent - lsb, 0)
        widest = max((int(abs(s)) << int(k) for s, k in zip(self.significand, shifts, strict=True)), default=0)
        if widest.bit_length() > 63:
            raise OverflowError(f"fixed-point values need {widest.bit_length() + 1} bits; at most 64 fit an int64")
        return FixedPoint(values=self.significand << shifts.astype(np.int64), exponent=lsb)


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
