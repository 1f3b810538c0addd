"""Layouts of group-quantized weights for few tokens: a row in each lane of a register."""

from dataclasses import dataclass

from sparsefab.errors import LayoutError
from sparsefab.formats.ints import IntFormat
from sparsefab.formats.tensors import ROW_SCALE_BYTES, TensorSpec

__all__ = ["Nibbles16"]

NIBBLE_ROWS = 16  # one row in each dword of a 512-bit register
NIBBLE_PART_INPUTS = 32  # inputs of a part: 256 bytes of 16 rows


@dataclass(frozen=True, slots=True)
class Nibbles16:
    """Integers of up to 4 bits with a multiplier a group, 16 rows side by side, for few tokens; every weight is stored.

    A group is filled up to parts of 32 inputs. A part is four lines of 64 bytes, a line 8 inputs: its dword r is row
    r, low nibbles are inputs 0-3, high nibbles 4-7. Nibbles and zero points are codes, of signed formats + 2^(bits-1).
    """

    @property
    def name(self) -> str:
        """nibbles-16."""
        return "nibbles-16"

    def grid(self, spec: TensorSpec) -> tuple[int, int, int]:
        """Blocks of 16 rows, groups, and parts a group.

        Raises
        ------
        LayoutError                 If the format is no integer of up to 4 bits.
        """
        if not isinstance(spec.format, IntFormat) or spec.format.bits > 4:
            raise LayoutError(f"layout {self.name} holds integers of up to 4 bits, not {spec.format.name}")
        return -(-spec.rows // NIBBLE_ROWS), spec.groups, -(-min(spec.group_size, spec.columns) // NIBBLE_PART_INPUTS)

    @staticmethod
    def zero_nibble(spec: TensorSpec) -> int:
        """The nibble of code 0."""
        return 1 << (spec.format.bits - 1) if isinstance(spec.format, IntFormat) and spec.format.signed else 0

    def section_bytes(self, spec: TensorSpec) -> dict[str, int]:
        """Bytes of each section."""
        blocks, groups, parts = self.grid(spec)
        lanes = blocks * groups * NIBBLE_ROWS
        sections = {"values": lanes * parts * NIBBLE_PART_INPUTS // 2, "multipliers": lanes}
        if spec.asymmetric:
            sections["zero_points"] = lanes
        return {**sections, "row_scales": spec.rows * ROW_SCALE_BYTES}
