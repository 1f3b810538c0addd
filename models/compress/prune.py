"""Magnitude pruning to any pattern: keep what is largest."""

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats import NM, Block, BlockN, Dense, Pattern
from sparsefab.formats.sparsity import BLOCK_N_CHOICES, BLOCK_N_SIDE

__all__ = ["magnitude_mask"]


def magnitude_mask(weights: NDArray[np.float32], pattern: Pattern) -> NDArray[np.bool_] | None:
    """Choose the weights to store: float32[out, in] -> bool[out, in], None for dense.

    N:M keeps the n largest of each m, with row pairs those of the largest sum of squares; a block pattern the blocks
    of largest norm over the whole matrix; unstructured the largest weights over the whole matrix. Per-block N gives
    each 16 x 16 block the N that keeps most of the matrix's energy within the density. Equal magnitudes: the earlier
    one stays.

    Raises
    ------
    ValueError                      If a pattern with an open density gives none.
    """
    if isinstance(pattern, Dense):
        return None
    rows, columns = weights.shape
    if isinstance(pattern, NM):
        if pattern.rows == 1:
            return _largest_of_each(np.abs(weights), pattern.n, pattern.m)
        shared = np.square(weights, dtype=np.float64).reshape(-1, pattern.rows, columns).sum(axis=1)
        return np.repeat(_largest_of_each(shared, pattern.n, pattern.m), pattern.rows, axis=0)
    if pattern.density is None:
        raise ValueError(f"pattern {pattern.name} needs a density to prune to")
    if isinstance(pattern, BlockN):
        return _per_block_n(weights, pattern.density)
    if isinstance(pattern, Block):
        tiles = weights.reshape(rows // pattern.rows, pattern.rows, columns // pattern.columns, pattern.columns)
        kept = _largest(np.square(tiles, dtype=np.float64).sum(axis=(1, 3)), pattern.density)
        return np.repeat(np.repeat(kept, pattern.rows, axis=0), pattern.columns, axis=1)
    return _largest(np.abs(weights), pattern.density)


def _largest_of_each(scores: NDArray[np.floating], n: int, m: int) -> NDArray[np.bool_]:
    """Mark the n largest scores of each m in a row."""
    blocks = scores.reshape(len(scores), -1, m)
    order = np.argsort(-blocks, axis=2, kind="stable")
    mask = np.zeros(blocks.shape, np.bool_)
    np.put_along_axis(mask, order[:, :, :n], True, axis=2)
    return mask.reshape(scores.shape)


def _per_block_n(weights: NDArray[np.float32], density: float) -> NDArray[np.bool_]:
    """Raise blocks from one N to the next in order of energy gained a stored weight, until the density is reached.

    A block's gain falls from step to step, since each row's weights are taken in descending order, so the greedy order
    is the best choice for the density that it reaches.
    """
    rows, columns = weights.shape
    grid = (rows // BLOCK_N_SIDE, BLOCK_N_SIDE, columns // BLOCK_N_SIDE, BLOCK_N_SIDE)
    energy = np.square(weights, dtype=np.float64).reshape(grid).transpose(0, 2, 1, 3).reshape(-1, *[BLOCK_N_SIDE] * 2)
    reached = np.concatenate(
        [np.zeros((len(energy), 1)), np.cumsum(-np.sort(-energy, axis=2), axis=2).sum(axis=1)], axis=1
    )[:, list(BLOCK_N_CHOICES)]  # [blocks, choices]: energy that each N keeps
    steps = np.diff(BLOCK_N_CHOICES)
    gains = np.diff(reached, axis=1) / steps
    gains = np.minimum.accumulate(gains, axis=1)  # rounding must not put a step before the one below it
    costs = np.broadcast_to(steps * BLOCK_N_SIDE, gains.shape)
    order = np.argsort(-gains, axis=None, kind="stable")
    taken = np.cumsum(costs.reshape(-1)[order]) <= round(density * weights.size)
    level = np.zeros(len(energy), np.intp)
    np.add.at(level, order[taken] // len(steps), 1)
    n = np.repeat(np.array(BLOCK_N_CHOICES)[level].reshape(grid[0], grid[2]), BLOCK_N_SIDE, axis=0)
    ranks = np.argsort(np.argsort(-np.abs(weights).reshape(rows, -1, BLOCK_N_SIDE), axis=2, kind="stable"), axis=2)
    return (ranks < n[:, :, None]).reshape(rows, columns)


def _largest(scores: NDArray[np.floating], density: float) -> NDArray[np.bool_]:
    """Mark the `density` share with the largest scores."""
    order = np.argsort(-scores, axis=None, kind="stable")
    kept = np.zeros(scores.size, np.bool_)
    kept[order[: round(density * scores.size)]] = True
    return kept.reshape(scores.shape)
