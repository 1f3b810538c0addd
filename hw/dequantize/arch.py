"""Parameters of a dequantizer, and where the fields of a piece lie."""

from dataclasses import dataclass
from math import gcd
from typing import Literal

from sparsefab.errors import FormatError
from sparsefab.formats import BlockFormat, Chain, ChainMemory, TensorSpec, get_format
from sparsefab.formats.catalog import Format
from sparsefab.formats.ints import IntFormat

__all__ = ["DequantizeArch"]

CHAIN_BITS = 8  # the chain's weights are s8


@dataclass(frozen=True, slots=True, kw_only=True)
class DequantizeArch:
    """A dequantizer in front of one chain; its memory layout is `formats.ChainMemory`.

    Parameters
    ----------
    dsps, slots, pairs         Of the chain's layout: DSPs, slots of a block of 16 inputs, two rows a beat.
    format : str               Of the codes: integers of up to 8 bits, and minifloats whose fixed-point values fit s8.
    positions : 'all' | 'index' | 'bitmap'
    m : int                    M of N:M for 'index'.
    zero_unit : int            Inputs that share a zero point, a multiple of 16 that divides a tile; 0: symmetric.
    beat_bits : int            Of a memory beat, 8 or a larger power of two: an AXI word, or several channels' side by
                               side. A piece must fit one: a chain that takes a beat a cycle needs a piece a cycle.
    """

    dsps: int = 64
    slots: int = 16
    pairs: bool = False
    format: str = "int4"
    positions: Literal["all", "index", "bitmap"] = "all"
    m: int = 16
    zero_unit: int = 0
    beat_bits: int = 512

    def __post_init__(self) -> None:
        fmt = get_format(self.format)
        if isinstance(fmt, BlockFormat):
            raise FormatError(f"format must be that of the elements, {fmt.element.name}, not {fmt.name}")
        if fmt.bits > CHAIN_BITS or (not isinstance(fmt, IntFormat) and not fmt.fixed_point().fits(CHAIN_BITS)):
            raise FormatError(f"format must have values that fit s8, which those of {fmt.name} do not")
        if isinstance(fmt, IntFormat) and not fmt.signed and fmt.bits == CHAIN_BITS and not self.zero_unit:
            raise FormatError(f"format {fmt.name} fits s8 only with zero points: zero_unit must not be 0")
        if self.zero_unit and not isinstance(fmt, IntFormat):
            raise FormatError(f"zero_unit must be 0 for format {fmt.name}: zero points need an integer format")
        columns = self.layout.chain.tile_columns
        if self.zero_unit and (self.zero_unit < 0 or self.zero_unit % 16 or columns % self.zero_unit):
            raise ValueError(
                f"zero_unit must be a multiple of 16 that divides the {columns} inputs of a tile, not {self.zero_unit}"
            )
        if self.beat_bits < 8 or self.beat_bits & (self.beat_bits - 1):
            raise ValueError(f"beat_bits must be a power of two of at least 8, not {self.beat_bits}")
        if self.piece_bits > self.beat_bits:
            raise ValueError(
                f"beat_bits must be at least {self.piece_bits}, the bits of a chain beat's piece, not {self.beat_bits}"
            )

    @staticmethod
    def of(layout: ChainMemory, spec: TensorSpec, beat_bits: int = 512) -> "DequantizeArch":
        """What a packed tensor needs."""
        chain = layout.chain
        fmt = spec.format.element if isinstance(spec.format, BlockFormat) else spec.format
        return DequantizeArch(
            dsps=chain.dsps,
            slots=chain.slots,
            pairs=chain.pairs,
            format=fmt.name,
            positions=layout.positions,
            m=layout.m,
            zero_unit=layout.zero_unit(spec) if spec.asymmetric else 0,
            beat_bits=beat_bits,
        )

    @property
    def layout(self) -> ChainMemory:
        """The layout of its memory."""
        chain = Chain(dsps=self.dsps, slots=self.slots, pairs=self.pairs)
        return ChainMemory(chain=chain, positions=self.positions, m=self.m)

    @property
    def code_format(self) -> Format:
        """The format of the codes."""
        return get_format(self.format)

    @property
    def rows(self) -> int:
        """Rows of a beat."""
        return self.layout.chain.beat_rows

    @property
    def positions_at(self) -> int:
        """First bit of a piece's positions."""
        return self.layout.used_dsps * self.rows * self.code_format.bits

    @property
    def zeros_at(self) -> int:
        """First bit of a piece's zero points."""
        return self.positions_at + self.layout.position_bits

    @property
    def piece_bits(self) -> int:
        """Bits of a piece, whole bytes."""
        units = self.layout.chain.tile_columns // self.zero_unit if self.zero_unit else 0
        return -(-(self.zeros_at + units * self.rows * self.code_format.bits) // 8) * 8

    @property
    def beats_per_piece(self) -> float:
        """Memory beats that a chain beat takes; the chain is fed every cycle when memory delivers that share."""
        return self.piece_bits / self.beat_bits

    @property
    def granule_bits(self) -> int:
        """Pieces begin at multiples of so many bits of a memory beat."""
        return gcd(self.piece_bits, self.beat_bits)
