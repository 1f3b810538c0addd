"""Layout of group-sparse integers for few tokens: each row's kept groups of inputs, one after another."""

from dataclasses import dataclass

from sparsefab.errors import LayoutError
from sparsefab.formats.ints import IntFormat
from sparsefab.formats.layout_lanes import Lanes16, stored_bits
from sparsefab.formats.layout_scales import outlier_sections
from sparsefab.formats.scales import MULTIPLIER_BITS
from sparsefab.formats.sparsity import Block
from sparsefab.formats.tensors import ROW_SCALE_BYTES, TensorSpec

__all__ = ["GROUP_UNIT", "GroupRows"]

GROUP_UNIT = 16  # inputs of a unit: the bytes of a 128-bit lane
GROUP_SPARE_UNITS = 3  # behind the last: a reader may take four units, or four groups' numbers, at a time
_MOST_GROUPS = 1 << 16
_STORED_BITS = (4, 8)


@dataclass(frozen=True, slots=True)
class GroupRows:
    """Integers in groups of 1 x G inputs, G a multiple of 16, of which each row keeps some (GQSA): a BSR of one row.

    codes         4 or 8 bits a weight, least significant bit first, the kept groups of row 0, of row 1, ...
    groups        uint16 a kept group, ascending in a row: it stands for the inputs G * group .. G * group + G - 1
    multipliers   uint8 a kept group        zero_points   uint8 a kept group, if the format is asymmetric
    pointers      uint32 a row and one more: its first kept group

    Codes and zero points are stored as unsigned, of signed formats + 2^(format's bits - 1).  Three units of 16 codes
    and three of each of a group's numbers, all zero, follow the last.  With 4 bits a weight is
    density x (4 + (16 + 8, or with zero points + 16) / G) bits, and 32 bits a row.

    bits : int                      4 or 8, at least the format's.
    """

    bits: int = 4

    def __post_init__(self) -> None:
        if self.bits not in _STORED_BITS:
            raise LayoutError(f"layout group-rows: bits must be 4 or 8, not {self.bits}")

    @classmethod
    def of(cls, spec: TensorSpec) -> "GroupRows":
        """Return the smallest that holds a tensor's format.

        Raises
        ------
        LayoutError                 If the format is no integer of up to 8 bits.
        """
        return cls(stored_bits(spec, _STORED_BITS, layout="group-rows"))

    @property
    def name(self) -> str:
        """group-rows-4."""
        return f"group-rows-{self.bits}"

    def width(self, spec: TensorSpec) -> int:
        """Inputs of a group.

        Raises
        ------
        LayoutError                 If the pattern, the format, the scales or the number of groups do not fit.
        """
        pattern, fmt = spec.pattern, spec.format
        if not isinstance(pattern, Block) or pattern.rows != 1 or pattern.columns % GROUP_UNIT:
            raise LayoutError(
                f"layout {self.name} holds 1xG groups, G a multiple of {GROUP_UNIT}, not pattern {pattern.name}"
            )
        if not isinstance(fmt, IntFormat) or fmt.bits > self.bits:
            raise LayoutError(f"layout {self.name} holds integers of up to {self.bits} bits, not {fmt.name}")
        if spec.group_size < spec.columns and spec.group_size % pattern.columns:
            raise LayoutError(
                f"layout {self.name}: group_size must be a multiple of the pattern's {pattern.columns} inputs, "
                f"not {spec.group_size}"
            )
        if spec.columns // pattern.columns > _MOST_GROUPS:
            raise LayoutError(
                f"layout {self.name}: {spec.columns // pattern.columns} groups a row; "
                f"at most {_MOST_GROUPS:,} have an index of 16 bits"
            )
        return pattern.columns

    def holds(self, spec: TensorSpec) -> bool:
        """Say whether the layout holds a tensor, as far as its header tells."""
        try:
            self.width(spec)
        except LayoutError:
            return False
        return spec.multiplier_bits <= MULTIPLIER_BITS

    @staticmethod
    def zero_code(spec: TensorSpec) -> int:
        """What is stored for code 0."""
        return Lanes16.zero_code(spec)

    def section_bytes(self, spec: TensorSpec) -> dict[str, int]:
        """Bytes of each section, exact with spec.stored."""
        width = self.width(spec)
        kept = spec.stored // width
        numbers = kept + GROUP_SPARE_UNITS
        codes = (kept * width + GROUP_SPARE_UNITS * GROUP_UNIT) * self.bits // 8
        sections = {"codes": codes, "groups": 2 * numbers, "multipliers": numbers}
        if spec.asymmetric:
            sections["zero_points"] = numbers
        sections["pointers"] = 4 * (spec.rows + 1)
        return {**sections, "row_scales": spec.rows * ROW_SCALE_BYTES, **outlier_sections(spec)}
