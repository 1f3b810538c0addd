"""Minifloats ExMy: any exponent and mantissa width, bias, and treatment of the top codes.

    bit    E+M .............. M M-1 ... 0        value = (-1)^s * 2^(max(e,1) - bias) * ([e > 0] + m / 2^M)
          [s] [ exponent e    ] [ mantissa m ]   E = 0: a plain sign-magnitude fixed-point number, 0 <= |value| < 2

Specials: 'ieee' reserves the top exponent for infinity (m = 0) and NaN; 'fn' reserves only the all-ones magnitude, as
NaN; 'fnuz' only the code of negative zero, as NaN; 'none' reserves nothing. Without a zero (E8M0, a scale) code c is
the power of two 2^(c - bias), and what is below the least of them becomes it.
Sources: IEEE 754-2019; OCP Microscaling Formats v1.0; OCP 8-bit Floating Point v1.0; arXiv 2206.02915 (fnuz).
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import copysign, inf, isinf, isnan
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import FormatError
from sparsefab.formats.decode import DecodeTable, FixedPoint
from sparsefab.formats.ints import Rounding, round_array, round_scalar

__all__ = ["FloatFormat", "Specials"]

Specials = Literal["ieee", "fn", "fnuz", "none"]
_SUFFIXES: dict[Specials, str] = {"ieee": "i", "fn": "fn", "fnuz": "fnuz", "none": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatFormat:
    """A minifloat.

    Parameters
    ----------
    exponent_bits : int         0 to 8.
    mantissa_bits : int         0 to 10.
    bias : int | None           None: 2^(E-1) - 1, one more for 'fnuz', and 0 for E = 0.
    specials : 'ieee' | 'fn' | 'fnuz' | 'none'
    signed : bool
    zero : bool                 False: powers of two alone; needs signed=False, mantissa_bits=0.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int | None = None
    specials: Specials = "none"
    signed: bool = True
    zero: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.exponent_bits <= 8:
            raise FormatError(f"exponent_bits must be 0 to 8, not {self.exponent_bits}")
        if not 0 <= self.mantissa_bits <= 10:
            raise FormatError(f"mantissa_bits must be 0 to 10, not {self.mantissa_bits}")
        if self.exponent_bits + self.mantissa_bits == 0:
            raise FormatError("a minifloat needs at least one exponent or mantissa bit")
        if self.specials not in _SUFFIXES:
            raise FormatError(f"specials must be 'ieee', 'fn', 'fnuz' or 'none', not {self.specials!r}")
        if self.specials == "fnuz" and not self.signed:
            raise FormatError("specials='fnuz' takes the code of negative zero, so signed must be True")
        if not self.zero and (self.signed or self.mantissa_bits or self.specials == "ieee"):
            raise FormatError(
                "zero=False stands for powers of two: signed=False, mantissa_bits=0, specials 'fn' or 'none'"
            )
        if self.specials == "ieee" and self.exponent_bits == 0:
            raise FormatError("specials='ieee' reserves the top exponent, so exponent_bits must be at least 1")
        if not -256 <= self.exponent_bias <= 256:
            raise FormatError(f"bias must lie in -256..256, not {self.bias}")
        if self.max_code < 0 or (self.max_code == 0 and self.specials != "none"):
            raise FormatError(f"{self.name} with specials {self.specials!r} has no finite value besides zero")

    @property
    def name(self) -> str:
        """e4m3fn, e5m2 with suffix i for IEEE, u for unsigned, b<n> for a bias of its own; e8m0fnu without a zero."""
        own_bias = "" if self.bias in (None, self._default_bias) else f"b{self.bias}"
        if not self.zero:
            return f"e{self.exponent_bits}m0{_SUFFIXES[self.specials]}u{own_bias}"
        suffix = _SUFFIXES[self.specials] + own_bias
        return f"{'' if self.signed else 'u'}e{self.exponent_bits}m{self.mantissa_bits}{suffix}"

    @property
    def bits(self) -> int:
        """Stored bits of a code."""
        return int(self.signed) + self.exponent_bits + self.mantissa_bits

    @property
    def _default_bias(self) -> int:
        if not self.exponent_bits:
            return 0
        return (1 << (self.exponent_bits - 1)) - (0 if self.specials == "fnuz" else 1)

    @property
    def exponent_bias(self) -> int:
        """The bias in force."""
        return self._default_bias if self.bias is None else self.bias

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal binade, which subnormals share."""
        return (1 if self.zero else 0) - self.exponent_bias

    @property
    def max_code(self) -> int:
        """Magnitude code of the largest finite value."""
        top = (1 << (self.exponent_bits + self.mantissa_bits)) - 1
        if self.specials == "ieee":
            return top - (1 << self.mantissa_bits)
        return top - 1 if self.specials == "fn" else top

    @property
    def max_value(self) -> float:
        """Largest finite value."""
        return float(self._magnitude(self.max_code))

    @property
    def scaled_max(self) -> float:
        """The value on which scales put the largest magnitude: max_value, or the unit of a format with a wide grid."""
        table = self.decode_table()
        return float(np.ldexp(1.0, table.unit_exponent)) if table.wide else self.max_value

    @property
    def nan_code(self) -> int | None:
        """Magnitude code of the canonical NaN, the sign bit for 'fnuz'; None when there is none."""
        top = (1 << (self.exponent_bits + self.mantissa_bits)) - 1
        if self.specials == "fnuz":
            return top + 1
        if self.specials == "fn":
            return top
        if self.specials == "ieee" and self.mantissa_bits:
            return self.max_code + 1 + (1 << (self.mantissa_bits - 1))  # quiet NaN
        return None

    @property
    def inf_code(self) -> int | None:
        """Magnitude code of infinity, None when there is none."""
        return self.max_code + 1 if self.specials == "ieee" else None

    def _magnitude(self, code: int) -> Fraction:
        """Value of a finite magnitude code."""
        exponent, mantissa = code >> self.mantissa_bits, code & ((1 << self.mantissa_bits) - 1)
        if not self.zero:
            return Fraction(2) ** (code - self.exponent_bias)
        hidden = (1 << self.mantissa_bits) if exponent else 0
        return Fraction(hidden + mantissa) * Fraction(2) ** (max(exponent, 1) - self.exponent_bias - self.mantissa_bits)

    # scalar specification

    def decode_scalar(self, code: int) -> float:
        """Return the value of one bit pattern; the specification of `decode`."""
        sign = code >> (self.exponent_bits + self.mantissa_bits) if self.signed else 0
        magnitude = code & ((1 << (self.exponent_bits + self.mantissa_bits)) - 1)
        if self.specials == "fnuz" and code == self.nan_code:
            return float("nan")
        if magnitude <= self.max_code:
            value = float(self._magnitude(magnitude))
        else:
            value = inf if magnitude == self.inf_code else float("nan")
        return copysign(value, -1.0 if sign else 1.0)

    def encode_scalar(
        self, value: float, rounding: Rounding = "nearest-even", saturating: bool = True, random_bits: int = 0
    ) -> int:
        """Encode one real number; the specification of `encode`.

        A format without a sign or a zero takes what lies below its range as its code 0; not saturating, zero and
        negative numbers become NaN where there is no zero.

        Raises
        ------
        ValueError                  If the value is NaN and the format has no NaN.
        """
        sign_bit = 1 << (self.exponent_bits + self.mantissa_bits)
        negative = copysign(1.0, value) < 0
        if isnan(value):
            if self.nan_code is None:
                raise ValueError(f"{self.name} has no code for NaN")
            return self.nan_code | (sign_bit if negative and self.signed else 0)
        if not self.zero and value <= 0 and not saturating:
            return 0 if self.nan_code is None else self.nan_code
        if negative and not self.signed:
            return 0
        if isinf(value):
            code = self._overflow_code(saturating)
        else:
            exact = abs(Fraction(value))
            exponent = self.min_exponent
            while exact >= Fraction(2) ** (exponent + 1) and self.exponent_bits:
                exponent += 1
            # without mantissa bits the significand is always 1: a tie goes to the even code instead
            parity = 0 if self.mantissa_bits else exponent - self.min_exponent - self._skipped
            steps = round_scalar(exact / Fraction(2) ** (exponent - self.mantissa_bits), rounding, random_bits, parity)
            code = max(((exponent - self.min_exponent) << self.mantissa_bits) + steps - self._skipped, 0)
            if code > self.max_code:
                code = self.max_code if rounding == "toward-zero" else self._overflow_code(saturating)
            if code == 0 and self.specials == "fnuz":
                return 0
        return code | (sign_bit if negative else 0)

    @property
    def _skipped(self) -> int:
        """Codes that a missing zero frees below the smallest value."""
        return 0 if self.zero else 1

    def _overflow_code(self, saturating: bool) -> int:
        """Magnitude code of what lies beyond the largest finite value."""
        if saturating:
            return self.max_code
        if self.inf_code is not None:
            return self.inf_code
        return self.max_code if self.nan_code is None else self.nan_code

    # array twins

    def encode(
        self,
        values: NDArray[np.float64],
        rounding: Rounding = "nearest-even",
        random_bits: NDArray[np.uint16] | None = None,
        saturating: bool = True,
    ) -> NDArray[np.int32]:
        """Encode real numbers to bit patterns.

        Raises
        ------
        ValueError                  If a value is NaN and the format has no NaN.
        """
        x = np.asarray(values, dtype=np.float64)
        nan = np.isnan(x)
        if nan.any() and self.nan_code is None:
            raise ValueError(f"{self.name} has no code for NaN")
        negative = np.signbit(x)
        magnitude = np.where(np.isfinite(x), np.abs(x), 0.0)
        _, exponent = np.frexp(magnitude)  # magnitude = f * 2**exponent, 0.5 <= f < 1
        exponent = np.where(magnitude > 0, np.maximum(exponent - 1, self.min_exponent), self.min_exponent)
        if not self.exponent_bits:
            exponent = np.full_like(exponent, self.min_exponent)
        # far above the range one step is as good as another, and the code must not overflow int32
        exponent = np.minimum(exponent, self.min_exponent + (1 << self.exponent_bits))
        steps = round_array(
            np.minimum(np.ldexp(magnitude, self.mantissa_bits - exponent), 2.0**20),
            rounding,
            random_bits,
            None if self.mantissa_bits else exponent - self.min_exponent - self._skipped,
        )
        code = ((exponent - self.min_exponent).astype(np.int64) << self.mantissa_bits) + steps.astype(np.int64)
        code = np.maximum(code - self._skipped, 0)
        beyond = self.max_code if rounding == "toward-zero" else self._overflow_code(saturating)
        code = np.where(code > self.max_code, beyond, code)
        code = np.where(np.isinf(x), self._overflow_code(saturating), code)
        if self.nan_code is not None:
            code = np.where(nan, self.nan_code, code)
        if self.signed:
            negative &= ~((self.specials == "fnuz") & (code == 0))  # there is no negative zero
            return (code | (negative.astype(np.int64) << (self.exponent_bits + self.mantissa_bits))).astype(np.int32)
        code = np.where(negative & ~nan, 0, code)
        if not self.zero and not saturating and self.nan_code is not None:
            code = np.where(x <= 0, self.nan_code, code)
        return code.astype(np.int32)

    def decode(self, codes: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the real numbers that bit patterns stand for; NaN and infinities included."""
        result: NDArray[np.float64] = _values(self)[np.asarray(codes, dtype=np.int64)]
        return result

    def to_pattern(self, codes: NDArray[np.integer]) -> NDArray[np.uint16]:
        """Return the bit patterns that are stored: the codes themselves."""
        return np.asarray(codes).astype(np.uint16)

    def from_pattern(self, patterns: NDArray[np.unsignedinteger]) -> NDArray[np.int32]:
        """Return codes from stored bit patterns: the patterns themselves."""
        return np.asarray(patterns).astype(np.int32)

    def decode_table(self) -> DecodeTable:
        """Value of every bit pattern as significand and exponent."""
        return _decode_table(self)

    def fixed_point(self) -> FixedPoint:
        """Value of every bit pattern on the grid of the smallest subnormal; OverflowError where int64 is too narrow."""
        return _fixed_point(self)


