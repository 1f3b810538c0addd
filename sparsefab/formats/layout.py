"""Layouts: which bytes a compressed matrix becomes. The catalogue of what `pack` can write.

Every layout ends with the same scale sections: `multipliers` (if grouped), `zero_points` (if asymmetric), `row_scales`.
Block formats have `block_scales`, a byte each, then `row_exponents` (MX: a row's largest block scale, an E8M0 byte, so
that a reader knows it before the first block), or `row_scales`, or a float32 `tensor_scale`.
Lanes16 keeps the first two in its own order, u8[16-row blocks][groups][16 rows], GroupRows a byte each a kept group;
both have multipliers also where all are 1. Outliers follow as `outlier_codes`, `_inputs` and `_pointers`,
those of SparseRows; the layouts of the kernels' blocks and of the chain hold none.

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
    Lanes16             values    per 16 rows, group and 32 inputs: a line of 16 rows x 4 bytes for each bit of a code
    GroupRows           codes     the kept groups            groups    uint16 a group   pointers  uint32 a row
    SparseRows          codes     int16 a stored weight      inputs    uint16 a weight  pointers  uint32 a row
    Chain               beats     per tile of inputs, per row: L weights s8, then L 4-bit indices
    Chain, pairs        beats     per tile of inputs, per pair of rows: L pairs of weights s8, then L 4-bit indices
    ChainRows           beats     per tile of inputs, rows back to back: L weights s8, L 4-bit indices, L / 2 start bits
    ChainMemory         pieces    what a Chain beat is made of: codes, then indices or a bitmap, then zero points
"""

from dataclasses import dataclass
from typing import Literal

from sparsefab.errors import LayoutError
from sparsefab.formats.bits import packed_bytes
from sparsefab.formats.layout_chain import Chain, ChainMemory, ChainRows
from sparsefab.formats.layout_groups import GroupRows
from sparsefab.formats.layout_lanes import Lanes16, SparseRows
from sparsefab.formats.layout_scales import scale_sections
from sparsefab.formats.layout_vnni import Vnni4x1, Vnni4x4, VnniNM
from sparsefab.formats.sparsity import BLOCK_N_SIDE, NM, Block, BlockN, Dense, Unstructured
from sparsefab.formats.tensors import TensorSpec

__all__ = [
    "BlockRows",
    "Chain",
    "ChainMemory",
    "ChainRows",
    "GroupRows",
    "Lanes16",
    "Layout",
    "RowMajor",
    "Sparse",
    "SparseRows",
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


Layout = (
    RowMajor
    | Sparse
    | SparseRows
    | BlockRows
    | GroupRows
    | Vnni4x1
    | Vnni4x4
    | VnniNM
    | Lanes16
    | Chain
    | ChainRows
    | ChainMemory
)


def storage_layout(spec: TensorSpec) -> Layout:
    """Return the smallest layout that stores a tensor: what memory traffic is counted in."""
    if isinstance(spec.pattern, Dense):
        return RowMajor()
    if isinstance(spec.pattern, Block):
        candidates: list[Layout] = [RowMajor(), BlockRows()]
        candidates += [layout for layout in (GroupRows(4), GroupRows(8)) if layout.holds(spec)]
    elif isinstance(spec.pattern, NM | BlockN):
        candidates = [RowMajor(), Sparse("index"), Sparse("bitmap")]
    else:
        candidates = [RowMajor(), Sparse("bitmap")]
    return min(candidates, key=lambda layout: sum(layout.section_bytes(spec).values()))
