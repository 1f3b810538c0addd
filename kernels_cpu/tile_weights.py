"""Weights as AMX tiles read them: dense rows of 64 inputs, or what is stored of them and a mask of bits.

    block     32 rows, two tiles; step    64 inputs
    dense     int8[blocks, steps, 32, 64]
    masked    of each step of a block, a mask of 64 bits for each 4 rows (4x1 blocks) or each row (N:M), then the stored
              bytes row after row; expanded into a dense step in the cache, where a product of all tokens reads it

Inputs and rows that fill up a step or a block are zero weights, whatever activations hold in their place.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsefab.kernels_cpu.panels import aligned_empty, aligned_zeros

__all__ = ["BLOCK_ROWS", "STEP_BYTES", "STEP_INPUTS", "TileWeights"]

BLOCK_ROWS, STEP_INPUTS = 32, 64
STEP_BYTES = BLOCK_ROWS * STEP_INPUTS
_SPARE = 64  # bytes behind the last stored row, which an expanding load may touch
_DENSE = 0.85  # stored share from which expanding saves no time worth its masks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TileWeights:
    """A matrix of s8 weights in blocks of two tiles.

    Attributes
    ----------
    steps : int                  Of 64 inputs.
    shared : int                 Rows that share a mask, 4 or 1; 0 where the matrix is stored dense.
    values : int8[bytes]         On a 64-byte boundary: int8[blocks, steps, 32, 64], or the stored bytes.
    masks : uint64[blocks, steps, 32 / shared]       Bit k: input k of the step is stored. Of dense ones, empty.
    starts : int64[blocks]       First stored byte of each block.
    """

    steps: int
    shared: int
    values: NDArray[np.int8]
    masks: NDArray[np.uint64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, matrix: NDArray[np.int8]) -> "TileWeights":
        """Arrange a matrix int8[rows, columns] in the form that is read fastest."""
        rows, columns = matrix.shape
        blocks, steps = -(-rows // BLOCK_ROWS), -(-columns // STEP_INPUTS)
        padded = np.zeros((blocks * BLOCK_ROWS, steps * STEP_INPUTS), np.int8)
        padded[:rows, :columns] = matrix
        # int8[blocks, steps, 32, 64]
        tiles = np.ascontiguousarray(padded.reshape(blocks, BLOCK_ROWS, steps, STEP_INPUTS).transpose(0, 2, 1, 3))
        stored = tiles != 0
        fours = stored.reshape(blocks, steps, BLOCK_ROWS // 4, 4, STEP_INPUTS).any(axis=3)
        if 8 * stored.mean() + 1 < 8 * fours.mean() + 1 / 4:  # bytes of 8 weights with masks a row; of 4 rows
            shared, kept = 1, stored
        else:
            shared, kept = 4, np.repeat(fours, 4, axis=2)
        if kept.mean() >= _DENSE:
            values = aligned_empty(tiles.shape, np.int8)
            values[:] = tiles
            starts = np.arange(blocks, dtype=np.int64) * (steps * STEP_BYTES)
            return cls(steps=steps, shared=0, values=values.reshape(-1), masks=np.zeros(0, np.uint64), starts=starts)
        packed = tiles[kept]
        values = aligned_zeros((len(packed) + _SPARE,), np.int8)
        values[: len(packed)] = packed
        counts = kept.reshape(blocks, -1).sum(axis=1, dtype=np.int64)
        bits = np.packbits(kept[:, :, ::shared], axis=3, bitorder="little")
        return cls(
            steps=steps,
            shared=shared,
            values=values,
            masks=np.ascontiguousarray(bits).view(np.uint64)[..., 0],
            starts=np.cumsum(counts) - counts,
        )

    @property
    def nbytes(self) -> int:
        """Bytes that one product reads."""
        return self.values.nbytes + self.masks.nbytes + self.starts.nbytes
