"""Integers of 1 to 16 bits as number formats: a code is the integer itself."""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import floor, isinf
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import FormatError
from sparsefab.formats.decode import DecodeTable, FixedPoint

__all__ = ["IntFormat", "Rounding", "draw_random_bits", "round_array", "round_scalar"]

Rounding = Literal["nearest-even", "toward-zero", "stochastic"]
RANDOM_BITS = 16  # resolution of stochastic rounding: up with probability ceil(fraction * 2**16) / 2**16 at most


def round_scalar(value: Fraction, rounding: Rounding, random_bits: int = 0, parity: int = 0) -> int:
    """Round a non-negative rational to an integer; the meaning of the three rounding modes.

    `parity` is added before a tie asks which neighbour is even: 0 but for floats without mantissa bits.

    Stochastic rounding adds random_bits / 2**RANDOM_BITS, with 0 <= random_bits < 2**RANDOM_BITS, and truncates.
    """
    if rounding == "toward-zero":
        return floor(value)
    if rounding == "stochastic":
        return floor(value + Fraction(random_bits, 1 << RANDOM_BITS))
    whole = floor(value)
    doubled = 2 * (value - whole)
    return whole + int(doubled > 1 or (doubled == 1 and (whole + parity) % 2 == 1))


def draw_random_bits(shape: tuple[int, ...], seed: int) -> NDArray[np.uint16]:
    """Return uint16[shape] for stochastic rounding: the same bits for the same seed."""
    return np.random.default_rng(seed).integers(0, 1 << RANDOM_BITS, shape, dtype=np.uint16)


def round_array(
    values: NDArray[np.float64],
    rounding: Rounding,
    random_bits: NDArray[np.uint16] | None = None,
    parity: NDArray[np.integer] | None = None,
) -> NDArray[np.float64]:
    """Round non-negative float64 values to integers, exactly as `round_scalar` does."""
    if rounding == "nearest-even" and parity is None:
        return np.rint(values)
    whole = np.floor(values)
    if rounding == "nearest-even":
        fraction = values - whole
        odd = (whole.astype(np.int64) + (0 if parity is None else parity)) % 2 == 1
        rounded: NDArray[np.float64] = whole + ((fraction > 0.5) | ((fraction == 0.5) & odd))
        return rounded
    if rounding == "toward-zero":
        return whole
    if rounding != "stochastic":
        raise ValueError(f"rounding must be nearest-even, toward-zero or stochastic, not {rounding!r}")
    if random_bits is None:
        raise ValueError("stochastic rounding needs random_bits")
    # fraction >= 1 - r/2^16 holds exactly in float64, where fraction + r/2^16 might round
    threshold = 1.0 - random_bits.astype(np.float64) / (1 << RANDOM_BITS)
    up: NDArray[np.float64] = whole + (values - whole >= threshold)
    return up