@lru_cache(maxsize=256)
def _values(fmt: FloatFormat) -> NDArray[np.float64]:
    """The value of every bit pattern, read-only."""
    values = np.array([fmt.decode_scalar(code) for code in range(1 << fmt.bits)], dtype=np.float64)
    values.flags.writeable = False
    return values


@lru_cache(maxsize=256)
def _decode_table(fmt: FloatFormat) -> DecodeTable:
    patterns = np.arange(1 << fmt.bits, dtype=np.int64)
    magnitude = patterns & ((1 << (fmt.exponent_bits + fmt.mantissa_bits)) - 1)
    exponent, mantissa = magnitude >> fmt.mantissa_bits, magnitude & ((1 << fmt.mantissa_bits) - 1)
    finite = magnitude <= fmt.max_code
    if fmt.specials == "fnuz":
        finite &= patterns != fmt.nan_code
    normal = (exponent > 0) | (not fmt.zero)
    significand = np.where(finite, mantissa + normal * (1 << fmt.mantissa_bits), 0)
    if fmt.signed:
        significand = np.where(patterns >> (fmt.bits - 1) == 1, -significand, significand)
    lsb = (np.maximum(exponent, 1) if fmt.zero else exponent) - fmt.exponent_bias - fmt.mantissa_bits
    return DecodeTable(significand=significand, exponent=lsb.astype(np.int32), finite=finite)


@lru_cache(maxsize=256)
def _fixed_point(fmt: FloatFormat) -> FixedPoint:
    return fmt.decode_table().fixed_point()
