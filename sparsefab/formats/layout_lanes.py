"""Layouts of group-quantized weights for few tokens: a row in each lane of a register; outliers row by row."""

from dataclasses import dataclass

from sparsefab.errors import LayoutError
from sparsefab.formats.ints import IntFormat
from sparsefab.formats.layout_scales import outlier_sections, scale_sections
from sparsefab.formats.tensors import ROW_SCALE_BYTES, TensorSpec

__all__ = ["Lanes16", "SparseRows", "stored_bits"]

LANE_ROWS = 16  # one row in each dword of a 512-bit register
LANE_PART_INPUTS = 32  # inputs of a part: 64 bytes for each bit of a code
_STORED_BITS = (3, 4, 8)


def stored_bits(spec: TensorSpec, choices: tuple[int, ...], *, layout: str) -> int:
    """Return the fewest bits of a layout's ascending choices that hold a tensor's integers; raises LayoutError."""
    if not isinstance(spec.format, IntFormat) or spec.format.bits > choices[-1]:
        raise LayoutError(f"layout {layout} holds integers of up to {choices[-1]} bits, not {spec.format.name}")
    return next(bits for bits in choices if bits >= spec.format.bits)


@dataclass(frozen=True, slots=True)
class Lanes16:
    """Integers with a multiplier a group, 16 rows side by side, for few tokens; every weight is stored.

    A group is filled up to parts of 32 inputs; a part is `bits` lines of 64 bytes. Dword r of a line is row r, and its
    byte k belongs to the inputs 4 f + k of the fours f = 0..7:

        8 bits    line f        the code
        4 bits    line f / 2    even f: the low nibble, odd f: the high one
        3 bits    line f / 4    the two low bits of the code, at bit 2 (f mod 4);  line 2: the high one, at bit f

    Codes and zero points are stored as unsigned, of signed formats + 2^(format's bits - 1).

    bits : int                      3, 4 or 8, at least the format's.
    """

    bits: int = 4

    def __post_init__(self) -> None:
        if self.bits not in _STORED_BITS:
            raise LayoutError(f"layout lanes-16: bits must be 3, 4 or 8, not {self.bits}")

    @classmethod
    def of(cls, spec: TensorSpec) -> "Lanes16":
        """Return the smallest that holds a tensor.

        Raises
        ------
        LayoutError                 If the format is no integer of up to 8 bits.
        """
        return cls(stored_bits(spec, _STORED_BITS, layout="lanes-16"))

    @property
    def name(self) -> str:
        """lanes-16x4."""
        return f"lanes-{LANE_ROWS}x{self.bits}"

    def grid(self, spec: TensorSpec) -> tuple[int, int, int]:
        """Blocks of 16 rows, groups, and parts a group.

        Raises
        ------
        LayoutError                 If the format is no integer of so many bits.
        """
        if not isinstance(spec.format, IntFormat) or spec.format.bits > self.bits:
            raise LayoutError(f"layout {self.name} holds integers of up to {self.bits} bits, not {spec.format.name}")
        return -(-spec.rows // LANE_ROWS), spec.groups, -(-min(spec.group_size, spec.columns) // LANE_PART_INPUTS)

    @staticmethod
    def zero_code(spec: TensorSpec) -> int:
        """What is stored for code 0."""
        return 1 << (spec.format.bits - 1) if isinstance(spec.format, IntFormat) and spec.format.signed else 0

    def section_bytes(self, spec: TensorSpec) -> dict[str, int]:
        """Bytes of each section."""
        blocks, groups, parts = self.grid(spec)
        lanes = blocks * groups * LANE_ROWS
        sections = {"values": lanes * parts * LANE_PART_INPUTS * self.bits // 8, "multipliers": lanes}
        if spec.asymmetric:
            sections["zero_points"] = lanes
        return {**sections, "row_scales": spec.rows * ROW_SCALE_BYTES, **outlier_sections(spec)}


@dataclass(frozen=True, slots=True)
class SparseRows:
    """The stored weights of each row with their inputs (CSR): outliers of many bits, added to a matrix of few.

    codes   int16 a weight      inputs   uint16 a weight, ascending in a row      pointers   uint32 a row and one more
    """

    @property
    def name(self) -> str:
        """sparse-rows."""
        return "sparse-rows"

    def section_bytes(self, spec: TensorSpec) -> dict[str, int]:
        """Bytes of each section, exact with spec.stored.

        Raises
        ------
        LayoutError                 If the format is no integer, or there are more than 65,536 inputs.
        """
        if not isinstance(spec.format, IntFormat):
            raise LayoutError(f"layout {self.name} holds integers, not {spec.format.name}")
        if spec.columns > 1 << 16:
            raise LayoutError(f"layout {self.name}: {spec.columns} inputs; at most 65,536 have an index of 16 bits")
        sizes = {"codes": 2 * spec.stored, "inputs": 2 * spec.stored, "pointers": 4 * (spec.rows + 1)}
        return {**sizes, **scale_sections(spec)}
