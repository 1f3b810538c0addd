"""A compressed linear layer, to the bit: exact integers in, exact integers out.

    acc = bias + sum over segments of floor(m_w * m_x * sum of (q_i - z_w) * (x_i - z_x) * 2^(F - d_w - d_x))
               + sum of o_i * (x_i - z_x)          outliers, of integer formats alone

A segment is what lies in one group of the weights and one of the activations; m, z, d are the groups' multipliers, zero
points and shifts, F fraction bits: `sparsefab.formats.mx` says where they come from. Where there are no shifts, F is 0.

Arrays only: codes as bit patterns, formats as decode tables. `accumulate` serves accumulators of up to 63 bits,
`accumulate_limbs` any width, as base-2^16 digits.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "LIMB_BITS",
    "Operand",
    "accumulate",
    "accumulate_limbs",
    "accumulate_more",
    "limbs_to_float32",
    "requantize_codes",
    "to_values",
]

LIMB_BITS = 16

Patterns = NDArray[np.uint16]
Integers = NDArray[np.int64]


class Operand(NamedTuple):
    """One operand of a layer: codes, what they stand for, and the scales of their groups along the input axis."""

    patterns: Patterns  # [rows or tokens, in] bit patterns
    stored: NDArray[np.bool_]  # [rows or tokens, in]
    significands: Integers  # [2**bits]
    exponents: Integers  # [2**bits]: value = significand * 2^exponent on the format's grid, exponents >= 0
    zero_points: Integers  # [rows or tokens, groups]
    multipliers: Integers  # [rows or tokens, groups]
    shifts: Integers  # [rows or tokens, groups], >= 0
    group_size: int


@njit(cache=True)
def accumulate(weights: Operand, activations: Operand, fraction_bits: int, bias: Integers) -> Integers:
    """Accumulate int64[tokens, out]; the caller sees to it that 63 bits hold every sum, shifted or not."""
    tokens, columns = activations.patterns.shape
    rows = weights.patterns.shape[0]
    weight_values = weights.significands << weights.exponents
    activation_values = activations.significands << activations.exponents
    result = np.empty((tokens, rows), np.int64)
    for token in range(tokens):
        for row in range(rows):
            total = bias[row]
            start = 0
            while start < columns:
                group, block = start // weights.group_size, start // activations.group_size
                stop = min((group + 1) * weights.group_size, (block + 1) * activations.group_size, columns)
                partial = np.int64(0)
                for i in range(start, stop):
                    if weights.stored[row, i]:
                        q = weight_values[weights.patterns[row, i]] - weights.zero_points[row, group]
                        x = activation_values[activations.patterns[token, i]] - activations.zero_points[token, block]
                        partial += q * x
                partial *= weights.multipliers[row, group] * activations.multipliers[token, block]
                shift = fraction_bits - weights.shifts[row, group] - activations.shifts[token, block]
                total += partial << shift if shift >= 0 else partial >> min(-shift, 63)
                start = stop
            result[token, row] = total
    return result


@njit(cache=True)
def accumulate_more(accumulators: Integers, outliers: NDArray[np.int16], activations: Operand) -> Integers:
    """Return int64[tokens, out] with outliers [out, in] added: + sum of outlier_i * m_x * (x_i - z_x), no shifts."""
    tokens, columns = activations.patterns.shape
    values = activations.significands << activations.exponents
    result = accumulators.copy()
    for token in range(tokens):
        for row in range(outliers.shape[0]):
            for i in range(columns):
                if outliers[row, i] != 0:
                    block = i // activations.group_size
                    x = values[activations.patterns[token, i]] - activations.zero_points[token, block]
                    result[token, row] += np.int64(outliers[row, i]) * activations.multipliers[token, block] * x
    return result


@njit(cache=True)
def _carry(digits: Integers) -> None:
    """Bring digits to 0 <= d < 2^16 in place; the last one keeps the sign."""
    for k in range(digits.shape[0] - 1):
        digits[k + 1] += digits[k] >> LIMB_BITS
        digits[k] &= (1 << LIMB_BITS) - 1


@njit(cache=True)
def _add_shifted(total: Integers, part: Integers, shift: int) -> None:
    """Add floor(part * 2^shift) to total, in place; `part` is carried, and is kept."""
    limbs = total.shape[0]
    if shift >= 0:
        word, bit = shift // LIMB_BITS, shift % LIMB_BITS
        for k in range(limbs - word):
            total[k + word] += part[k] << bit
        if word > 0 and part[limbs - 1] < 0:  # what is left out above stands for the sign
            total[limbs - 1] -= 1 << (LIMB_BITS + bit)
    else:
        word, bit = -shift // LIMB_BITS, -shift % LIMB_BITS
        if word >= limbs:
            total[0] += -1 if part[limbs - 1] < 0 else 0
        for k in range(limbs - word):
            digit = part[k + word] >> bit
            if k + word < limbs - 1:
                digit += (part[k + word + 1] << (LIMB_BITS - bit)) & ((1 << LIMB_BITS) - 1)
            total[k] += digit
    _carry(total)


@njit(cache=True)
def accumulate_limbs(
    weights: Operand, activations: Operand, fraction_bits: int, bias: Integers, limbs: int
) -> Integers:
    """Accumulate into int64[tokens, out, limbs]: little-endian base-2^16 digits, the last one signed.

    A product of significands has at most 36 bits, so 2^10 of them, shifted by up to 15, stay below 2^62 in a digit.
    The caller sees to it that `limbs` digits hold every sum, shifted or not, and one bit more.
    """
    tokens, columns = activations.patterns.shape
    rows = weights.patterns.shape[0]
    result = np.zeros((tokens, rows, limbs), np.int64)
    partial = np.zeros(limbs, np.int64)
    for token in range(tokens):
        for row in range(rows):
            total = result[token, row]
            total[0] = bias[row]
            _carry(total)
            start = 0
            while start < columns:
                group, block = start // weights.group_size, start // activations.group_size
                stop = min((group + 1) * weights.group_size, (block + 1) * activations.group_size, columns)
                partial[:] = 0
                since = 0
                for i in range(start, stop):
                    if not weights.stored[row, i]:
                        continue
                    w, x = weights.patterns[row, i], activations.patterns[token, i]
                    q = weights.significands[w] - weights.zero_points[row, group]
                    a = activations.significands[x] - activations.zero_points[token, block]
                    place = weights.exponents[w] + activations.exponents[x]
                    partial[place // LIMB_BITS] += (q * a) << (place % LIMB_BITS)
                    since += 1
                    if since == 1 << 10:
                        _carry(partial)
                        since = 0
                _carry(partial)
                multiplier = weights.multipliers[row, group] * activations.multipliers[token, block]
                for k in range(limbs):
                    partial[k] *= multiplier
                _carry(partial)
                shift = fraction_bits - weights.shifts[row, group] - activations.shifts[token, block]
                _add_shifted(total, partial, shift)
                start = stop
    return result


@njit(cache=True)
def limbs_to_float32(digits: Integers, exponent: int) -> NDArray[np.float32]:
    """Round limb accumulators [tokens, out, limbs], times 2^exponent, to float32[tokens, out].

    To nearest, ties to even.
    All but the topmost bits are folded into one sticky bit first (rounding to odd), which makes the second rounding,
    float64 to float32, right, also where that is subnormal.
    """
    tokens, rows, limbs = digits.shape
    result = np.empty((tokens, rows), np.float32)
    for token in range(tokens):
        for row in range(rows):
            d = digits[token, row].copy()
            negative = d[limbs - 1] < 0
            if negative:
                for k in range(limbs):
                    d[k] = -d[k]
                for k in range(limbs - 1):
                    d[k + 1] += d[k] >> LIMB_BITS
                    d[k] &= (1 << LIMB_BITS) - 1
            top = limbs - 1
            while top > 0 and d[top] == 0:
                top -= 1
            # the three topmost digits hold 33 to 48 bits; what lies below only decides ties
            low = max(top - 2, 0)
            head = np.int64(0)
            for k in range(top, low - 1, -1):
                head = (head << LIMB_BITS) + d[k]
            sticky = np.int64(0)
            for k in range(low):
                if d[k] != 0:
                    sticky = np.int64(1)
            exact = math.ldexp(np.float64((head << 1) | sticky), low * LIMB_BITS - 1 + exponent)
            value = np.float32(exact)
            result[token, row] = -value if negative else value
    return result


@njit(cache=True)
def to_values(
    accumulators: Integers,  # [tokens, out]
    accumulator_scales: NDArray[np.float32],  # [out]
    token_scales: NDArray[np.float32],  # [tokens]
) -> NDArray[np.float32]:
    """Turn accumulators into real values: two float32 products, no contraction."""
    tokens, rows = accumulators.shape
    result = np.empty((tokens, rows), np.float32)
    for token in range(tokens):
        for row in range(rows):
            scaled = np.float32(np.float32(accumulators[token, row]) * accumulator_scales[row])
            result[token, row] = np.float32(scaled * token_scales[token])
    return result


@njit(cache=True)
def _saturate16(value: int) -> int:
    return min(max(value, -32768), 32767)


@njit(cache=True)
def requantize_codes(
    accumulators: Integers,  # [tokens, out]
    multipliers: NDArray[np.int32],  # [out]
    shifts: NDArray[np.int32],  # [out]
    zero_point: int,
    code_min: int,
    code_max: int,
) -> NDArray[np.int32]:
    """Requantize int64[tokens, out] to codes; the Numba twin of `sparsefab.formats.requantize_scalar`."""
    tokens, rows = accumulators.shape
    result = np.empty((tokens, rows), np.int32)
    for token in range(tokens):
        for row in range(rows):
            acc, shift = accumulators[token, row], np.int64(shifts[row])
            if shift > 0:
                x = _saturate16((acc + (np.int64(1) << (shift - 1))) >> shift)
            else:
                x = _saturate16(min(max(acc, -65536), 65536) << min(-shift, 46))
            y = (x * np.int64(multipliers[row]) + (1 << 14)) >> 15
            y = _saturate16(y + 64 * zero_point + 32) >> 6
            result[token, row] = min(max(y, code_min), code_max)
    return result
