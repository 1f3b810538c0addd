"""Weights as kernels read them: views of packed sections, checked so that no kernel can read astray."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats import (
    Block,
    Dense,
    IntFormat,
    PackedTensor,
    Pattern,
    QuantTensor,
    Unstructured,
    Vnni4x1,
    Vnni4x4,
    pack,
    safe_pairs,
)

__all__ = ["BlockWeights", "check_section", "viewed"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockWeights:
    """s8 weights in blocks of four rows: the layouts Vnni4x1 and Vnni4x4.

    Attributes
    ----------
    rows, columns : int          Shape of the matrix; a last group of fewer than four rows is filled up with zeros.
    ptr : int64[groups + 1]      First quad of each group of four rows; groups = ceil(rows / 4).
    aligned : bool               A quad is four consecutive inputs, read from interleaved panels; else any four.
    offsets : int32[quads, 4]    Byte offset 64 * k of each of the quad's four inputs inside a panel;
              int32[quads]       of aligned weights, 256 * (k / 4) of its first input.
    values : int8[quads, 4, 4]   Weights by row of the group, then input of the quad.

    Raises
    ------
    LayoutError                  If the sections do not fit together, or name an input that is not there.
    """

    rows: int
    columns: int
    ptr: NDArray[np.int64]
    offsets: NDArray[np.int32]
    values: NDArray[np.int8]
    aligned: bool = False

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise LayoutError(f"a matrix of {self.rows} x {self.columns} weights holds nothing to multiply")
        quads = len(self.offsets)
        for name, array, shape, dtype in (
            ("ptr", self.ptr, (self.groups + 1,), np.int64),
            ("offsets", self.offsets, (quads,) if self.aligned else (quads, 4), np.int32),
            ("values", self.values, (quads, 4, 4), np.int8),
        ):
            check_section(name, array, shape, dtype)
        if self.ptr[0] != 0 or self.ptr[-1] != quads or np.any(np.diff(self.ptr) < 0):
            raise LayoutError(f"section ptr must rise from 0 to {quads} quads")
        step, lines = (256, -(-self.columns // 4)) if self.aligned else (64, self.columns)
        if quads and (self.offsets.min() < 0 or self.offsets.max() > step * (lines - 1) or np.any(self.offsets % step)):
            raise LayoutError(f"section offsets must hold multiples of {step} below {step * lines}")

    @classmethod
    def from_packed(cls, packed: PackedTensor) -> "BlockWeights":
        """Read a PackedTensor of the layout Vnni4x1 or Vnni4x4; sections are viewed, not copied, where they lie right.

        Raises
        ------
        LayoutError              If the layout is another one, or a section is absent or cut short.
        """
        if not isinstance(packed.layout, Vnni4x1 | Vnni4x4):
            raise LayoutError(f"this kernel reads the layouts vnni-4x1 and vnni-4x4, not {packed.layout.name}")
        aligned = isinstance(packed.layout, Vnni4x4)
        return cls(
            rows=packed.spec.rows,
            columns=packed.spec.columns,
            ptr=viewed(packed, "pointers", np.int64, ()),
            offsets=viewed(packed, "offsets", np.int32, () if aligned else (4,)),
            values=viewed(packed, "values", np.int8, (4, 4)),
            aligned=aligned,
        )

    @classmethod
    def from_columns(cls, matrix: NDArray[np.int8]) -> "BlockWeights":
        """Pack a matrix int8[rows, columns] in 4x1 blocks and keep those that are not all zero."""
        mask = np.zeros((4 * -(-len(matrix) // 4), matrix.shape[1]), np.bool_)
        mask[: len(matrix)] = matrix != 0
        mask = np.repeat(mask.reshape(-1, 4, matrix.shape[1]).any(axis=1), 4, axis=0)[: len(matrix)]
        return cls.from_packed(pack(_int8(matrix, Unstructured(), mask), Vnni4x1()))

    @classmethod
    def from_matrix(cls, matrix: NDArray[np.int8]) -> "BlockWeights":
        """Pack a matrix int8[rows, columns] in aligned 4x4 blocks; of whole ones, keep those that are not all zero."""
        if matrix.dtype != np.int8 or matrix.ndim != 2:
            raise LayoutError(f"matrix must be int8[rows, columns], not {matrix.dtype} of {matrix.shape}")
        rows, columns = matrix.shape
        if rows % 4 or columns % 4:
            return cls.from_packed(pack(_int8(matrix, Dense(), None), Vnni4x4()))
        kept = matrix.reshape(rows // 4, 4, columns // 4, 4).any(axis=(1, 3))
        mask = np.repeat(np.repeat(kept, 4, axis=0), 4, axis=1)
        return cls.from_packed(pack(_int8(matrix, Block(4, 4), mask), Vnni4x4()))

    @property
    def name(self) -> str:
        """4x1 blocks, or aligned 4x4 blocks."""
        return f"{'aligned 4x4' if self.aligned else '4x1'} blocks"

    @property
    def groups(self) -> int:
        """Groups of four rows."""
        return -(-self.rows // 4)

    @property
    def nbytes(self) -> int:
        """Bytes that one product reads."""
        return self.values.nbytes + self.offsets.nbytes + self.ptr.nbytes

    def paired(self) -> "BlockWeights":
        """Return the same matrix with no quad that could saturate the products of bytes: `formats.safe_pairs`."""
        values, offsets, pointers = safe_pairs(self.values, self.offsets, self.ptr)
        return replace(self, ptr=pointers, offsets=offsets, values=values)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what the layer's record points to."""
        return {"pointers": self.ptr, "offsets": self.offsets, "values": self.values}

    def matrix(self) -> NDArray[np.int8]:
        """Return the matrix itself, int8[rows, columns]."""
        dense = np.zeros((self.groups, 4, 4 * -(-self.columns // 4)), np.int8)
        group = np.repeat(np.arange(self.groups), np.diff(self.ptr))
        inputs = self.offsets[:, None] // 64 + np.arange(4) if self.aligned else self.offsets // 64
        # A quad that is filled up names an input again, with a weight of zero: added, not set.
        np.add.at(dense, (group[:, None, None], np.arange(4)[:, None], inputs[:, None, :]), self.values)
        return dense.reshape(4 * self.groups, -1)[: self.rows, : self.columns]

    def row_sums(self) -> NDArray[np.int64]:
        """Sum of each row's weights, int64[4 * groups]."""
        return self._reduced(self.values.sum(axis=2, dtype=np.int64))

    def reach(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Least and greatest sum of each row over all u8 activations, int64[4 * groups] each."""
        low = np.minimum(self.values, 0).sum(axis=2, dtype=np.int64)
        high = np.maximum(self.values, 0).sum(axis=2, dtype=np.int64)
        return self._reduced(low) * 255, self._reduced(high) * 255

    def _reduced(self, quads: NDArray[np.int64]) -> NDArray[np.int64]:
        totals = np.vstack([np.zeros((1, 4), np.int64), np.cumsum(quads, axis=0)])
        return (totals[self.ptr[1:]] - totals[self.ptr[:-1]]).reshape(-1)


def _int8(matrix: NDArray[np.int8], pattern: Pattern, mask: NDArray[np.bool_] | None) -> QuantTensor:
    return QuantTensor(
        codes=matrix.astype(np.int16),
        format=IntFormat(bits=8),
        row_scales=np.ones(len(matrix), np.float32),
        group_size=matrix.shape[1],
        pattern=pattern,
        mask=mask,
    )


def check_section(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: Any) -> None:
    """Raise LayoutError unless an array is what kernels read: C-contiguous, of a shape and type, aligned to it."""
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise LayoutError(
            f"section {name} must be C-contiguous {np.dtype(dtype)} of shape {shape}, "
            f"not {array.dtype} of {array.shape}"
        )
    if array.ctypes.data % array.itemsize:
        raise LayoutError(f"section {name} is not aligned to its {array.itemsize}-byte elements")


def viewed(packed: PackedTensor, name: str, dtype: Any, inner: tuple[int, ...]) -> NDArray[Any]:
    """Return a section as elements of a type, copied only where it is not aligned to them; raises LayoutError."""
    section = packed.sections.get(name)
    if section is None:
        raise LayoutError(f"a packed tensor for this kernel needs the section {name!r}")
    flat = np.ascontiguousarray(section)
    if flat.ctypes.data % np.dtype(dtype).itemsize:
        flat = flat.copy()
    try:
        result: NDArray[Any] = flat.view(dtype).reshape(-1, *inner)
    except ValueError as error:
        raise LayoutError(f"section {name!r} is cut short: {error}") from error
    return result
