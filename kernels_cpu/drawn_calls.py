"""Calls of products of few tokens with random weights of a pattern by its name, for benches: copies that take turns.

calls = drawn_calls("int4g32", rows=4096, columns=4096, tokens=1, density=1.0, threads=1, copies_bytes=1 << 27, ...)
calls.calls[0]()
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats import Block, GroupRows, IntFormat, TensorSpec
from sparsefab.kernels_cpu.drawn import drawn_mask, drawn_weights
from sparsefab.kernels_cpu.features import Level
from sparsefab.kernels_cpu.gemv import GroupWeights, LaneWeights, MatrixVector, OutlierWeights
from sparsefab.kernels_cpu.panels import aligned_empty, interleaved, panels_of
from sparsefab.kernels_cpu.ports import Rounds, group_loops, lane_loops, product_loops, tile_loops
from sparsefab.kernels_cpu.spmm import BlockWeights, MaskedWeights, Product, Reals

__all__ = ["DrawnCalls", "drawn_calls", "is_weight_only"]

_OUTLIERS = 0.01  # of the weights: SpQR keeps about as many
_WEIGHT_ONLY = re.compile(r"(u?)int([3-8])g(\d+)(?:@(0?\.\d+|1))?(\+outliers)?")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnCalls:
    """Products of float32 results, bound to copies of the same weights.

    Attributes
    ----------
    calls : list                 One on each copy.
    idle : callable              The same call on a matrix that stores nothing: what calling takes, and each group's
                                 start and end. Of N:M and group-quantized weights, and on tiles: without any rows.
    nbytes : int                 That one call reads of its weights.
    macs : int                   That one call makes.
    density : float              Of what is stored, as drawn.
    loops : list                 What a call goes through, see `ports`; empty where that is not known.
    """

    calls: list[Callable[[], Any]]
    idle: Callable[[], Any]
    nbytes: int
    macs: int
    density: float
    loops: Rounds


def is_weight_only(pattern: str) -> bool:
    """Say whether a pattern names group-quantized weights: int4g32, uint3g128, int4g16@0.5, int3g64+outliers."""
    return _WEIGHT_ONLY.fullmatch(pattern) is not None


def drawn_calls(
    pattern: str,
    *,
    rows: int,
    columns: int,
    tokens: int,
    density: float,
    threads: int,
    least_bytes: int,
    level: Level | None,
    random: np.random.Generator,
) -> DrawnCalls:
    """Draw weights and bind calls on as many copies as fill `least_bytes`, one at least.

    Parameters
    ----------
    pattern : str                4x1, 4x4, dense, N:M, or group-quantized, as `bench_stream` describes.
    density : float              Of 4x1 and 4x4.
    level : Level | None         Of int8 products; None takes the best.
    """
    shape = (rows, columns, tokens)
    if is_weight_only(pattern):
        return _drawn_vectors(pattern, shape, threads, least_bytes, random)
    return _drawn_products(pattern, shape, density, threads, least_bytes, level, random)


def _drawn_vectors(
    pattern: str, shape: tuple[int, int, int], threads: int, least_bytes: int, random: np.random.Generator
) -> DrawnCalls:
    rows, columns, tokens = shape
    match = _WEIGHT_ONLY.fullmatch(pattern)
    assert match is not None
    bits, size, own_zeros = int(match[2]), min(int(match[3]), columns), bool(match[1])
    weights: LaneWeights | GroupWeights
    kept = float(match[4]) if match[4] else 1.0
    if match[4]:
        weights = _group_weights(rows, columns, size, bits, own_zeros, kept, random)
        macs = tokens * len(weights.multipliers) * size
    else:
        weights = _lane_weights(rows, columns, size, bits, own_zeros, random)
        macs = tokens * rows * columns
    outliers = _outliers(rows, columns, random) if match[5] else None
    nbytes = weights.nbytes + (0 if outliers is None else outliers.nbytes)
    codes = random.integers(-127, 128, (tokens, columns)).astype(np.int8)
    calls, wide, scales = [], False, np.ones(rows, np.float32)
    for _ in range(_copies(nbytes, least_bytes)):
        vector = MatrixVector(_copied(weights), outliers=outliers, row_scales=scales)
        wide = vector.level is Level.AVX512_VNNI
        calls.append(vector.bind(codes, threads=threads))
    loops: Rounds = []
    if wide and outliers is None and isinstance(weights, LaneWeights):
        loops = lane_loops(weights, tokens=tokens)
    elif wide and outliers is None and isinstance(weights, GroupWeights):
        loops = group_loops(weights, tokens=tokens)
    return DrawnCalls(
        calls=list(calls),
        idle=replace(calls[0], blocks=0, threads=1),
        nbytes=nbytes,
        macs=macs,
        density=kept,
        loops=loops,
    )


def _drawn_products(
    pattern: str, shape: tuple[int, int, int], density: float, threads: int, least_bytes: int,
    level: Level | None, random: np.random.Generator,
) -> DrawnCalls:  # fmt: skip
    rows, columns, tokens = shape
    mask = drawn_mask(pattern, rows, columns, density, random)
    matrix = np.where(mask, random.integers(1, 128, mask.shape), 0).astype(np.int8)
    weights = drawn_weights(pattern, matrix, mask)
    macs = tokens * (rows * columns if isinstance(weights, MaskedWeights) else weights.values.size)
    activations = random.integers(0, 256, (tokens, columns)).astype(np.uint8)
    calls, loops, scales, nbytes = [], list[Any](), np.ones(rows, np.float32), weights.nbytes
    for _ in range(_copies(weights.nbytes, least_bytes)):
        product = Product(_copied(weights), Reals(row_scales=scales), level=level)
        width = product.width(tokens)
        panels = panels_of(activations, width=width)
        if product.level in (Level.AVX512_VNNI, Level.AVX512_AMX) and width in (1, 16):
            tiles = product.tiled(width, len(panels))
            if tiles is None:
                loops = product_loops(weights, width=width, panels=len(panels))
            else:
                loops, nbytes = tile_loops(tiles, tokens=tokens), tiles.nbytes
        calls.append(product.bind(interleaved(panels) if weights.aligned else panels, threads=threads))
    idle = replace(calls[0], groups=0, threads=1)
    if isinstance(weights, BlockWeights) and nbytes == weights.nbytes:
        ptr = np.zeros_like(weights.ptr)
        nothing = replace(weights, ptr=ptr, offsets=weights.offsets[:0].copy(), values=weights.values[:0].copy())
        idle = Product(nothing, Reals(row_scales=scales), level=level).bind(calls[0].activations)
    return DrawnCalls(
        calls=list(calls),
        idle=idle,
        nbytes=nbytes,
        macs=macs,
        density=float(mask.mean()),
        loops=loops,
    )


def _copied(weights: Any) -> Any:
    """Copy all arrays of weights, so that offsets, masks and multipliers come out of memory, too."""
    arrays = {field.name: getattr(weights, field.name) for field in fields(weights)}
    return replace(weights, **{name: _copy(value) for name, value in arrays.items() if isinstance(value, np.ndarray)})


def _copies(nbytes: int, least_bytes: int) -> int:
    return max(1, math.ceil(least_bytes / nbytes))


def _copy(values: NDArray[Any]) -> NDArray[Any]:
    result = aligned_empty(values.shape, values.dtype)
    result[...] = values
    return result


def _lane_weights(
    rows: int, columns: int, group_size: int, bits: int, asymmetric: bool, random: np.random.Generator
) -> LaneWeights:
    """Weights of random bytes; what they are does not matter to the time."""
    stored = next(each for each in (3, 4, 8) if each >= bits)
    blocks, groups, parts = -(-rows // 16), -(-columns // group_size), -(-group_size // 32)
    grid, middle = (blocks, groups, 16), 1 << (stored - 1)
    return LaneWeights(
        rows=rows,
        columns=columns,
        group_size=group_size,
        bits=stored,
        values=random.integers(0, 256, (blocks, groups, parts, 64 * stored), np.uint8),
        multipliers=random.integers(1, 8, grid, np.uint8),
        zeros=random.integers(0, 2 * middle, grid, np.uint8) if asymmetric else np.full((1, 1, 1), middle, np.uint8),
        reach=127 * middle * 7 * columns,
        narrow=127 * middle * group_size < 1 << 15,
    )


def _group_weights(
    rows: int, columns: int, width: int, bits: int, asymmetric: bool, density: float, random: np.random.Generator
) -> GroupWeights:
    """Weights of random bytes, some groups of each row kept."""
    stored = 4 if bits <= 4 else 8
    spec = TensorSpec.of(rows, columns, IntFormat(bits=stored), Block(1, width))
    kept = random.random((rows, columns // width)) < density
    count = int(kept.sum())
    sizes = GroupRows(stored).section_bytes(replace(spec, stored=count * width, asymmetric=asymmetric))
    return GroupWeights(
        rows=rows,
        columns=columns,
        width=width,
        bits=stored,
        codes=random.integers(0, 256, sizes["codes"], np.uint8),
        groups=np.resize(np.nonzero(kept)[1], sizes["groups"] // 2).astype(np.uint16),
        multipliers=random.integers(1, 8, sizes["multipliers"], np.uint8),
        zeros=random.integers(0, 1 << stored, sizes.get("zero_points", 1), np.uint8),
        pointers=np.concatenate([[0], kept.sum(axis=1).cumsum()]).astype(np.uint32),
        offsets=np.zeros(rows, np.int32),
        reach=127 * 7 * columns << stored,
    )


def _outliers(rows: int, columns: int, random: np.random.Generator) -> OutlierWeights:
    mask = random.random((rows, columns)) < _OUTLIERS
    return OutlierWeights(
        rows=rows,
        columns=columns,
        pointers=np.concatenate([[0], mask.sum(axis=1).cumsum()]).astype(np.uint32),
        inputs=np.nonzero(mask)[1].astype(np.uint16),
        values=random.integers(-9999, 9999, int(mask.sum())).astype(np.int16),
    )
