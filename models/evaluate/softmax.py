"""The softmax of a quantized encoder: 8-bit weights of exact integer scores, in integers throughout.

    level   = score >> coarse                                  s16, floor
    octaves = product(min(greatest level - level, 2^15 - 1), multiplier)        fraction_bits of them a fraction
    weight  = product(cubic(fraction), 512 >> whole)           round(255 * 2^-octaves), within 0.53 of it

`product(a, b)` is (a * b + 2^14) >> 15, what processors call vpmulhrsw: every step is one operation on 16 bits. Weights
are divided by their sum after they have been multiplied with the values. The greatest score's weight is 255.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError

__all__ = ["HALVED", "LEAST_LEVEL", "POWERS", "Softmax"]

# 64 * 255 * 2^-f for f from 0 to 1, in units of 2^-15: the cubic of least relative error, 7.5e-5; constant term first.
POWERS = (16319, -11277, 3755, -637)
HALVED = 512  # takes 64 * weight to weight
LEAST_LEVEL = -(1 << 15)
_MOST_LEVEL = (1 << 15) - 1
_FRACTION_BITS = 11  # at most: 16 octaves fill 15 bits
_FARTHEST = 9.01  # octaves: 255 * 2^-9 is weight 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Softmax:
    """Constants of one layer.

    coarse : int                 Bits that levels drop.
    multiplier : int             Octaves of a level, in units of 2^-(15 + fraction_bits); 1 to 2^15 - 1.
    fraction_bits : int          0 to 11.
    """

    coarse: int
    multiplier: int
    fraction_bits: int

    @classmethod
    def of(cls, unit: float, largest: int) -> "Softmax":
        """Choose the constants.

        Parameters
        ----------
        unit : float                 Octaves of one unit of a score: its scale times log2(e).
        largest : int                Magnitude that no score exceeds.

        Raises
        ------
        ModelError                   If one level would be an octave or more.
        """
        coarse = max(0, largest.bit_length() - 15)
        if _MOST_LEVEL * unit * 2.0**coarse < _FARTHEST:  # differences stop short of weight 0: none may saturate
            coarse = max(0, largest.bit_length() - 14)
        step = unit * 2.0**coarse
        if not 0 <= step < 1:
            raise ModelError(f"one level of {2**coarse} units of a score is {step:.3g} octaves, too many to tell apart")
        bits = _FRACTION_BITS
        while bits and round(step * 2.0 ** (15 + bits)) > _MOST_LEVEL:
            bits -= 1
        multiplier = min(max(round(step * 2.0 ** (15 + bits)), 1), _MOST_LEVEL)
        return cls(coarse=coarse, multiplier=multiplier, fraction_bits=bits)

    def weights(self, scores: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the weights, 0 to 255, of scores along their last axis."""
        levels = scores >> self.coarse
        below = np.minimum(levels.max(axis=-1, keepdims=True) - levels, _MOST_LEVEL)
        octaves = _product(below, self.multiplier)
        whole = np.minimum(octaves >> self.fraction_bits, 15)
        fraction = (octaves << (15 - self.fraction_bits)) & _MOST_LEVEL
        a, b, c, d = POWERS
        y = _product(fraction, _product(fraction, _product(fraction, d) + c) + b) + a
        return _product(y, HALVED >> whole)

    @property
    def unit(self) -> float:
        """Octaves of one unit of a score, as the constants have it."""
        return math.ldexp(self.multiplier, -15 - self.fraction_bits - self.coarse)


def _product(a: NDArray[np.int64], b: Any) -> NDArray[np.int64]:
    rounded: NDArray[np.int64] = (a * b + (1 << 14)) >> 15
    return rounded
