"""The one requantization, accumulator -> code: cheap in RTL (one 16 x 16 multiplier) and in AVX512.

    x    = sat16((acc + 2^(shift-1)) >> shift)                       shift <= 0 shifts left, exactly
    y    = sat16(((x * multiplier + 2^14) >> 15) + 64 * zero_point + 32) >> 6       2^14 <= multiplier < 2^15
    code = clamp(y, code_min, code_max)

It stands for code = acc * ratio + zero_point with ratio = multiplier * 2^-(shift + 21), six fraction bits kept between
the two roundings.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Requantizer", "requantize", "requantize_scalar"]

_FRACTION_BITS = 6
_HALF = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requantizer:
    """Per-row constants of a requantization.

    multipliers : int32[out]            2^14 <= m < 2^15.
    shifts : int32[out]                 -47 to 62.
    zero_point : int                    Of the output codes.
    code_min, code_max : int            The clamp; a ReLU puts code_min at zero_point.
    """

    multipliers: NDArray[np.int32]
    shifts: NDArray[np.int32]
    zero_point: int
    code_min: int
    code_max: int

    @staticmethod
    def of(ratios: NDArray[np.float64], zero_point: int, code_min: int, code_max: int) -> "Requantizer":
        """Find the constants nearest to float ratios (accumulator scale x activation scale / output scale).

        Raises
        ------
        ValueError                  If a ratio is not positive and finite, or out of the shifter's reach.
        """
        ratios = np.asarray(ratios, dtype=np.float64)
        if not (np.isfinite(ratios).all() and (ratios > 0).all()):
            raise ValueError("requantization ratios must be positive and finite")
        fraction, exponent = np.frexp(ratios)  # ratio = fraction * 2**exponent, 0.5 <= fraction < 1
        multipliers = np.rint(fraction * (1 << 15)).astype(np.int32)
        exponent = np.where(multipliers == 1 << 15, exponent + 1, exponent)
        multipliers = np.where(multipliers == 1 << 15, 1 << 14, multipliers).astype(np.int32)
        shifts = (-exponent - _FRACTION_BITS).astype(np.int32)
        if shifts.min() < -47 or shifts.max() > 62:
            raise ValueError(f"requantization ratios {ratios.min():g}..{ratios.max():g} are out of reach")
        return Requantizer(
            multipliers=multipliers, shifts=shifts, zero_point=zero_point, code_min=code_min, code_max=code_max
        )

    @property
    def ratios(self) -> NDArray[np.float64]:
        """float64[out]: the ratios that the constants stand for."""
        return np.ldexp(self.multipliers.astype(np.float64), -self.shifts - 15 - _FRACTION_BITS)


def _saturate16(value: int) -> int:
    return min(max(value, -(1 << 15)), (1 << 15) - 1)


def requantize_scalar(acc: int, multiplier: int, shift: int, zero_point: int, code_min: int, code_max: int) -> int:
    """Requantize one accumulator in Python integers; the specification."""
    x = _saturate16((acc + (1 << (shift - 1))) >> shift if shift > 0 else acc << -shift)
    y = _saturate16(((x * multiplier + _HALF) >> 15) + (zero_point << _FRACTION_BITS) + (1 << (_FRACTION_BITS - 1)))
    return min(max(y >> _FRACTION_BITS, code_min), code_max)


def requantize(accumulators: NDArray[np.int64], constants: Requantizer) -> NDArray[np.int32]:
    """Requantize int64[tokens, out] to codes int32[tokens, out]."""
    acc = np.asarray(accumulators, dtype=np.int64)
    right = np.maximum(constants.shifts, 0).astype(np.int64)
    left = np.maximum(-constants.shifts, 0).astype(np.int64)
    # |acc| beyond 2^62 saturates whatever the shift; clipping keeps the rounding addend from wrapping
    acc = np.clip(acc, -(1 << 62), (1 << 62) - 1)
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    shifted = (acc + half) >> right
    # 17 bits are enough to tell that a value saturates, and leave room for a left shift of 46
    x = np.clip(np.clip(shifted, -(1 << 16), 1 << 16) << np.minimum(left, 46), -(1 << 15), (1 << 15) - 1)
    product = (x * constants.multipliers.astype(np.int64) + _HALF) >> 15
    y = product + (constants.zero_point << _FRACTION_BITS) + (1 << (_FRACTION_BITS - 1))
    y = np.clip(y, -(1 << 15), (1 << 15) - 1) >> _FRACTION_BITS
    codes: NDArray[np.int32] = np.clip(y, constants.code_min, constants.code_max).astype(np.int32)
    return codes
