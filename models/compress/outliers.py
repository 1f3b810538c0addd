"""Outliers: the greatest weights as integers of 15 bits beside the rest (SpQR), whatever its method and pattern."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats import QuantTensor, Unstructured
from sparsefab.formats.tensors import OUTLIER_LIMIT
from sparsefab.models.compress.prune import magnitude_mask

__all__ = ["outlier_mask", "with_outliers"]


def outlier_mask(weights: NDArray[np.float32], share: float) -> NDArray[np.bool_]:
    """Mark the `share` of a matrix float32[out, in] with the greatest magnitudes: bool[out, in]."""
    mask = magnitude_mask(weights, Unstructured(share))
    assert mask is not None
    return mask


def with_outliers(tensor: QuantTensor, weights: NDArray[np.float32], mask: NDArray[np.bool_]) -> QuantTensor:
    """Add the weights float32[out, in] under a mask to a tensor that was quantized with zeros in their places.

    They are in units of the row scale. Where a row's greatest takes more than 15 bits of these, its scale rises and its
    group multipliers fall, to the nearest integers and 1 at least; with one scale a row it is clipped.
    """
    most = np.where(mask, np.abs(weights), 0).max(axis=1, initial=0).astype(np.float64)
    factor = np.maximum(most / (OUTLIER_LIMIT - 1) / tensor.row_scales, 1.0)
    if tensor.group_multipliers is not None and (factor > 1).any():
        multipliers = np.maximum(np.rint(tensor.group_multipliers / factor[:, None]), 1).astype(np.uint16)
        scales = (tensor.row_scales * factor).astype(np.float32)
        tensor = replace(tensor, row_scales=scales, group_multipliers=multipliers)
    units = np.rint(weights.astype(np.float64) / tensor.row_scales[:, None])
    integers = np.where(mask, np.clip(units, 1 - OUTLIER_LIMIT, OUTLIER_LIMIT - 1), 0)
    return replace(tensor, outliers=integers.astype(np.int16))
