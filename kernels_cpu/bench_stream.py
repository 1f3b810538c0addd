"""Few tokens: products whose weights come out of memory, as fractions of what memory or the dot products allow.

    table = bench_stream(patterns=["int4g32", "2:4", "int3g64+outliers"], shapes=[(4096, 4096)], tokens=[1, 16])
    table[0].bound, table[0].fraction_of_bound

Copies of the weights rotate through more bytes than the nearer caches hold; a plain read of as many bytes and a chain
of bare dot products take turns with the product.  The bound is the longer of two times: to read the bytes, to make the
dot products.
"""

import math
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats import Block, GroupRows, IntFormat, TensorSpec
from sparsefab.kernels_cpu.drawn import check_pattern, drawn_mask, drawn_weights
from sparsefab.kernels_cpu.gemv import GroupWeights, LaneWeights, MatrixVector, OutlierWeights
from sparsefab.kernels_cpu.panels import aligned_empty, interleaved, panels_of
from sparsefab.kernels_cpu.probe import dot_chain, reader
from sparsefab.kernels_cpu.spmm import MaskedWeights, Product, Reals
from sparsefab.kernels_cpu.threads import check_threads

__all__ = ["STREAM_TOKENS", "StreamRow", "bench_stream", "is_weight_only"]

STREAM_TOKENS = 16  # at most: beyond, products are made of dot products
COLD_BYTES = 128 << 20
_OUTLIERS = 0.01  # of the weights: SpQR keeps about as many
_WEIGHT_ONLY = re.compile(r"(u?)int([3-8])g(\d+)(?:@(0?\.\d+|1))?(\+outliers)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRow:
    """One product of float32 results, activations already quantized.

    Attributes
    ----------
    bytes_per_call : int         Weights with their scales and positions, each read once.
    bytes_per_s : float          As they arrive.
    macs_per_s : float           Products that are made, those with zeros that a dense form stores too.
    fraction_of_read : float     Of a plain read of as many bytes, on one thread; median of the ratios of single turns.
    fraction_of_dots : float | None           Of the dot products that one thread makes from registers.
    """

    pattern: str
    rows: int
    columns: int
    tokens: int
    threads: int
    median_s: float
    bytes_per_call: int
    bytes_per_s: float
    macs_per_s: float
    fraction_of_read: float
    fraction_of_dots: float | None

    @property
    def bound(self) -> str:
        """What takes longer at best: 'memory' or 'dot products'."""
        return "memory" if self.fraction_of_read >= (self.fraction_of_dots or 0) else "dot products"

    @property
    def fraction_of_bound(self) -> float:
        """The bound's time over the product's."""
        return max(self.fraction_of_read, self.fraction_of_dots or 0)


def is_weight_only(pattern: str) -> bool:
    """Say whether a pattern names group-quantized weights: int4g32, uint3g128, int4g16@0.5, int3g64+outliers."""
    return _WEIGHT_ONLY.fullmatch(pattern) is not None


def bench_stream(
    *,
    patterns: Sequence[str] = ("int4g32",),
    shapes: Sequence[tuple[int, int]] = ((4096, 4096), (11008, 4096)),
    densities: Sequence[float] = (0.2,),
    tokens: Sequence[int] = (1,),
    threads: int = 1,
    rounds: int = 31,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[StreamRow, ...]:
    """Time products with weights out of memory.

    Parameters
    ----------
    patterns : sequence of str   4x1, 4x4, dense, N:M, or group-quantized: int4g32 with one zero point, uint4g128 with
                                 one a group, int4g16@0.5 of which rows keep half of the groups, int3g64+outliers with
                                 1 % of the weights in 15 bits besides.
    shapes : sequence of (rows, columns)      Weight matrices.
    densities : sequence of float             Of 4x1 and 4x4.
    tokens : sequence of int                  Columns of activations at once, up to 16.
    threads : int                             The read and the dot products stay on one thread.
    rounds : int                              Turns.
    progress : callable(done, total) | None   Called after each row.

    Raises
    ------
    ValueError                   If an argument is out of range.
    """
    check_threads(threads)
    if rounds < 1 or any(not 1 <= count <= STREAM_TOKENS for count in tokens):
        raise ValueError(f"rounds must be at least 1, tokens 1 to {STREAM_TOKENS}")
    for pattern in patterns:
        if not is_weight_only(pattern):
            check_pattern(pattern)
    plan = [
        (pattern, shape, count, density)
        for pattern in patterns
        for shape in shapes
        for count in tokens
        for density in (densities if pattern in ("4x1", "4x4") else (1.0,))
    ]
    result = []
    for pattern, (rows, columns), count, density in plan:
        stream = _stream(pattern, rows, columns, count, density, threads, np.random.default_rng(seed))
        result.append(_time(stream, pattern, (rows, columns, count, threads), rounds))
        if progress is not None:
            progress(len(result), len(plan))
    return tuple(result)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Stream:
    """Calls on copies of the weights in turn, the bytes that each reads, and its products."""

    calls: list[Callable[[], Any]]
    nbytes: int
    macs: int


def _time(stream: _Stream, pattern: str, shape: tuple[int, int, int, int], rounds: int) -> StreamRow:
    rows, columns, tokens, threads = shape
    copies = len(stream.calls)
    plain: NDArray[np.uint64] = aligned_empty((copies, max(stream.nbytes // 512, 1) * 64), np.uint64)
    plain.fill(1)
    read, chain = reader(), dot_chain()
    clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns
    stream.calls[0]()
    read(plain[0])
    ours, reads, dots = [], [], []
    for turn in range(1, rounds + 1):
        begin = clock()
        stream.calls[turn % copies]()
        between = clock()
        read(plain[turn % copies])
        reads.append((clock() - between) * 1e-9 / plain[0].nbytes)
        ours.append(max(between - begin, 1) * 1e-9)
        if chain is not None:
            begin = clock()
            chain[0]()
            dots.append((clock() - begin) * 1e-9 / chain[1])
    median = statistics.median(ours)
    return StreamRow(
        pattern=pattern,
        rows=rows,
        columns=columns,
        tokens=tokens,
        threads=threads,
        median_s=median,
        bytes_per_call=stream.nbytes,
        bytes_per_s=stream.nbytes / median,
        macs_per_s=stream.macs / median,
        fraction_of_read=statistics.median(a * stream.nbytes / b for a, b in zip(reads, ours, strict=True)),
        fraction_of_dots=statistics.median(a * stream.macs / b for a, b in zip(dots, ours, strict=True))
        if dots
        else None,
    )


def _stream(
    pattern: str, rows: int, columns: int, tokens: int, density: float, threads: int, random: np.random.Generator
) -> _Stream:
    scales = np.ones(rows, np.float32)
    if match := _WEIGHT_ONLY.fullmatch(pattern):
        bits, size, own_zeros = int(match[2]), min(int(match[3]), columns), bool(match[1])
        weights: LaneWeights | GroupWeights
        if match[4]:
            weights = group_weights(rows, columns, size, bits, own_zeros, float(match[4]), random)
            macs = tokens * len(weights.multipliers) * size
        else:
            weights = lane_weights(rows, columns, size, bits, own_zeros, random)
            macs = tokens * rows * columns
        outliers = _outliers(rows, columns, random) if match[5] else None
        nbytes = weights.nbytes + (0 if outliers is None else outliers.nbytes)
        codes = random.integers(-127, 128, (tokens, columns)).astype(np.int8)
        calls: list[Callable[[], Any]] = []
        for _ in range(_copies(nbytes)):
            vector = MatrixVector(_copied(weights), outliers=outliers, row_scales=scales)
            calls.append(vector.bind(codes, threads=threads))
        return _Stream(calls=calls, nbytes=nbytes, macs=macs)
    mask = drawn_mask(pattern, rows, columns, density, random)
    matrix = np.where(mask, random.integers(1, 128, mask.shape), 0).astype(np.int8)
    drawn = drawn_weights(pattern, matrix, mask)
    macs = tokens * (rows * columns if isinstance(drawn, MaskedWeights) else drawn.values.size)
    activations = random.integers(0, 256, (tokens, columns)).astype(np.uint8)
    calls = []
    for _ in range(_copies(drawn.nbytes)):
        product = Product(_copied(drawn), Reals(row_scales=scales))
        panels = panels_of(activations, width=product.width(tokens))
        calls.append(product.bind(interleaved(panels) if drawn.aligned else panels, threads=threads))
    return _Stream(calls=calls, nbytes=drawn.nbytes, macs=macs)


def _copied(weights: Any) -> Any:
    """Copy all arrays of weights, so that offsets, masks and multipliers come out of memory, too."""
    arrays = {field.name: getattr(weights, field.name) for field in fields(weights)}
    return replace(weights, **{name: _copy(value) for name, value in arrays.items() if isinstance(value, np.ndarray)})


def _copies(nbytes: int) -> int:
    return max(2, math.ceil(COLD_BYTES / nbytes))


def _copy(values: NDArray[Any]) -> NDArray[Any]:
    result = aligned_empty(values.shape, values.dtype)
    result[...] = values
    return result


def lane_weights(
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


def group_weights(
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
