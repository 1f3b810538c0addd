"""Random int8 weights of a pattern by its name, for benches: 4x1, 4x4, dense, N:M."""

import re

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats import NM, IntFormat, QuantTensor, VnniNM, pack, parse_pattern
from sparsefab.kernels_cpu.spmm import BlockWeights, MaskedWeights

__all__ = ["check_pattern", "drawn_mask", "drawn_weights"]

PATTERNS = ("4x1", "4x4", "dense")


def check_pattern(pattern: str) -> None:
    """Raise a ValueError unless a pattern is one of int8 weights."""
    if pattern not in PATTERNS and not re.fullmatch(r"\d+:(4|8|16)", pattern):
        raise ValueError(
            f"pattern must be one of {', '.join(PATTERNS)}, N:M as 2:4, or, for few tokens, as int4g32, not {pattern!r}"
        )


def drawn_mask(pattern: str, rows: int, columns: int, density: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return which weights are stored."""
    if ":" in pattern:
        found = parse_pattern(pattern)
        assert isinstance(found, NM)
        found.check_shape(rows, columns)
        rank = random.random((rows, columns // found.m, found.m)).argsort(axis=2)
        return (rank < found.n).reshape(rows, columns)
    height = {"4x1": (4, 1), "4x4": (4, 4), "dense": (1, 1)}[pattern]
    grid = (-(-rows // height[0]), -(-columns // height[1]))
    kept = random.random(grid) < density if density < 1 else np.ones(grid, np.bool_)
    return np.repeat(np.repeat(kept, height[0], axis=0), height[1], axis=1)[:rows, :columns]


def drawn_weights(pattern: str, matrix: NDArray[np.int8], mask: NDArray[np.bool_]) -> BlockWeights | MaskedWeights:
    """Pack a matrix int8[rows, columns] whose stored weights a mask tells."""
    if ":" in pattern:
        tensor = QuantTensor(
            codes=matrix.astype(np.int16),
            format=IntFormat(bits=8),
            row_scales=np.ones(len(matrix), np.float32),
            group_size=matrix.shape[1],
            pattern=parse_pattern(pattern),
            mask=mask,
        )
        return MaskedWeights.from_packed(pack(tensor, VnniNM()))
    return BlockWeights.from_columns(matrix) if pattern == "4x1" else BlockWeights.from_matrix(matrix)
