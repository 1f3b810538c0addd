"""The decode side's table: 4-bit group-quantized products as fractions of what memory delivers.

    table = bench_gemv(shapes=[(4096, 4096)], group_sizes=[32])
    table[0].fraction_of_read

Weights rotate through more bytes than the caches hold, and a plain read of as many bytes takes turns with the product.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sparsefab.kernels_cpu.gemv import MatrixVector, NibbleWeights
from sparsefab.kernels_cpu.panels import aligned_empty
from sparsefab.kernels_cpu.probe import reader
from sparsefab.kernels_cpu.threads import check_threads

__all__ = ["GemvRow", "bench_gemv"]

COLD_BYTES = 128 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GemvRow:
    """One product of float32 results, activations already quantized.

    Attributes
    ----------
    bytes_per_call : int         Weights and multipliers, each read once.
    bytes_per_s : float          As they arrive.
    fraction_of_read : float     Of a plain read of as many bytes, on one thread; median of the ratios of single turns.
    """

    rows: int
    columns: int
    group_size: int
    tokens: int
    threads: int
    median_s: float
    bytes_per_call: int
    bytes_per_s: float
    fraction_of_read: float


def bench_gemv(
    *,
    shapes: Sequence[tuple[int, int]] = ((4096, 4096), (11008, 4096)),
    group_sizes: Sequence[int] = (32,),
    tokens: Sequence[int] = (1,),
    threads: int = 1,
    rounds: int = 31,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[GemvRow, ...]:
    """Time 4-bit products with weights out of memory.

    Parameters
    ----------
    shapes : sequence of (rows, columns)      Weight matrices.
    group_sizes : sequence of int             Inputs that share a multiplier.
    tokens : sequence of int                  Columns of activations at once.
    threads : int                             The read stays on one thread.
    rounds : int                              Turns.
    progress : callable(done, total) | None   Called after each row.

    Raises
    ------
    ValueError                   If an argument is out of range.
    """
    check_threads(threads)
    if rounds < 1 or any(count < 1 for count in tokens) or any(size < 1 for size in group_sizes):
        raise ValueError("rounds, tokens and group_sizes must be at least 1")
    plan = [(shape, size, count) for shape in shapes for size in group_sizes for count in tokens]
    result = []
    for (rows, columns), size, count in plan:
        result.append(_time(rows, columns, min(size, columns), count, threads, rounds, np.random.default_rng(seed)))
        if progress is not None:
            progress(len(result), len(plan))
    return tuple(result)


def _time(
    rows: int, columns: int, group_size: int, tokens: int, threads: int, rounds: int, random: np.random.Generator
) -> GemvRow:
    first = _weights(rows, columns, group_size, random)
    copies = max(2, math.ceil(COLD_BYTES / first.nbytes))
    scales = np.ones(rows, np.float32)
    products = [MatrixVector(first, row_scales=scales)]
    for _ in range(copies - 1):
        values = aligned_empty(first.values.shape, np.uint8)
        values[:] = first.values
        products.append(MatrixVector(replace(first, values=values), row_scales=scales))
    plain: NDArray[np.uint64] = aligned_empty((copies, first.nbytes // 512 * 64), np.uint64)
    plain.fill(1)
    read = reader()
    codes = random.integers(-127, 128, (tokens, columns)).astype(np.int8)
    clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns
    products[0].run(codes, threads=threads)
    read(plain[0])
    ours, reads = [], []
    for turn in range(1, rounds + 1):
        begin = clock()
        products[turn % copies].run(codes, threads=threads)
        between = clock()
        read(plain[turn % copies])
        reads.append((clock() - between) * 1e-9 / plain[0].nbytes)
        ours.append(max(between - begin, 1) * 1e-9)
    median = statistics.median(ours)
    return GemvRow(
        rows=rows,
        columns=columns,
        group_size=group_size,
        tokens=tokens,
        threads=threads,
        median_s=median,
        bytes_per_call=first.nbytes,
        bytes_per_s=first.nbytes / median,
        fraction_of_read=statistics.median(a * first.nbytes / b for a, b in zip(reads, ours, strict=True)),
    )


def _weights(rows: int, columns: int, group_size: int, random: np.random.Generator) -> NibbleWeights:
    """Weights of random bytes; what they are does not matter to the time."""
    blocks, groups, parts = -(-rows // 16), -(-columns // group_size), -(-group_size // 32)
    values = aligned_empty((blocks, groups, parts, 256), np.uint8)
    values[:] = random.integers(0, 256, values.shape, np.uint8)
    return NibbleWeights(
        rows=rows,
        columns=columns,
        group_size=group_size,
        values=values,
        multipliers=random.integers(1, 64, (blocks, groups, 16), np.uint8),
        zeros=np.full((1, 1, 1), 8, np.uint8),
        reach=127 * 8 * 63 * columns,
    )
