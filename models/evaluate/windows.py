"""Sums across MX blocks: exact inside a segment, shifted into a fixed-point window between segments.

    acc = sum over segments of floor(S * 2^(F - d_w - d_x))        S with the multipliers of NVFP4 in it; see formats.mx

Tokens whose shifts lose nothing take one float64 product of weights and activations that are shifted beforehand; the
others a product a segment. Where int64 is too narrow, sums are digits.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats import ActivationCodes, QuantTensor
from sparsefab.models.evaluate.digits import (
    Digits,
    DigitWeights,
    add_digits,
    digit_bits,
    digits_to_float32,
    digits_to_int64,
    shift_right,
)

__all__ = ["WindowWeights", "segments_of"]

FLOAT64_EXACT_BITS = 53
INT64_EXACT_BITS = 62

Integers = NDArray[np.int64]
Segment = tuple[int, int, int, int]  # start, stop, group of the weights, block of the activations


def segments_of(columns: int, group_size: int, block_size: int) -> list[Segment]:
    """What lies in one group of the weights and one block of the activations."""
    edges = sorted({*range(0, columns, group_size), *range(0, columns, block_size), columns})
    return [(start, stop, start // group_size, start // block_size) for start, stop in pairwise(edges)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowWeights:
    """Weights prepared for sums with shifts between segments. Build it with `WindowWeights.of`."""

    significands: Integers  # [out, in], multipliers included
    exponents: Integers  # [out, in]
    shifts: Integers  # [out, groups]
    segments: list[Segment]
    fraction_bits: int
    narrow: bool  # every sum fits an int64
    largest: int
    largest_activation: int

    @staticmethod
    def of(
        tensor: QuantTensor, part: slice, block_size: int, largest_activation: int, fraction_bits: int
    ) -> "WindowWeights":
        """Prepare some rows of a tensor.

        block_size : int                Of the activations.
        largest_activation : int        Greatest magnitude on the activations' grid, multipliers included.
        fraction_bits : int             F.
        """
        significands, exponents = (values[part] for values in tensor.significands())
        columns = tensor.shape[1]
        segments = segments_of(columns, tensor.group_size, block_size)
        top = int(exponents.max(initial=0))
        largest = int(np.abs(significands).max(initial=0)) << top
        longest = max((stop - start for start, stop, _, _ in segments), default=0)
        bits = (largest * largest_activation * longest).bit_length()
        total = bits + fraction_bits + len(segments).bit_length()
        return WindowWeights(
            significands=significands,
            exponents=exponents,
            shifts=tensor.shifts[part],
            segments=segments,
            fraction_bits=fraction_bits,
            narrow=bits <= FLOAT64_EXACT_BITS and total <= INT64_EXACT_BITS,
            largest=largest,
            largest_activation=largest_activation,
        )

    def accumulate(self, codes: ActivationCodes) -> Integers:
        """Return exact sums int64[tokens, out]; the caller sees to it that 62 bits hold them."""
        if not self.narrow:
            return digits_to_int64(*self._digits(codes))
        weights = self.significands << self.exponents
        significands, exponents = codes.significands()
        x = significands << exponents
        sums = np.zeros((len(x), len(weights)), np.int64)
        cap = self._lossless_shift(weights.shape[1])
        whole = codes.shifts.max(axis=1, initial=0) <= cap
        if whole.any():
            own = int(self.shifts.max(initial=0))
            left = weights << _spread(own - self.shifts, [s[:2] for s in self.segments], [s[2] for s in self.segments])
            shifts = cap - codes.shifts[whole]
            right = x[whole] << _spread(shifts, [s[:2] for s in self.segments], [s[3] for s in self.segments])
            exact = (right.astype(np.float64) @ left.T.astype(np.float64)).astype(np.int64)
            sums[whole] = exact << (self.fraction_bits - own - cap)
        rest = ~whole
        if rest.any():
            sums[rest] = self._by_segments(x[rest], weights, codes.shifts[rest])
        return sums

    def accumulate_float32(self, codes: ActivationCodes, exponent: int) -> NDArray[np.float32]:
        """Return the sums times 2^exponent, rounded once to float32[tokens, out]."""
        if self.narrow and exponent == 0:
            return self.accumulate(codes).astype(np.float32)
        return digits_to_float32(*self._digits(codes), exponent)

    def _digits(self, codes: ActivationCodes) -> tuple[Digits, int]:
        """Sums of any width, and the bits of a digit."""
        significands, exponents = codes.significands()
        bits = digit_bits(max(stop - start for start, stop, _, _ in self.segments))
        total: Digits = [np.zeros((len(significands), len(self.significands)), np.int64)]
        for start, stop, group, block in self.segments:
            prepared = DigitWeights.of(self.significands[:, start:stop], self.exponents[:, start:stop], bits)
            lifted = exponents[:, start:stop] + self.fraction_bits
            partial = prepared.accumulate(significands[:, start:stop], lifted)
            shifts = self.shifts[:, group][None, :] + codes.shifts[:, block][:, None]
            total = add_digits(total, shift_right(partial, shifts, bits), bits)
        return total, bits

    def _lossless_shift(self, columns: int) -> int:
        """The largest shift of a token's block with which one float64 product is exact and no bit is lost; -1: none."""
        own = int(self.shifts.max(initial=0))
        bits = (self.largest * self.largest_activation * columns).bit_length()
        return max(min(self.fraction_bits - own, FLOAT64_EXACT_BITS - bits - own), -1)

    def _by_segments(self, x: Integers, weights: Integers, token_shifts: Integers) -> Integers:
        sums = np.zeros((len(x), len(weights)), np.int64)
        for start, stop, group, block in self.segments:
            partial = x[:, start:stop].astype(np.float64) @ weights[:, start:stop].T.astype(np.float64)
            shift = self.fraction_bits - self.shifts[:, group][None, :] - token_shifts[:, block][:, None]
            whole = partial.astype(np.int64)
            sums += np.where(shift >= 0, whole << np.maximum(shift, 0), whole >> np.clip(-shift, 0, 63))
        return sums


def _spread(values: Integers, spans: list[tuple[int, int]], groups: list[int]) -> Integers:
    """Spread a value a group over the inputs: [rows, groups] -> [rows, in]."""
    lengths = [stop - start for start, stop in spans]
    return np.repeat(values[:, groups], lengths, axis=1)
