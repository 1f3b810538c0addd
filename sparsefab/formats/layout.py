"""Layouts: which bytes a compressed matrix becomes. The catalogue of what `pack` can write.

Every layout ends with the same scale sections: `multipliers` (if grouped), `zero_points` (if asymmetric), `row_scales`.
Block formats have `block_scales`, a byte each, then `row_exponents` (MX: a row's largest block scale, an E8M0 byte, so
that a reader knows it before the first block), or `row_scales`, or a float32 `tensor_scale`.
Nibbles16 keeps the first two in its own order, u8[16-row blocks][groups][16 rows], multipliers also where all are 1.

    RowMajor            codes     rows of codes, each row starting a byte
    Sparse(index)       codes     N slots a block of M       indices   log2(M) bits a slot, a row or pair of rows
    Sparse(bitmap)      codes     N slots a block of M       bitmap    M bits a block, a row or pair of rows (N:M)
                        codes     the stored weights         bitmap    1 bit a weight             (unstructured)
      per-block N       codes     block rows, block columns, 16 rows, N slots; indices or bitmap as above; then
                        block_n   a byte a block of 16 x 16: its N
    BlockRows           codes     the stored blocks          columns   uint16 a block   pointers  uint32 a block row
    Vnni4x1             values    s8[quads][4 rows][4 k]     offsets   int32[quads][4]  pointers  int64 a row group
    Vnni4x4             values    s8[blocks][4 rows][4 k]    offsets   int32[blocks]    pointers  int64 a row group
    VnniNM              values    s8, of each 4 rows x 16 inputs what is stored    masks  64 bits of these each
    Nibbles16           values    per 16 rows, group and 32 inputs: 4 lines of 16 rows x 4 bytes, two inputs a byte
    Chain               beats     per tile of inputs, per row: L weights s8, then L 4-bit indices
    Chain, pairs        beats     per tile of inputs, per pair of rows: L pairs of weights s8, then L 4-bit indices
    ChainMemory         pieces    what a Chain beat is made of: codes, then indices or a bitmap, then zero points
"""

import math
from dataclasses import dataclass
from typing import Literal

from sparsefab.errors import LayoutError
from sparsefab.formats.bits import packed_bytes
from sparsefab.formats.layout_lanes import Nibbles16
from sparsefab.formats.layout_scales import scale_sections
from sparsefab.formats.layout_vnni import Vnni4x1, Vnni4x4, VnniNM
from sparsefab.formats.sparsity import BLOCK_N_SIDE, NM, Block, BlockN, Dense, Unstructured
from sparsefab.formats.tensors import TensorSpec

__all__ = [
    "BlockRows",
    "Chain",
    "ChainMemory",
    "Layout",
    "Nibbles16",
    "RowMajor",
    "Sparse",
    "Vnni4x1",
    "Vnni4x4",
    "VnniNM",
    "storage_layout",
]


@dataclass(frozen=True, slots=True)
class RowMajor:
    """Every code, row after row, least significant bit first; a row starts a byte."""

    @property
    def name(self) -> str:
        """row-major."""
        return "row-major"

    def section_bytes(self, spec: TensorSpec) -> dict[str, int]:
        """Bytes of each section."""
        return {"codes": spec.rows * packed_bytes(spec.columns, spec.format.bits), **scale_sections(spec)}


@dataclass(frozen=True, slots=True)
class Sparse:
    """Stored weights with their positions, as an index a slot or as a bitmap."""

    encoding: Literal["index", "bitmap"] = "bitmap"

    @property
    def name(self) -> str:
        """sparse-index or sparse-bitmap."""
        return f"sparse-{self.encoding}"

    def section_bytes(self, spec: TensorSpec) -> dict[str, int]:
        """Bytes of each section; exact for N:M and, with spec.stored, for unstructured patterns."""
        pattern = spec.pattern
        if isinstance(pattern, NM):
            slots = spec.columns // pattern.m * pattern.n  # a row
            metadata = {
                "index": {"indices": spec.rows // pattern.rows * packed_bytes(slots, pattern.index_bits)},
                "bitmap": {"bitmap": spec.rows // pattern.rows * packed_bytes(spec.columns, 1)},
            }[self.encoding]
            codes = spec.rows * packed_bytes(slots, spec.format.bits)
            return {"codes": codes, **metadata, **scale_sections(spec)}
        if isinstance(pattern, Unstructured) and self.encoding == "bitmap":
            bitmap = spec.rows * packed_bytes(spec.columns, 1)
            return {"codes": packed_bytes(spec.stored, spec.format.bits), "bitmap": bitmap, **scale_sections(spec)}
        if isinstance(pattern, BlockN):
            metadata = {
                "index": {"indices": packed_bytes(spec.stored, 4)},
                "bitmap": {"bitmap": packed_bytes(spec.rows * spec.columns, 1)},
            }[self.encoding]
            blocks = spec.rows * spec.columns // BLOCK_N_SIDE**2
            codes = packed_bytes(spec.stored, spec.format.bits)
            return {"codes": codes, **metadata, "block_n": blocks, **scale_sections(spec)}
        raise LayoutError(f"layout {self.name} does not hold pattern {pattern.name}")


@dataclass(frozen=True, slots=True)
class BlockRows:
    """Block-sparse rows (BSR): pointers, block columns, and the blocks' codes."""

    @property
    def name(self) -> str:
        """block-rows."""
        return "block-rows"

    def section_bytes(self, spec: TensorSpec) -> dict[str, int]:
        """Bytes of each section, exact with spec.stored."""
        pattern = spec.pattern
        if not isinstance(pattern, Block):
            raise LayoutError(f"layout {self.name} does not hold pattern {pattern.name}")
        blocks = spec.stored // (pattern.rows * pattern.columns)
        return {
            "codes": packed_bytes(spec.stored, spec.format.bits),
            "columns": 2 * blocks,
            "pointers": 4 * (spec.rows // pattern.rows + 1),
            **scale_sections(spec),
        }


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


Layout = RowMajor | Sparse | BlockRows | Vnni4x1 | Vnni4x4 | VnniNM | Nibbles16 | Chain | ChainMemory


def storage_layout(spec: TensorSpec) -> Layout:
    """Return the smallest layout that stores a tensor: what memory traffic is counted in."""
    if isinstance(spec.pattern, Dense):
        return RowMajor()
    if isinstance(spec.pattern, Block):
        candidates: list[Layout] = [RowMajor(), BlockRows()]
    elif isinstance(spec.pattern, NM | BlockN):
        candidates = [RowMajor(), Sparse("index"), Sparse("bitmap")]
    else:
        candidates = [RowMajor(), Sparse("bitmap")]
    return min(candidates, key=lambda layout: sum(layout.section_bytes(spec).values()))
