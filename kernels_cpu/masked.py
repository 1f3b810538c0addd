"""N:M weights as kernels read them: views of a packed tensor of the layout VnniNM, and the room to expand them in."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats import PackedTensor, VnniNM
from sparsefab.kernels_cpu.expand import controls
from sparsefab.kernels_cpu.panels import aligned_empty, aligned_zeros
from sparsefab.kernels_cpu.weights import check_section, viewed

__all__ = ["MaskedWeights"]

_TILE = 64  # bytes: four rows by 16 inputs
_SPARE = 8  # bytes behind the last tile's
_BATCH_BYTES = 16 << 10  # of groups that are expanded at a time: they stay in the first-level cache


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskedWeights:
    """s8 weights of which each row stores N of each M inputs: the layout VnniNM.

    Attributes
    ----------
    rows, columns : int          Shape of the matrix; a last group of fewer than four rows is filled up with zeros.
    tile_bytes : int             Stored weights of a tile, four rows by 16 inputs: 64 N / M.
    values : int8[tiles * tile_bytes + 8]     What is stored of each tile, in the order of its bits.
    masks : uint64[tiles]        Bit 16 b + 4 r + k: input 4 b + k of row r is stored.

    Raises
    ------
    LayoutError                  If the sections do not fit together: every mask has `tile_bytes` bits.
    """

    rows: int
    columns: int
    tile_bytes: int
    values: NDArray[np.int8]
    masks: NDArray[np.uint64]

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise LayoutError(f"a matrix of {self.rows} x {self.columns} weights holds nothing to multiply")
        tiles = self.groups * self.tiles
        for name, array, shape, dtype in (
            ("values", self.values, (tiles * self.tile_bytes + _SPARE,), np.int8),
            ("masks", self.masks, (tiles,), np.uint64),
        ):
            check_section(name, array, shape, dtype)
        if (np.bitwise_count(self.masks) != self.tile_bytes).any():
            raise LayoutError(f"section masks must have {self.tile_bytes} bits a tile")

    @classmethod
    def from_packed(cls, packed: PackedTensor) -> "MaskedWeights":
        """Read a PackedTensor of the layout VnniNM; sections are viewed, not copied, where they lie right.

        Raises
        ------
        LayoutError              If the layout is another one, or a section is absent or cut short.
        """
        if not isinstance(packed.layout, VnniNM):
            raise LayoutError(f"this kernel reads the layout vnni-nm, not {packed.layout.name}")
        return cls(
            rows=packed.spec.rows,
            columns=packed.spec.columns,
            tile_bytes=packed.layout.tile_bytes(packed.spec),
            values=viewed(packed, "values", np.int8, ()),
            masks=viewed(packed, "masks", np.uint64, ()),
        )

    @property
    def name(self) -> str:
        """N:M, 32 of 64."""
        return f"N:M, {self.tile_bytes} of {_TILE}"

    @property
    def groups(self) -> int:
        """Groups of four rows."""
        return -(-self.rows // 4)

    @property
    def tiles(self) -> int:
        """Tiles of a group."""
        return -(-self.columns // 16)

    @property
    def aligned(self) -> bool:
        """Quads are four consecutive inputs, read from interleaved panels."""
        return True

    @property
    def nbytes(self) -> int:
        """Bytes that one product reads."""
        return self.values.nbytes + self.masks.nbytes

    def matrix(self) -> NDArray[np.int8]:
        """Return the matrix itself, int8[rows, columns]."""
        rows = self._dense().transpose(0, 3, 1, 2, 4).reshape(4 * self.groups, -1)
        return rows[: self.rows, : self.columns]

    def row_sums(self) -> NDArray[np.int64]:
        """Sum of each row's weights, int64[4 * groups]."""
        return self._dense().sum(axis=(1, 2, 4), dtype=np.int64).reshape(-1)

    def reach(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Least and greatest sum of each row over all u8 activations, int64[4 * groups] each."""
        dense = self._dense()
        low = np.minimum(dense, 0).sum(axis=(1, 2, 4), dtype=np.int64)
        high = np.maximum(dense, 0).sum(axis=(1, 2, 4), dtype=np.int64)
        return 255 * low.reshape(-1), 255 * high.reshape(-1)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what the layer's record points to: the stored bytes, and the plan of a batch of expanded groups."""
        quads = -(-self.columns // 4)
        steps = np.arange(self._batch + 1, dtype=np.int64) * quads
        offsets = np.tile(256 * np.arange(quads, dtype=np.int32), self._batch)
        return {
            "packed": self.values,
            "masks": self.masks,
            "controls": controls(),
            "steps": steps,
            "offsets": offsets,
        }

    def constants(self) -> dict[str, int]:
        """Return the numbers of the layer's record."""
        return {"tile_bytes": self.tile_bytes, "tiles": self.tiles, "batch": self._batch}

    def room(self, records: NDArray[np.void], panels: int, width: int) -> NDArray[np.uint8]:
        """Make each task's room and let its record point there.

        Parameters
        ----------
        records : LAYER[tasks]
        panels, width : int      Of the activations: single tokens are spread there, else a batch of groups is expanded.

        Returns
        -------
        uint8[tasks, bytes]      To be kept alive.
        """
        expanded = 4 * 4 * -(-self.columns // 4) * self._batch + _TILE
        size = -(-max(expanded, _TILE * self.tiles * panels if width == 1 else 0) // _TILE) * _TILE
        result: NDArray[np.uint8] = aligned_empty((len(records), size), np.uint8)
        records["values"] = result.ctypes.data + size * np.arange(len(records))
        return result

    @property
    def _batch(self) -> int:
        return int(min(self.groups, max(1, _BATCH_BYTES // (16 * -(-self.columns // 4)))))

    def _dense(self) -> NDArray[np.int8]:
        """int8[groups, tiles, 4 quads, 4 rows, 4 inputs]."""
        bits = np.unpackbits(self.masks.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little").astype(np.bool_)
        dense: NDArray[np.int8] = aligned_zeros(bits.shape, np.int8)
        dense[bits] = self.values[:-_SPARE]
        return dense.reshape(self.groups, self.tiles, 4, 4, 4)
