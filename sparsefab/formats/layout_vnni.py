"""Layouts of int8 weights for `vpdpbusd`: four rows by four inputs, a dword a row."""

from dataclasses import dataclass

from sparsefab.errors import LayoutError
from sparsefab.formats.layout_scales import scale_sections
from sparsefab.formats.sparsity import NM, Block, Pattern
from sparsefab.formats.tensors import TensorSpec

__all__ = ["Vnni4x1", "Vnni4x4", "VnniNM"]

VNNI_PANEL_TOKENS = 64  # an activation line: 64 tokens of u8
VNNI_LINE_BYTES = 4 * VNNI_PANEL_TOKENS  # four interleaved inputs of 64 tokens
VNNI_MAX_COLUMNS = 65_793  # columns * 255 * 128 < 2**31: no int32 accumulator overflows
VNNI_TILE_INPUTS = 16  # four rows of so many inputs are a register
VNNI_SPARE_BYTES = 8


@dataclass(frozen=True, slots=True)
class Vnni4x1:
    """Four rows by four kept inputs of any distance, a dword a row, for `vpdpbusd`.

    A row group's last quad repeats its last input with zero values. offsets are bytes into a 64-token panel.
    """

    @property
    def name(self) -> str:
        """vnni-4x1."""
        return "vnni-4x1"

    def section_bytes(self, spec: TensorSpec) -> dict[str, int]:
        """Bytes of each section when the row groups are equally full; `pack` gives the exact figure."""
        groups = -(-spec.rows // 4)
        quads = groups * -(-spec.stored // max(groups * 4, 1) // 4)
        return {"values": 16 * quads, "offsets": 16 * quads, "pointers": 8 * (groups + 1), **scale_sections(spec)}


@dataclass(frozen=True, slots=True)
class Vnni4x4:
    """Aligned blocks of four rows by four consecutive inputs, a dword a row, for `vpdpbusd` on interleaved activations.

    Blocks of zeros are left out where the pattern is made of whole 4x4 blocks; dense, N:M and every other pattern
    stores them all. offsets are bytes into a panel of 64 tokens whose inputs are interleaved by four: 256 * k / 4.
    """

    @property
    def name(self) -> str:
        """vnni-4x4."""
        return "vnni-4x4"

    @staticmethod
    def drops_blocks(pattern: Pattern) -> bool:
        """Say whether a pattern's absent blocks are left out."""
        return isinstance(pattern, Block) and pattern.rows % 4 == 0 and pattern.columns % 4 == 0

    def section_bytes(self, spec: TensorSpec) -> dict[str, int]:
        """Bytes of each section; exact with spec.stored."""
        groups = -(-spec.rows // 4)
        blocks = spec.stored // 16 if self.drops_blocks(spec.pattern) else groups * -(-spec.columns // 4)
        return {"values": 16 * blocks, "offsets": 4 * blocks, "pointers": 8 * (groups + 1), **scale_sections(spec)}


@dataclass(frozen=True, slots=True)
class VnniNM:
    """N:M as what `vpexpandb` makes the dense form of `Vnni4x4` from: its non-zero bytes and a bit for each byte.

    A tile is four rows by 16 inputs, the 64 bytes of four blocks of Vnni4x4: a bit a byte, lowest first, and the bytes
    whose bit is set, in order. Each row stores N of each M inputs, zeros where it has fewer, so that every tile holds
    64 N / M bytes. Eight zero bytes follow the last tile: a reader may take eight at a time.

        bit   0    1    2    3    4    5   ..  15   16   ..  63        row r, input k of block b: bit 16 b + 4 r + k
              row 0, inputs 0-3   row 1, 0-3 .. 3   row 0, inputs 4-7 ..
    """

    @property
    def name(self) -> str:
        """vnni-nm."""
        return "vnni-nm"

    @staticmethod
    def tiles(spec: TensorSpec) -> int:
        """Tiles of a matrix, those of a group of four rows one after the other."""
        return -(-spec.rows // 4) * -(-spec.columns // VNNI_TILE_INPUTS)

    def tile_bytes(self, spec: TensorSpec) -> int:
        """Bytes of a tile's stored weights.

        Raises
        ------
        LayoutError                 If the pattern is not N:M.
        """
        if not isinstance(spec.pattern, NM):
            raise LayoutError(f"layout {self.name} holds N:M, not pattern {spec.pattern.name}")
        return 4 * VNNI_TILE_INPUTS // spec.pattern.m * spec.pattern.n

    def section_bytes(self, spec: TensorSpec) -> dict[str, int]:
        """Bytes of each section."""
        values = self.tiles(spec) * self.tile_bytes(spec) + VNNI_SPARE_BYTES
        return {"values": values, "masks": 8 * self.tiles(spec), **scale_sections(spec)}
