"""Group-sparse weights as kernels read them: views of a packed tensor of the layout GroupRows, checked."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats import GroupRows, PackedTensor, unpack
from sparsefab.kernels_cpu.weights import check_section, viewed

__all__ = ["GROUP_UNIT", "GroupWeights"]

GROUP_UNIT = 16  # inputs in a 128-bit lane
_SPARE = 3  # units of codes, and numbers of groups, behind the last: kernels take four at a time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupWeights:
    """Integers in groups of `width` inputs, of which each row keeps some, a multiplier each: the layout GroupRows.

    Attributes
    ----------
    rows, columns : int          Shape of the matrix; columns is a multiple of width.
    width : int                  Inputs of a group, a multiple of 16.
    bits : int                   4 or 8: what is stored of a code.
    codes : uint8[(kept * width + 48) * bits / 8]
    groups : uint16[kept + 3]    Which group of its row each is.
    multipliers : uint8[kept + 3]
    zeros : uint8[kept + 3]      Code that means 0; uint8[1] where it is one for all.
    pointers : uint32[rows + 1]  First kept group of each row.
    offsets : int32[rows]        -128 times the sum of the row's weights: activations enter with 128 added.
    reach : int                  The greatest magnitude of a sum over all s8 activations from -127 to 127.

    Raises
    ------
    LayoutError                  If the arrays do not fit together, or name a group that is not there.
    """

    rows: int
    columns: int
    width: int
    bits: int
    codes: NDArray[np.uint8]
    groups: NDArray[np.uint16]
    multipliers: NDArray[np.uint8]
    zeros: NDArray[np.uint8]
    pointers: NDArray[np.uint32]
    offsets: NDArray[np.int32]
    reach: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.width < 1 or self.width % GROUP_UNIT or self.columns % self.width or not self.columns:
            raise LayoutError(f"{self.rows} x {self.columns} weights are not made of groups of {self.width} inputs")
        if self.bits not in (4, 8):
            raise LayoutError(f"bits must be 4 or 8, not {self.bits}")
        kept = len(self.multipliers) - _SPARE
        for name, shape, dtype in (
            ("codes", ((kept * self.width + _SPARE * GROUP_UNIT) * self.bits // 8,), np.uint8),
            ("groups", (kept + _SPARE,), np.uint16),
            ("multipliers", (kept + _SPARE,), np.uint8),
            ("zeros", (kept + _SPARE if self.asymmetric else 1,), np.uint8),
            ("pointers", (self.rows + 1,), np.uint32),
            ("offsets", (self.rows,), np.int32),
        ):
            check_section(name, getattr(self, name), shape, dtype)
        steps = np.diff(self.pointers.astype(np.int64))
        if self.pointers[0] != 0 or self.pointers[-1] != kept or (steps < 0).any():
            raise LayoutError(f"section pointers must rise from 0 to {kept} groups")
        if self.groups.max() >= self.columns // self.width:
            raise LayoutError(f"section groups must be below {self.columns // self.width}, not {self.groups.max()}")

    @classmethod
    def from_packed(cls, packed: PackedTensor) -> "GroupWeights":
        """Read a PackedTensor of the layout GroupRows; sections are viewed, not copied, where they lie right.

        Raises
        ------
        LayoutError              If the layout is another one, a section is absent, cut short or impossible, or a code
                                 less its zero point leaves s8.
        """
        layout, spec = packed.layout, packed.spec
        if not isinstance(layout, GroupRows):
            raise LayoutError(f"this kernel reads the layout group-rows, not {layout.name}")
        tensor = replace(unpack(packed), outliers=None)  # checks the sections; outliers are a matrix of their own
        values = tensor.centred()
        if values.min() < -128 or values.max() > 127:
            raise LayoutError(f"codes less their zero points span {values.min()}..{values.max()}, not s8")
        integers = tensor.integers()
        if spec.asymmetric:
            zeros = viewed(packed, "zero_points", np.uint8, ())
        else:
            zeros = np.full(1, layout.zero_code(spec), np.uint8)
        return cls(
            rows=spec.rows,
            columns=spec.columns,
            width=layout.width(spec),
            bits=layout.bits,
            codes=viewed(packed, "codes", np.uint8, ()),
            groups=viewed(packed, "groups", np.uint16, ()),
            multipliers=viewed(packed, "multipliers", np.uint8, ()),
            zeros=zeros,
            pointers=viewed(packed, "pointers", np.uint32, ()),
            offsets=(-128 * integers.sum(axis=1)).astype(np.int32),  # wraps as the sums do
            reach=127 * int(np.abs(integers).sum(axis=1).max()),
        )

    @property
    def asymmetric(self) -> bool:
        """Every group has a zero point of its own."""
        return len(self.zeros) > 1

    @property
    def units(self) -> int:
        """Runs of 16 inputs in a group."""
        return self.width // GROUP_UNIT

    @property
    def name(self) -> str:
        """4-bit sparse groups of 16."""
        return f"{self.bits}-bit sparse groups of {self.width}"

    @property
    def nbytes(self) -> int:
        """Bytes that one product reads."""
        return sum(part.nbytes for part in self.arrays)

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What kernels read, in their order."""
        return self.codes, self.groups, self.multipliers, self.zeros, self.pointers, self.offsets
