"""Products of binary16 numbers, to the bit: the order of the sums and every rounding in them.

    y[row, token] = bias[row] + S_0 + S_1 + ...                    binary32 sums, in this order
    S_c           = w x + (w x + (.. (w x + 0)))                   binary16, one rounding each step, over the c-th run
                                                                   of 64 stored inputs of the row, in ascending order

Rounding is to nearest, ties to even; subnormals are kept; what leaves binary16 is an infinity.  A run of 64 bounds the
error of binary16 sums.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["HALF_RUN", "half_fma", "half_linear", "half_round"]

HALF_RUN = 64
_DROPPED_BITS = 42  # of binary64's 52, to keep binary16's 10
_LEAST_NORMAL = 2.0**-14
_TO_SUBNORMAL = 1.5 * 2.0**28  # a binary64 number here is a multiple of binary16's least, 2^-24
_OVERFLOW = 65536.0


@njit(cache=True)
def half_round(value):  # type: ignore[no-untyped-def]
    """Round a binary64 number to binary16, as binary64."""
    if abs(value) < _LEAST_NORMAL:
        return (value + _TO_SUBNORMAL) - _TO_SUBNORMAL
    if not np.isfinite(value):
        return value
    bits = np.float64(value).view(np.int64)
    bits = bits + ((1 << (_DROPPED_BITS - 1)) - 1) + ((bits >> _DROPPED_BITS) & 1)
    rounded = np.int64(bits & ~((1 << _DROPPED_BITS) - 1)).view(np.float64)
    return np.copysign(np.inf, rounded) if abs(rounded) >= _OVERFLOW else rounded


@njit(cache=True)
def half_fma(a, b, c):  # type: ignore[no-untyped-def]
    """Return a * b + c of binary16 numbers, held as binary64, rounded once.

    The product has 22 bits, so it is exact. Where the sum is not, its terms are further apart than any two that could
    make it the middle between two binary16 numbers, so that rounding twice rounds as once.
    """
    return half_round(a * b + c)


@njit(cache=True)
def half_linear(
    weights: NDArray[np.float64], stored: NDArray[np.bool_], activations: NDArray[np.float64],
    bias: NDArray[np.float32],
) -> NDArray[np.float32]:  # fmt: skip
    """Multiply.

    Parameters
    ----------
    weights : float64[out, in]   Binary16 numbers; only stored ones count, also in the runs.
    stored : bool[out, in]
    activations : float64[batch, in]          Binary16 numbers.
    bias : float32[out]

    Returns
    -------
    float32[batch, out]
    """
    result = np.empty((activations.shape[0], weights.shape[0]), np.float32)
    for token in range(activations.shape[0]):
        for row in range(weights.shape[0]):
            total, run, count = bias[row], 0.0, 0
            for k in range(weights.shape[1]):
                if not stored[row, k]:
                    continue
                run = half_fma(weights[row, k], activations[token, k], run)
                count += 1
                if count == HALF_RUN:
                    total = np.float32(total + np.float32(run))
                    run, count = 0.0, 0
            result[token, row] = np.float32(total + np.float32(run)) if count else total
    return result
