"""Magnitude pruning to any pattern: keep what is largest."""

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats import NM, Block, Dense, Pattern

__all__ = ["magnitude_mask"]


def magnitude_mask(weights: NDArray[np.float32], pattern: Pattern) -> NDArray[np.bool_] | None:
    """Choose the weights to store: float32[out, in] -> bool[out, in], None for dense.

    N:M keeps the n largest of each m; a block pattern the blocks of largest norm over the whole matrix; unstructured
    the largest weights over the whole matrix. Equal magnitudes: the earlier one stays.

    Raises
    ------
    ValueError                      If a block or unstructured pattern gives no density.
    """
    if isinstance(pattern, Dense):
        return None
    rows, columns = weights.shape
    if isinstance(pattern, NM):
        magnitude = np.abs(weights).reshape(rows, -1, pattern.m)
        order = np.argsort(-magnitude, axis=2, kind="stable")
        mask = np.zeros(magnitude.shape, np.bool_)
        np.put_along_axis(mask, order[:, :, : pattern.n], True, axis=2)
        return mask.reshape(rows, columns)
    if pattern.density is None:
        raise ValueError(f"pattern {pattern.name} needs a density to prune to")
    if isinstance(pattern, Block):
        tiles = weights.reshape(rows // pattern.rows, pattern.rows, columns // pattern.columns, pattern.columns)
        kept = _largest(np.square(tiles, dtype=np.float64).sum(axis=(1, 3)), pattern.density)
        return np.repeat(np.repeat(kept, pattern.rows, axis=0), pattern.columns, axis=1)
    return _largest(np.abs(weights), pattern.density)


def _largest(scores: NDArray[np.floating], density: float) -> NDArray[np.bool_]:
    """Mark the `density` share with the largest scores."""
    order = np.argsort(-scores, axis=None, kind="stable")
    kept = np.zeros(scores.size, np.bool_)
    kept[order[: round(density * scores.size)]] = True
    return kept.reshape(scores.shape)
