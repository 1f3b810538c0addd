"""Sums of any width: float64 products of digits, carried into base-2^B integers and rounded once.

A number is a list of int64 arrays, least significant digit first: 0 <= digit < 2^B but for the last one, which keeps
the sign. A value significand * 2^shift is split by magnitude into digits with its sign; those of weights and
activations meet in float64 matrix products that are exact, since 2^(2 B) * columns <= 2^53.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DigitWeights", "add_digits", "digit_bits", "digits_to_float32", "digits_to_int64", "shift_right"]

FLOAT64_EXACT_BITS = 53
MOST_BITS = 20  # three digits and a sticky bit fit an int64

Integers = NDArray[np.int64]
Digits = list[Integers]


def _split(significands: Integers, shifts: Integers, bits: int) -> list[tuple[int, NDArray[np.float64]]]:
    """Digits (place, float64 array) of significand * 2^shift, places without any digit left out."""
    magnitude, sign = np.abs(significands), np.sign(significands).astype(np.float64)
    used = significands != 0
    width = int(np.where(used, shifts + np.frexp(magnitude.astype(np.float64))[1], 0).max(initial=0)) + 1
    parts = []
    for place in range(-(-width // bits)):
        right = place * bits - shifts
        # a digit further left than B bits has none of the significand's bits in this place
        left = np.minimum(np.maximum(-right, 0), bits)
        digit = ((magnitude >> np.minimum(np.maximum(right, 0), 63)) << left) & ((1 << bits) - 1)
        if digit.any():
            parts.append((place, sign * digit))
    return parts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DigitWeights:
    """Weights prepared for sums of any width. Build it with `DigitWeights.of`."""

    parts: tuple[tuple[int, NDArray[np.float64]], ...]  # (place, digits [in, out])
    rows: int
    bits: int  # B

    @staticmethod
    def of(significands: Integers, shifts: Integers, bits: int | None = None) -> "DigitWeights":
        """Prepare int64[out, in] significands (of at most 41 bits) and shifts."""
        rows, columns = significands.shape
        if bits is None:
            bits = digit_bits(columns)
        parts = tuple((place, digit.T.copy()) for place, digit in _split(significands, shifts, bits))
        return DigitWeights(parts=parts, rows=rows, bits=bits)

    def accumulate(self, significands: Integers, shifts: Integers) -> Digits:
        """Sum products with activations int64[tokens, in]: digits of int64[tokens, out]."""
        sums: dict[int, Integers] = {}
        for place, x in _split(significands, shifts, self.bits):
            for other, weights in self.parts:
                partial = (x @ weights).astype(np.int64)
                sums[place + other] = sums[place + other] + partial if place + other in sums else partial
        zero = np.zeros((len(significands), self.rows), np.int64)
        return _carried([sums.get(place, zero) for place in range(max(sums, default=0) + 1)], self.bits)


def digit_bits(columns: int) -> int:
    """B for sums over so many columns."""
    return min((FLOAT64_EXACT_BITS - columns.bit_length()) // 2, MOST_BITS)


def _carried(digits: Digits, bits: int) -> Digits:
    """Bring digits into their range; the last one keeps the sign and stays small."""
    result: Digits = []
    carry = np.zeros_like(digits[0])
    for digit in digits:
        total = digit + carry
        result.append(total & ((1 << bits) - 1))
        carry = total >> bits
    while True:
        if np.abs(carry).max(initial=0) < 1 << (bits - 1):
            return [*result, carry]
        result.append(carry & ((1 << bits) - 1))
        carry = carry >> bits


def add_digits(left: Digits, right: Digits, bits: int) -> Digits:
    """Add two numbers."""
    zero = np.zeros_like(left[0])
    both = range(max(len(left), len(right)))
    return _carried([_at(left, k, zero) + _at(right, k, zero) for k in both], bits)


def _at(digits: Digits, k: int, zero: Integers) -> Integers:
    return digits[k] if k < len(digits) else zero


def shift_right(digits: Digits, shifts: Integers, bits: int) -> Digits:
    """Floor of a number / 2^shift, a shift an element, all of them >= 0."""
    places = np.minimum(shifts // bits, len(digits))
    rest = shifts % bits
    stacked = np.stack(digits)  # the digits above the last one are those of its sign
    filled = np.concatenate([stacked[:-1], stacked[-1:] & ((1 << bits) - 1)])
    sign = (stacked[-1] >> 63) & ((1 << bits) - 1)
    filled = np.concatenate([filled, np.broadcast_to(sign, (len(digits) + 2, *sign.shape))])
    result = []
    for k in range(len(digits)):
        low = np.take_along_axis(filled, (k + places)[None], axis=0)[0]
        high = np.take_along_axis(filled, (k + places + 1)[None], axis=0)[0]
        result.append(((low | (high << bits)) >> rest) & ((1 << bits) - 1))
    # the last digit is the sign's, too: give it back as a number
    return [*result[:-1], result[-1] - ((result[-1] >> (bits - 1)) << bits)]


def digits_to_int64(digits: Digits, bits: int) -> Integers:
    """Return a number that 63 bits hold."""
    total = np.zeros_like(digits[0])
    for place, digit in enumerate(digits):
        if place * bits < 64:  # what lies above is the sign's
            total += digit << (place * bits)
    return total


def digits_to_float32(digits: Digits, bits: int, exponent: int) -> NDArray[np.float32]:
    """Round number * 2^exponent to float32, to nearest, ties to even, once, subnormal results included."""
    negative = digits[-1] < 0
    sign = np.where(negative, -1, 1)
    stacked = np.stack(_carried([digit * sign for digit in digits], bits))
    count = len(stacked)
    top = count - 1 - np.argmax(stacked[::-1] != 0, axis=0)  # 0 where all are: argmax finds the first place then
    top = np.where((stacked != 0).any(axis=0), top, 0)
    low = np.maximum(top - 2, 0)
    head = np.zeros_like(digits[0])
    for step in (2, 1, 0):
        head = (head << bits) | np.take_along_axis(stacked, np.minimum(low + step, count - 1)[None], axis=0)[0] * (
            low + step <= top
        )
    below = np.concatenate([np.zeros((1, *head.shape), bool), np.logical_or.accumulate(stacked != 0, axis=0)])
    sticky = np.take_along_axis(below, low[None], axis=0)[0]
    # to 51 bits and a sticky one, which float64 holds exactly
    long = head >= 1 << 51
    sticky |= long & ((head & 0x1FF) != 0)
    head = np.where(long, head >> 9, head)
    odd = ((head << 1) | sticky).astype(np.float64)
    exact = np.ldexp(odd, low * bits - 1 + exponent + np.where(long, 9, 0))
    rounded: NDArray[np.float32] = (exact * np.where(negative, -1.0, 1.0)).astype(np.float32)
    return rounded + np.float32(0)  # no -0.0
