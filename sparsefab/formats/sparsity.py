"""Sparsity patterns: which weights of a matrix [out, in] may be stored."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError

__all__ = [
    "BLOCK_N_CHOICES",
    "BLOCK_N_SIDE",
    "NM",
    "Block",
    "BlockN",
    "Dense",
    "Pattern",
    "Unstructured",
    "parse_pattern",
]

BLOCK_N_SIDE = 16
BLOCK_N_CHOICES = (0, 2, 4, 8, 16)  # arXiv 2401.03868 (FlightLLM)


@dataclass(frozen=True, slots=True)
class Dense:
    """Every weight is stored."""

    @property
    def name(self) -> str:
        """dense."""
        return "dense"

    @property
    def density(self) -> float | None:
        """Share of weights that is stored."""
        return 1.0

    def check_shape(self, rows: int, columns: int) -> None:
        """Accept every shape."""

    def holds(self, mask: NDArray[np.bool_]) -> bool:
        """Say whether a mask obeys the pattern."""
        return bool(mask.all())


@dataclass(frozen=True, slots=True)
class NM:
    """At most n stored weights in each m consecutive inputs of a row; m is 4, 8 or 16.

    rows : int                      Consecutive rows that share their positions: 1, or 2 for "8:16 pairs".
    """

    n: int
    m: int
    rows: int = 1

    def __post_init__(self) -> None:
        if self.rows not in (1, 2):
            raise ValueError(f"N:M: rows must be 1 or 2, not {self.rows}")
        if self.m not in (4, 8, 16):
            raise ValueError(f"N:M: m must be 4, 8 or 16, not {self.m}")
        if not 0 <= self.n <= self.m:
            raise ValueError(f"N:M: n must be 0 to m = {self.m}, not {self.n}")

    @property
    def name(self) -> str:
        """2:4, or 2:4 pairs."""
        return f"{self.n}:{self.m}{' pairs' if self.rows == 2 else ''}"

    @property
    def density(self) -> float | None:
        """Share of weights that is stored."""
        return self.n / self.m

    @property
    def index_bits(self) -> int:
        """Bits of an index inside a block."""
        return (self.m - 1).bit_length()

    def check_shape(self, rows: int, columns: int) -> None:
        """Refuse an input axis that m does not divide, and an odd number of rows where pairs share positions."""
        if columns % self.m:
            raise LayoutError(f"pattern {self.name}: {self.m} does not divide the input axis of {columns}")
        if rows % self.rows:
            raise LayoutError(f"pattern {self.name}: {rows} rows do not make pairs")

    def holds(self, mask: NDArray[np.bool_]) -> bool:
        """Say whether a mask obeys the pattern."""
        shared = mask[:: self.rows]
        same = all(np.array_equal(mask[k :: self.rows], shared) for k in range(1, self.rows))
        return same and bool((shared.reshape(len(shared), -1, self.m).sum(axis=2) <= self.n).all())


@dataclass(frozen=True, slots=True)
class BlockN:
    """Each 16 x 16 block has an N of its own, 0, 2, 4, 8 or 16, and stores at most N of each row's 16 inputs.

    density : float | None          The share of weights to keep over the whole matrix, None when open.
    """

    density: float | None = None

    def __post_init__(self) -> None:
        if self.density is not None and not 0 <= self.density <= 1:
            raise ValueError(f"per-block N: density must lie in 0..1, not {self.density}")

    @property
    def name(self) -> str:
        """N:16@0.5."""
        return "N:16" + ("" if self.density is None else f"@{self.density:g}")

    def check_shape(self, rows: int, columns: int) -> None:
        """Refuse a matrix that 16 x 16 blocks do not tile."""
        if rows % BLOCK_N_SIDE or columns % BLOCK_N_SIDE:
            raise LayoutError(f"pattern {self.name}: 16 x 16 blocks do not tile a {rows} x {columns} matrix")

    def holds(self, mask: NDArray[np.bool_]) -> bool:
        """Accept every mask of a shape that blocks tile: N = 16 holds anything."""
        rows, columns = mask.shape
        return not (rows % BLOCK_N_SIDE or columns % BLOCK_N_SIDE)

    @staticmethod
    def block_n(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return the least N that holds each block of a mask, uint8[out / 16, in / 16]."""
        rows, columns = mask.shape
        most = mask.reshape(rows, -1, BLOCK_N_SIDE).sum(axis=2).reshape(-1, BLOCK_N_SIDE, columns // BLOCK_N_SIDE)
        steps = np.array(BLOCK_N_CHOICES, np.uint8)
        least: NDArray[np.uint8] = steps[np.searchsorted(steps, most.max(axis=1))]
        return least


@dataclass(frozen=True, slots=True)
class Block:
    """Weights are kept or dropped in blocks of rows x columns; `density` is the share to keep, None when open."""

    rows: int
    columns: int
    density: float | None = None

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"block pattern: sides must be positive, not {self.rows}x{self.columns}")
        if self.density is not None and not 0 <= self.density <= 1:
            raise ValueError(f"block pattern: density must lie in 0..1, not {self.density}")

    @property
    def name(self) -> str:
        """4x1@0.5."""
        return f"{self.rows}x{self.columns}" + ("" if self.density is None else f"@{self.density:g}")

    def check_shape(self, rows: int, columns: int) -> None:
        """Refuse a matrix that the block does not tile."""
        if rows % self.rows or columns % self.columns:
            raise LayoutError(f"pattern {self.name}: the block does not tile a {rows} x {columns} matrix")

    def holds(self, mask: NDArray[np.bool_]) -> bool:
        """Say whether a mask obeys the pattern."""
        tiles = mask.reshape(mask.shape[0] // self.rows, self.rows, mask.shape[1] // self.columns, self.columns)
        counts = tiles.sum(axis=(1, 3))
        return bool(((counts == 0) | (counts == self.rows * self.columns)).all())


@dataclass(frozen=True, slots=True)
class Unstructured:
    """Any weight may be dropped; `density` is the share to keep, None when open."""

    density: float | None = None

    def __post_init__(self) -> None:
        if self.density is not None and not 0 <= self.density <= 1:
            raise ValueError(f"unstructured pattern: density must lie in 0..1, not {self.density}")

    @property
    def name(self) -> str:
        """unstructured@0.5."""
        return "unstructured" + ("" if self.density is None else f"@{self.density:g}")

    def check_shape(self, rows: int, columns: int) -> None:
        """Accept every shape."""

    def holds(self, mask: NDArray[np.bool_]) -> bool:
        """Say whether a mask obeys the pattern."""
        return True


Pattern = Dense | NM | BlockN | Block | Unstructured


def parse_pattern(text: str) -> Pattern:
    """Read a pattern as recipes write it: dense, 2:4, 8:16 pairs, N:16@0.5, 4x1@0.5, unstructured@0.3.

    Raises
    ------
    ValueError                      If the text is none of these.
    """
    if text == "dense":
        return Dense()
    if match := re.fullmatch(r"(\d+):(\d+)( pairs)?", text):
        return NM(int(match[1]), int(match[2]), 2 if match[3] else 1)
    if match := re.fullmatch(r"N:16(?:@([0-9.]+))?", text):
        return BlockN(None if match[1] is None else float(match[1]))
    if match := re.fullmatch(r"(\d+)x(\d+)(?:@([0-9.]+))?", text):
        return Block(int(match[1]), int(match[2]), None if match[3] is None else float(match[3]))
    if match := re.fullmatch(r"unstructured(?:@([0-9.]+))?", text):
        return Unstructured(None if match[1] is None else float(match[1]))
    raise ValueError(
        f"unknown pattern {text!r}; write dense, N:M (2:4), N:M pairs (8:16 pairs), N:16@density, "
        "RxC@density (4x1@0.5) or unstructured@density"
    )
