"""Binary16 weights in 4x1 blocks: the layout half-4x1.

Real numbers, not codes of a `QuantTensor`: there is no scale, and nothing to evaluate bit by bit but the products
themselves (`sim.reference.half`).  So the layout has a value and a packer of its own.

    values     uint32[n][4 rows]     a weight's 16 bits twice: a broadcast of 32 bits needs no shuffle
    offsets    int32[n]              256 * input: bytes into a panel of 128 tokens
    pointers   int64[rows / 4 + 1]   first stored input of each group of four rows

40 bits a stored weight, 8 of them its share of the offset.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError

__all__ = ["HALF_LINE_BYTES", "Half4x1", "pack_half", "unpack_half"]

HALF_LINE_BYTES = 256  # 128 tokens of two bytes
_MAX_COLUMNS = (1 << 31) // HALF_LINE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Half4x1:
    """A packed matrix; see the module.

    Raises
    ------
    LayoutError                  If the sections do not fit together, or name an input that is not there.
    """

    rows: int
    columns: int
    values: NDArray[np.uint32]
    offsets: NDArray[np.int32]
    pointers: NDArray[np.int64]

    def __post_init__(self) -> None:
        count, groups = len(self.offsets), -(-self.rows // 4)
        if self.rows < 1 or not 1 <= self.columns <= _MAX_COLUMNS:
            raise LayoutError(f"layout half-4x1 holds 1 to {_MAX_COLUMNS} inputs, not {self.rows} x {self.columns}")
        for name, array, shape, dtype in (
            ("values", self.values, (count, 4), np.uint32),
            ("offsets", self.offsets, (count,), np.int32),
            ("pointers", self.pointers, (groups + 1,), np.int64),
        ):
            if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
                raise LayoutError(f"section {name} must be C-contiguous {np.dtype(dtype)} of shape {shape}")
        if self.pointers[0] != 0 or self.pointers[-1] != count or (np.diff(self.pointers) < 0).any():
            raise LayoutError(f"section pointers must rise from 0 to {count}")
        last = HALF_LINE_BYTES * (self.columns - 1)
        if count and (self.offsets.min() < 0 or self.offsets.max() > last or (self.offsets % HALF_LINE_BYTES).any()):
            raise LayoutError(f"section offsets must hold multiples of {HALF_LINE_BYTES} up to {last}")

    @property
    def nbytes(self) -> int:
        """Bytes of all sections."""
        return self.values.nbytes + self.offsets.nbytes + self.pointers.nbytes


def pack_half(weights: NDArray[np.float16], stored: NDArray[np.bool_]) -> Half4x1:
    """Pack a matrix float16[out, in]; a block of four rows by one input is kept where any of it is stored.

    Raises
    ------
    LayoutError                  If the types or shapes do not fit, or a stored weight is no finite number.
    """
    if weights.dtype != np.float16 or weights.ndim != 2 or stored.shape != weights.shape:
        raise LayoutError(f"weights must be float16[out, in] with a mask of its shape, not {weights.dtype}")
    if not np.isfinite(weights[stored]).all():
        raise LayoutError("weights must be finite")
    rows, columns = weights.shape
    margin = ((0, -rows % 4), (0, 0))
    bits = np.pad(np.where(stored, weights, np.float16(0)), margin).view(np.uint16).astype(np.uint32)
    grid = (-1, 4, columns)
    kept = np.pad(stored, margin).reshape(grid).any(axis=1)
    group, column = np.nonzero(kept)
    doubled = (bits | bits << 16).reshape(grid)
    return Half4x1(
        rows=rows,
        columns=columns,
        values=np.ascontiguousarray(doubled[group, :, column]),
        offsets=(HALF_LINE_BYTES * column).astype(np.int32),
        pointers=np.concatenate([[0], kept.sum(axis=1).cumsum()]).astype(np.int64),
    )


def unpack_half(packed: Half4x1) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """Return the matrix float16[out, in] and which of its blocks are kept, bool[out, in]."""
    groups = -(-packed.rows // 4)
    matrix = np.zeros((groups, 4, packed.columns), np.uint16)
    kept = np.zeros(matrix.shape, np.bool_)
    steps = packed.pointers[1:] - packed.pointers[:-1]
    place = np.repeat(np.arange(groups), steps), slice(None), packed.offsets // HALF_LINE_BYTES
    matrix[place], kept[place] = packed.values & 0xFFFF, True
    rows = slice(0, packed.rows)
    return matrix.reshape(-1, packed.columns)[rows].view(np.float16), kept.reshape(-1, packed.columns)[rows]
