"""The layouts of the RTL chain: what it eats beat by beat, and what memory holds of it."""

import math
from dataclasses import dataclass
from typing import Literal

from sparsefab.errors import LayoutError
from sparsefab.formats.bits import packed_bytes
from sparsefab.formats.layout_scales import scale_sections
from sparsefab.formats.tensors import TensorSpec

__all__ = ["Chain", "ChainMemory", "ChainRows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Weight beats of the RTL chain: `dsps` weights s8 and as many 4-bit indices.

    `slots` DSPs serve one block of `block` inputs (N of N:16); dense takes slots = block. A tile is
    floor(dsps / slots) blocks; beats run over tiles, then rows. A format runs here when its centred values fit s8.

    pairs : bool        A beat serves two rows, for the mode in which an activation is what the two products of a DSP
                        share: byte 2 d is DSP d's weight of the even row, byte 2 d + 1 of the odd one, and one index
                        serves both. Dense and row-pair patterns fill it; any other fits if the union of the two rows'
                        positions does. An odd last row is paired with zeros.

                        bytes  0      1      2      3            2 L - 2  2 L - 1   2 L ...
                               w0[0]  w1[0]  w0[1]  w1[1]   ..   w0[L-1]  w1[L-1]   indices, low nibble first
    """

    dsps: int
    slots: int = 16
    block: int = 16
    pairs: bool = False

    def __post_init__(self) -> None:
        if self.block != 16:
            raise LayoutError(f"chain layout: block must be 16, not {self.block}")
        if not 1 <= self.slots <= self.block:
            raise LayoutError(f"chain layout: slots must be 1 to {self.block}, not {self.slots}")
        if self.dsps < self.slots:
            raise LayoutError(f"chain layout: {self.dsps} DSPs cannot serve a block of {self.slots} slots")

    @property
    def name(self) -> str:
        """chain-64x16, chain-64x16-pairs."""
        return f"chain-{self.dsps}x{self.slots}{'-pairs' if self.pairs else ''}"

    @property
    def beat_rows(self) -> int:
        """Rows that one beat serves."""
        return 2 if self.pairs else 1

    @property
    def blocks_per_tile(self) -> int:
        """Blocks of inputs that one beat covers."""
        return self.dsps // self.slots

    @property
    def tile_columns(self) -> int:
        """Inputs that one beat covers."""
        return self.blocks_per_tile * self.block

    @property
    def beat_bytes(self) -> int:
        """Bytes of a beat."""
        return self.beat_rows * self.dsps + packed_bytes(self.dsps, 4)

    def tiles(self, columns: int) -> int:
        """Tiles of an input axis; the last may be short."""
        return -(-columns // self.tile_columns)

    def beats(self, spec: TensorSpec) -> int:
        """Beats of a matrix."""
        return self.tiles(spec.columns) * -(-spec.rows // self.beat_rows)

    def section_bytes(self, spec: TensorSpec) -> dict[str, int]:
        """Bytes of each section."""
        return {"beats": self.beats(spec) * self.beat_bytes, **scale_sections(spec)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRows:
    """Weight beats of an RTL chain whose rows end anywhere: a row takes DSPs for its weights, not whole beats.

    A tile is `blocks` blocks of 16 inputs, and group g (DSPs 2 g, 2 g + 1) of every beat serves block g mod `blocks`. A
    row takes, from its first group on, up to two of its weights in each group whose block has any left; the next row
    starts behind its last one, or in the next segment where the segment holds a start already. A row without weights
    takes one group. For unstructured patterns and per-block N.

        bytes  0 .. L - 1   L ..                       then
               weights s8   indices, low nibble first  a bit a group: a row starts there (not for a tile's first row)

    segment : int       DSPs of a segment, in which one row may start.
    """

    dsps: int
    blocks: int = 1
    segment: int = 8

    def __post_init__(self) -> None:
        if self.segment < 2 or self.segment % 2 or self.dsps < 1 or self.dsps % self.segment:
            raise LayoutError(
                f"chain rows: dsps must be a positive multiple of segment, an even number, not {self.dsps} "
                f"of {self.segment}"
            )
        if not 1 <= self.blocks <= self.groups or self.groups % self.blocks:
            raise LayoutError(f"chain rows: blocks must divide the {self.groups} groups, not {self.blocks}")

    @property
    def name(self) -> str:
        """chain-rows-64x2."""
        return f"chain-rows-{self.dsps}x{self.blocks}"

    @property
    def block(self) -> int:
        """Inputs of a block."""
        return 16

    @property
    def groups(self) -> int:
        """Groups of two DSPs in a beat."""
        return self.dsps // 2

    @property
    def tile_columns(self) -> int:
        """Inputs of a tile."""
        return self.blocks * self.block

    @property
    def beat_bytes(self) -> int:
        """Bytes of a beat."""
        return self.dsps + packed_bytes(self.dsps, 4) + packed_bytes(self.groups, 1)

    def tiles(self, columns: int) -> int:
        """Tiles of an input axis; the last may be short."""
        return -(-columns // self.tile_columns)

    def section_bytes(self, spec: TensorSpec) -> dict[str, int]:
        """Bytes of each section when all blocks are equally full; `pack` gives the exact figure."""
        tiles = self.tiles(spec.columns)
        weights = spec.stored / max(spec.rows * tiles * self.blocks, 1)
        row_groups = max(self.blocks * math.ceil(weights / 2), self.segment // 2)
        beats = tiles * math.ceil(spec.rows * row_groups / self.groups)
        return {"beats": beats * self.beat_bytes, "tile_beats": 4 * tiles, **scale_sections(spec)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainMemory:
    """What the accelerator's memory holds of `chain`: a piece for each of its beats, which a dequantizer makes of it.

    A piece, lowest bits first, filled up to bytes: the codes of all slots (with pairs, both rows' codes of a slot side
    by side); the positions; the zero points, one a unit of inputs (and row). Pieces follow one another without gaps, in
    the order of the chain's beats. Group multipliers have a section of their own: they belong to partial sums.

    positions : 'all'           Dense: none are stored; `chain` has 16 slots.
                'index'         log2(m) bits a slot, inside its block of m inputs.
                'bitmap'        16 bits a block of 16 inputs.
    m : int                     M of N:M, 4, 8 or 16, for 'index'; `chain.slots` are N * 16 / M.
    """

    chain: Chain
    positions: Literal["all", "index", "bitmap"] = "all"
    m: int = 16

    def __post_init__(self) -> None:
        if self.m not in (4, 8, 16) or (self.m != 16 and self.positions != "index"):
            raise LayoutError(f"chain memory: m must be 4, 8 or 16, and 16 without indices, not {self.m}")
        if self.chain.slots * self.m % self.chain.block:
            raise LayoutError(f"chain memory: {self.chain.slots} slots of 16 inputs are no whole number of {self.m}")
        if self.positions == "all" and self.chain.slots != self.chain.block:
            raise LayoutError(f"chain memory: {self.chain.slots} slots of 16 inputs need positions")

    @property
    def name(self) -> str:
        """chain-memory-64x8-bitmap."""
        return f"chain-memory-{self.chain.name.removeprefix('chain-')}-{self.positions}"

    @property
    def slots_per_m(self) -> int:
        """N of N:M."""
        return self.chain.slots * self.m // self.chain.block

    @property
    def index_bits(self) -> int:
        """Bits of a stored index."""
        return (self.m - 1).bit_length()

    @property
    def used_dsps(self) -> int:
        """Slots of a beat."""
        return self.chain.blocks_per_tile * self.chain.slots

    @property
    def position_bits(self) -> int:
        """Bits of a piece's positions."""
        return {"all": 0, "index": self.used_dsps * self.index_bits, "bitmap": self.chain.tile_columns}[self.positions]

    def zero_unit(self, spec: TensorSpec) -> int:
        """Inputs of a piece that share a zero point."""
        columns = self.chain.tile_columns
        return columns if not spec.asymmetric or spec.groups == 1 else math.gcd(spec.group_size, columns)

    def zero_units(self, spec: TensorSpec) -> int:
        """Zero points of a piece and row."""
        return self.chain.tile_columns // self.zero_unit(spec)

    def zero_points_below(self, spec: TensorSpec) -> int:
        """Bits of a piece below its zero points."""
        return self.used_dsps * self.chain.beat_rows * spec.format.bits + self.position_bits

    def piece_bytes(self, spec: TensorSpec) -> int:
        """Bytes of a piece."""
        zeros = self.zero_units(spec) * self.chain.beat_rows * spec.format.bits if spec.asymmetric else 0
        return packed_bytes(1, self.zero_points_below(spec) + zeros)

    def check(self, spec: TensorSpec) -> None:
        """Refuse groups whose zero points change inside a block."""
        if self.zero_unit(spec) % self.chain.block:
            raise LayoutError(f"layout {self.name}: group_size must be a multiple of 16, not {spec.group_size}")

    def section_bytes(self, spec: TensorSpec) -> dict[str, int]:
        """Bytes of each section."""
        self.check(spec)
        scales = {name: size for name, size in scale_sections(spec).items() if name != "zero_points"}
        return {"pieces": self.chain.beats(spec) * self.piece_bytes(spec), **scales}
