"""Group-quantized weights and outliers as kernels read them: views of packed sections, checked."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats import Lanes16, PackedTensor, SparseRows, unpack
from sparsefab.kernels_cpu.panels import aligned_empty
from sparsefab.kernels_cpu.weights import viewed

__all__ = ["LaneWeights", "OutlierWeights"]

_S16_MAX = (1 << 15) - 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LaneWeights:
    """Integers of up to 8 bits with a multiplier a group, 16 rows side by side: the layout Lanes16.

    Attributes
    ----------
    rows, columns : int          Shape of the matrix.
    group_size : int             Inputs that share a multiplier; each group is filled up to a multiple of 32.
    bits : int                   3, 4 or 8: what is stored of a code.
    values : uint8[blocks, groups, parts, 64 * bits]     A part is 32 inputs of 16 rows. Base on a 64-byte boundary.
    multipliers : uint8[blocks, groups, 16]   Rows that fill up a block have 0.
    zeros : uint8[blocks, groups, 16]         Code that means 0; uint8[1, 1, 1] where it is one for all.
    reach : int                  The greatest magnitude of a sum over all s8 activations from -127 to 127.
    narrow : bool                Each group's sum of products, zero point taken, fits s16, and so do its activations'.
    """

    rows: int
    columns: int
    group_size: int
    bits: int
    values: NDArray[np.uint8]
    multipliers: NDArray[np.uint8]
    zeros: NDArray[np.uint8]
    reach: int
    narrow: bool

    @classmethod
    def from_packed(cls, packed: PackedTensor) -> "LaneWeights":
        """Read a PackedTensor of the layout Lanes16; sections are viewed, not copied, where they lie right.

        Raises
        ------
        LayoutError              If the layout is another one, or a section is absent or cut short.
        """
        layout, spec = packed.layout, packed.spec
        if not isinstance(layout, Lanes16):
            raise LayoutError(f"this kernel reads the layout lanes-16, not {layout.name}")
        blocks, groups, parts = layout.grid(spec)
        tensor = replace(
            unpack(packed), outliers=None
        )  # checks the sections' sizes; outliers are a matrix of their own
        values = packed.sections["values"].reshape(blocks, groups, parts, 64 * layout.bits)
        if values.ctypes.data % 64 or not values.flags.c_contiguous:
            values = aligned_empty(values.shape, np.uint8)
            values[:] = packed.sections["values"].reshape(values.shape)
        if spec.asymmetric:
            zeros = np.ascontiguousarray(packed.sections["zero_points"]).reshape(blocks, groups, 16)
        else:
            zeros = np.full((1, 1, 1), layout.zero_code(spec), np.uint8)
        group_size = min(spec.group_size, spec.columns)
        starts = np.arange(0, spec.columns, group_size)
        widest = int(np.add.reduceat(np.abs(tensor.centred()), starts, axis=1).max())
        return cls(
            rows=spec.rows,
            columns=spec.columns,
            group_size=group_size,
            bits=layout.bits,
            values=values,
            multipliers=np.ascontiguousarray(packed.sections["multipliers"]).reshape(blocks, groups, 16),
            zeros=zeros,
            reach=127 * int(np.abs(tensor.integers()).sum(axis=1).max()),
            narrow=127 * max(widest, group_size) <= _S16_MAX,
        )

    @property
    def name(self) -> str:
        """4-bit groups."""
        return f"{self.bits}-bit groups"

    @property
    def nbytes(self) -> int:
        """Bytes that one product reads."""
        return sum(part.nbytes for part in self.arrays)

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What kernels read, in their order."""
        return self.values, self.multipliers, self.zeros


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutlierWeights:
    """A few weights a row of up to 15 bits, added to a matrix of fewer: the layout SparseRows.

    Attributes
    ----------
    rows, columns : int          Shape of the matrix.
    pointers : uint32[rows + 1]  First outlier of each row.
    inputs : uint16[n]           Input of each.
    values : int16[n]            In units of the row's scale, the one of the matrix they are added to.
    reach : int                  The greatest magnitude of a sum over all s8 activations from -127 to 127.

    Raises
    ------
    LayoutError                  If the sections do not fit together, or name an input that is not there.
    """

    rows: int
    columns: int
    pointers: NDArray[np.uint32]
    inputs: NDArray[np.uint16]
    values: NDArray[np.int16]

    def __post_init__(self) -> None:
        count = len(self.inputs)
        if self.pointers.shape != (self.rows + 1,) or self.values.shape != (count,):
            raise LayoutError(f"outliers of {self.rows} rows do not fit {len(self.pointers)} pointers, {count} inputs")
        steps = np.diff(self.pointers.astype(np.int64))
        if self.pointers[0] != 0 or self.pointers[-1] != count or (steps < 0).any():
            raise LayoutError(f"section pointers must rise from 0 to {count} outliers")
        if count and self.inputs.max() >= self.columns:
            raise LayoutError(f"section inputs must be below {self.columns}, not {self.inputs.max()}")

    @classmethod
    def from_packed(cls, packed: PackedTensor) -> "OutlierWeights":
        """Read the outliers of a PackedTensor, or one of the layout SparseRows with one scale a row, as a view of it.

        Raises
        ------
        LayoutError              If there are none, or a section is absent or cut short.
        """
        spec = packed.spec
        if not spec.outliers and not isinstance(packed.layout, SparseRows):
            raise LayoutError(f"a tensor in the layout {packed.layout.name} without outliers has none to read")
        if not spec.outliers and (spec.group_size < spec.columns or spec.asymmetric):
            raise LayoutError("outliers have one scale a row and no zero points")
        prefix = "outlier_" if spec.outliers else ""
        return cls(
            rows=spec.rows,
            columns=spec.columns,
            pointers=viewed(packed, f"{prefix}pointers", np.uint32, ()),
            inputs=viewed(packed, f"{prefix}inputs", np.uint16, ()),
            values=viewed(packed, f"{prefix}codes", np.int16, ()),
        )

    @property
    def reach(self) -> int:
        """The greatest magnitude of a sum over all s8 activations from -127 to 127."""
        totals = np.concatenate([[0], np.abs(self.values.astype(np.int64)).cumsum()])
        return 127 * int((totals[self.pointers[1:]] - totals[self.pointers[:-1]]).max())

    @property
    def nbytes(self) -> int:
        """Bytes that one product reads."""
        return self.pointers.nbytes + self.inputs.nbytes + self.values.nbytes