@dataclass(frozen=True, slots=True, kw_only=True)
class IntFormat:
    """Integers in two's complement or unsigned.

    Parameters
    ----------
    bits : int                  1 to 16.
    signed : bool
    symmetric : bool            Leave the most negative code unused, so that the range is [-max, max].
    """

    bits: int
    signed: bool = True
    symmetric: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise FormatError(f"an integer format has 1 to 16 bits, not {self.bits}")
        if self.symmetric and (not self.signed or self.bits < 2):
            raise FormatError("a symmetric integer format is signed and has at least 2 bits")

    @property
    def name(self) -> str:
        """int8, uint4, int4sym."""
        return f"{'' if self.signed else 'u'}int{self.bits}{'sym' if self.symmetric else ''}"

    @property
    def code_min(self) -> int:
        """Least code."""
        if not self.signed:
            return 0
        return -(1 << (self.bits - 1)) + (1 if self.symmetric else 0)

    @property
    def code_max(self) -> int:
        """Greatest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def max_value(self) -> float:
        """Greatest magnitude that both signs reach (or the greatest code when unsigned or one-sided)."""
        return float(self.code_max) if self.code_max > 0 else 1.0

    @property
    def scaled_max(self) -> float:
        """The value on which scales put the largest magnitude."""
        return self.max_value

    def encode_scalar(
        self, value: float, rounding: Rounding = "nearest-even", saturating: bool = True, random_bits: int = 0
    ) -> int:
        """Encode one real number; out of range saturates, or wraps modulo 2^bits. The specification of `encode`."""
        if isinf(value):
            return self.code_max if value > 0 else self.code_min
        exact = Fraction(value)
        magnitude = round_scalar(abs(exact), rounding, random_bits)
        code = -magnitude if exact < 0 else magnitude
        if saturating:
            return min(max(code, self.code_min), self.code_max)
        self._check_wraps()
        return (code - self.code_min) % (1 << self.bits) + self.code_min

    def encode(
        self,
        values: NDArray[np.float64],
        rounding: Rounding = "nearest-even",
        random_bits: NDArray[np.uint16] | None = None,
        saturating: bool = True,
    ) -> NDArray[np.int32]:
        """Encode real numbers to codes; out of range saturates, or wraps modulo 2^bits (infinities saturate).

        Raises
        ------
        ValueError                  If a value is NaN, or a symmetric format should wrap: there is no code for it.
        """
        x = np.asarray(values, dtype=np.float64)
        if np.isnan(x).any():
            raise ValueError(f"{self.name} has no code for NaN")
        if saturating:
            magnitude = round_array(np.minimum(np.abs(x), 1 << 17), rounding, random_bits)
            return np.clip(np.copysign(magnitude, x), self.code_min, self.code_max).astype(np.int32)
        self._check_wraps()
        finite = np.where(np.isfinite(x), x, 0)
        whole = np.copysign(round_array(np.abs(finite), rounding, random_bits), finite)
        wrapped = np.fmod(whole, 1 << self.bits).astype(np.int64)  # exact, whatever the magnitude
        codes = (wrapped - self.code_min) % (1 << self.bits) + self.code_min
        edge = np.where(x > 0, self.code_max, self.code_min)
        return np.where(np.isinf(x), edge, codes).astype(np.int32)

    def _check_wraps(self) -> None:
        if self.symmetric:
            raise ValueError(f"{self.name} leaves a code unused, so it cannot wrap; use saturating=True")

    def decode(self, codes: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the real numbers that codes stand for."""
        return np.asarray(codes, dtype=np.float64)

    def to_pattern(self, codes: NDArray[np.integer]) -> NDArray[np.uint16]:
        """Return the bit patterns that are stored."""
        return (np.asarray(codes, dtype=np.int64) & ((1 << self.bits) - 1)).astype(np.uint16)

    def from_pattern(self, patterns: NDArray[np.unsignedinteger]) -> NDArray[np.int32]:
        """Return codes from stored bit patterns."""
        raw = np.asarray(patterns, dtype=np.int64)
        if self.signed:
            raw = raw - ((raw >> (self.bits - 1)) << self.bits)
        return raw.astype(np.int32)

    def decode_table(self) -> DecodeTable:
        """Value of every bit pattern."""
        return _decode_table(self)

    def fixed_point(self) -> FixedPoint:
        """Value of every bit pattern on the integer grid."""
        return _fixed_point(self)


@lru_cache(maxsize=256)
def _decode_table(fmt: IntFormat) -> DecodeTable:
    patterns = np.arange(1 << fmt.bits, dtype=np.int64)
    if fmt.signed:
        patterns = patterns - ((patterns >> (fmt.bits - 1)) << fmt.bits)
    return DecodeTable(
        significand=patterns,
        exponent=np.zeros(patterns.shape, np.int32),
        finite=np.ones(patterns.shape, np.bool_),
    )


@lru_cache(maxsize=256)
def _fixed_point(fmt: IntFormat) -> FixedPoint:
    return FixedPoint(values=fmt.decode_table().significand, exponent=0)
