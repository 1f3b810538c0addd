"""Group scales as unsigned integer multipliers of their row's scale.

RTL applies a group's scale to a partial sum; an integer multiplier keeps that exact and small. Float group scales are
converted once, before the codes are rounded, so that the codes are the best ones on the grid that is really used.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["MULTIPLIER_BITS", "group_count", "multiplier_loss", "to_multipliers"]

MULTIPLIER_BITS = 8


def group_count(columns: int, group_size: int) -> int:
    """Groups along an input axis; the last one may be short."""
    if group_size < 1:
        raise ValueError(f"group_size must be positive, not {group_size}")
    return -(-columns // group_size)


def to_multipliers(
    scales: NDArray[np.float64], bits: int = MULTIPLIER_BITS
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Split group scales [out, groups] into row scales float32[out] and multipliers uint16[out, groups].

    The largest scale of a row takes the largest multiplier, so a multiplier's relative error is at most
    0.5 / multiplier; a scale below half a step becomes 1.

    Raises
    ------
    ValueError                      If a scale is not a positive finite number, or bits is not 1 to 16.
    """
    if not 1 <= bits <= 16:
        raise ValueError(f"multiplier bits must be 1 to 16, not {bits}")
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise ValueError("group scales must be positive and finite")
    top = (1 << bits) - 1
    row_scales = (scales.max(axis=1) / top).astype(np.float32)
    row_scales = np.maximum(row_scales, np.finfo(np.float32).tiny)
    multipliers = np.clip(np.rint(scales / row_scales[:, None].astype(np.float64)), 1, top)
    return row_scales, multipliers.astype(np.uint16)


def multiplier_loss(
    scales: NDArray[np.float64], row_scales: NDArray[np.float32], multipliers: NDArray[np.uint16]
) -> float:
    """Return the largest relative error that the conversion gave a group scale."""
    used = row_scales[:, None].astype(np.float64) * multipliers
    return float(np.abs(used / scales - 1).max())
