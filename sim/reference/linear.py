"""A compressed linear layer, to the bit: exact integers in, exact integers out.

    acc = bias + sum over groups g of s_g * sum over i in g of (q_i - z_g) * (x_i - zero_point)

Arrays only: codes as bit patterns, formats as decode tables. `accumulate` serves accumulators of up to 63 bits,
`accumulate_limbs` any width, as base-2^16 digits.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["LIMBS", "LIMB_BITS", "accumulate", "accumulate_limbs", "limbs_to_float32", "requantize_codes", "to_values"]

LIMB_BITS = 16
LIMBS = 8  # 128 bits

Patterns = NDArray[np.uint16]
Integers = NDArray[np.int64]


@njit(cache=True)
def accumulate(
    weights: Patterns,  # [out, in] bit patterns
    weight_values: Integers,  # [2**weight_bits] fixed-point values
    stored: NDArray[np.bool_],  # [out, in]
    zero_points: Integers,  # [out, groups]
    multipliers: Integers,  # [out, groups]
    group_size: int,
    activations: Patterns,  # [tokens, in]
    activation_values: Integers,  # [2**activation_bits]
    activation_zero_point: int,
    bias: Integers,  # [out]
) -> Integers:
    """Accumulate int64[tokens, out]; the caller sees to it that 63 bits hold every sum."""
    tokens, columns = activations.shape
    rows = weights.shape[0]
    result = np.empty((tokens, rows), np.int64)
    for token in range(tokens):
        for row in range(rows):
            total = bias[row]
            for group in range(zero_points.shape[1]):
                partial = np.int64(0)
                for i in range(group * group_size, min((group + 1) * group_size, columns)):
                    if stored[row, i]:
                        q = weight_values[weights[row, i]] - zero_points[row, group]
                        x = activation_values[activations[token, i]] - activation_zero_point
                        partial += q * x
                total += multipliers[row, group] * partial
            result[token, row] = total
    return result


@njit(cache=True)
def _carry(digits: Integers) -> None:
    """Bring digits to 0 <= d < 2^16 in place; the last one keeps the sign."""
    for k in range(digits.shape[0] - 1):
        digits[k + 1] += digits[k] >> LIMB_BITS
        digits[k] &= (1 << LIMB_BITS) - 1


@njit(cache=True)
def accumulate_limbs(
    weights: Patterns,
    weight_values: Integers,
    stored: NDArray[np.bool_],
    zero_points: Integers,
    multipliers: Integers,
    group_size: int,
    activations: Patterns,
    activation_values: Integers,
    activation_zero_point: int,
    bias: Integers,
) -> Integers:
    """Accumulate into int64[tokens, out, LIMBS]: little-endian base-2^16 digits, the last one signed.

    An activation is split into 16-bit digits, so that a product with a weight of up to 40 bits and the sum over a group
    of up to 2^7 inputs stay below 2^63; carries are settled after every 64 inputs.
    """
    tokens, columns = activations.shape
    rows = weights.shape[0]
    result = np.zeros((tokens, rows, LIMBS), np.int64)
    partial = np.zeros(LIMBS, np.int64)
    for token in range(tokens):
        for row in range(rows):
            total = result[token, row]
            total[0] = bias[row]
            _carry(total)
            for group in range(zero_points.shape[1]):
                partial[:] = 0
                since = 0
                for i in range(group * group_size, min((group + 1) * group_size, columns)):
                    if not stored[row, i]:
                        continue
                    q = weight_values[weights[row, i]] - zero_points[row, group]
                    x = activation_values[activations[token, i]] - activation_zero_point
                    for k in range(4):
                        digit = x >> (k * LIMB_BITS)
                        if k < 3:
                            digit &= (1 << LIMB_BITS) - 1
                        partial[k] += q * digit
                    since += 1
                    if since == 64:
                        _carry(partial)
                        since = 0
                _carry(partial)
                for k in range(LIMBS):
                    total[k] += multipliers[row, group] * partial[k]
                _carry(total)
    return result


@njit(cache=True)
def limbs_to_float32(digits: Integers) -> NDArray[np.float32]:
    """Round limb accumulators [tokens, out, LIMBS] to float32[tokens, out], to nearest, ties to even.

    All but the topmost bits are folded into one sticky bit first (rounding to odd), which makes the second rounding,
    float64 to float32, right.
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
            value = np.float32(np.float64((head << 1) | sticky)) * np.float32(2.0) ** np.float32(low * LIMB_BITS - 1)
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
