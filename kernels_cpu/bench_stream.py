"""Few tokens: products of resident weights and of weights out of memory, as fractions of what bounds them.

    table = bench_stream(patterns=["4x1", "int4g32", "2:4"], shapes=[(4096, 4096)], tokens=[1, 16])
    table[0].bound, table[0].limit, table[0].fraction_of_bound

Out of memory, copies of the weights rotate through more bytes than the nearer caches hold; in the cache one copy is
read again and again.  A plain read of as many bytes in the same place, a chain of bare dot products and a call on a
matrix that stores nothing take turns with the product.  The bound is the time of that call, and the longer of two: the
time to read the bytes; that to begin the instructions of the loops on the ports that they need (`ports`), at the clock
of the dot products.
"""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.kernels_cpu.caches import cache_of
from sparsefab.kernels_cpu.drawn import check_pattern
from sparsefab.kernels_cpu.drawn_calls import DrawnCalls, drawn_calls, is_weight_only
from sparsefab.kernels_cpu.features import Level
from sparsefab.kernels_cpu.panels import aligned_empty
from sparsefab.kernels_cpu.ports import busiest
from sparsefab.kernels_cpu.probe import dot_chain, reader
from sparsefab.kernels_cpu.threads import check_threads

__all__ = ["STREAM_TOKENS", "StreamRow", "bench_stream", "is_weight_only"]

STREAM_TOKENS = 16  # at most: beyond, products are made of dot products
COLD_BYTES = 128 << 20
SOURCES = ("memory", "cache")
_TURN_S = 200e-6  # at least, in the cache
_MACS_A_CYCLE = 128  # of vpdpbusd on 512 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRow:
    """One product of float32 results, activations already quantized.

    Attributes
    ----------
    source : str                 Where the weights come from: 'memory', or 'cache' where they stay.
    bytes_per_call : int         Weights with their scales and positions, each read once.
    bytes_per_s : float          As they arrive.
    macs_per_s : float           Products that are made, those with zeros that a dense form stores too.
    fraction_of_read : float     Of a plain read of as many bytes, on one thread; median of the ratios of single turns.
    fraction_of_dots : float | None           Of the dot products that one thread makes from registers.
    call_s : float               Of the same call on a matrix that stores nothing; see `drawn_calls`.
    bound : str                  What takes longer at best: 'memory', 'L2' or another cache, 'instructions', or, where
                                 the loops are not known, 'dot products'.
    limit : str                  The bound in numbers.
    fraction_of_bound : float    The bound's time over the product's.
    """

    pattern: str
    rows: int
    columns: int
    tokens: int
    density: float
    source: str
    threads: int
    median_s: float
    bytes_per_call: int
    bytes_per_s: float
    macs_per_s: float
    fraction_of_read: float
    fraction_of_dots: float | None
    call_s: float
    bound: str
    limit: str
    fraction_of_bound: float


def bench_stream(
    *,
    patterns: Sequence[str] = ("int4g32",),
    shapes: Sequence[tuple[int, int]] = ((4096, 4096), (11008, 4096)),
    densities: Sequence[float] = (0.2,),
    tokens: Sequence[int] = (1,),
    threads: int = 1,
    level: Level | None = None,
    rounds: int = 31,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[StreamRow, ...]:
    """Time products, weights out of memory and in the cache.

    Parameters
    ----------
    patterns : sequence of str   4x1, 4x4, dense, N:M, or group-quantized: int4g32 with one zero point, uint4g128 with
                                 one a group, int4g16@0.5 of which rows keep half of the groups, int3g64+outliers with
                                 1 % of the weights in 15 bits besides.
    shapes : sequence of (rows, columns)      Weight matrices.
    densities : sequence of float             Of 4x1 and 4x4.
    tokens : sequence of int                  Columns of activations at once, up to 16.
    threads : int                             The read, the dot products and the instructions stay those of one thread.
    level : Level | None                      Of int8 products; None takes the best.
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
        for source in SOURCES:
            calls = drawn_calls(
                pattern,
                rows=rows,
                columns=columns,
                tokens=count,
                density=density,
                threads=threads,
                least_bytes=COLD_BYTES if source == "memory" else 1,
                level=level,
                random=np.random.default_rng(seed),
            )
            result.append(_time(calls, pattern, (rows, columns, count), source, threads, rounds))
            if progress is not None:
                progress(len(result), len(SOURCES) * len(plan))
    return tuple(result)


def _time(
    calls: DrawnCalls, pattern: str, shape: tuple[int, int, int], source: str, threads: int, rounds: int
) -> StreamRow:
    turns = _turns(calls, source, threads, rounds)
    ours, read_s, call_s = turns["ours"], turns["read"] * calls.nbytes, turns["idle"]
    dots_s = turns["dots"] * calls.macs if "dots" in turns else None
    cycles = sum(loop.cycles * units for loop, units in calls.loops)
    work_s, kind = dots_s, "dot products"
    if calls.loops and "dots" in turns:
        work_s, kind = turns["dots"] * _MACS_A_CYCLE * cycles, "instructions"
    longer_s = read_s if work_s is None else np.maximum(read_s, work_s)
    by_bytes = work_s is None or statistics.median(read_s / work_s) >= 1
    bound = kind if not by_bytes else source if source == "memory" else cache_of(calls.nbytes)
    rate = calls.nbytes / statistics.median(read_s)
    limit = busiest(calls.loops) if bound == "instructions" else "register to register" if not by_bytes else ""
    median = statistics.median(ours)
    return StreamRow(
        pattern=pattern,
        rows=shape[0],
        columns=shape[1],
        tokens=shape[2],
        density=calls.density,
        source=source,
        threads=threads,
        median_s=median,
        bytes_per_call=calls.nbytes,
        bytes_per_s=calls.nbytes / median,
        macs_per_s=calls.macs / median,
        fraction_of_read=float(np.median(read_s / ours)),
        fraction_of_dots=None if dots_s is None else float(np.median(dots_s / ours)),
        call_s=statistics.median(call_s),
        bound=bound,
        limit=limit or f"{rate / 1e9:.1f} GB/s read",
        fraction_of_bound=float(np.median((call_s + longer_s) / ours)),
    )


def _turns(calls: DrawnCalls, source: str, threads: int, rounds: int) -> dict[str, NDArray[np.float64]]:
    """Let product, read, dot products and idle call take turns.

    Returns
    -------
    dict of float64[rounds]      Seconds: of 'ours' and 'idle' a call, of 'read' a byte, of 'dots' a multiplication.
    """
    copies = len(calls.calls)
    plain: NDArray[np.uint64] = aligned_empty((copies, max(calls.nbytes // 512, 1) * 64), np.uint64)
    plain.fill(1)
    read, chain = reader(), dot_chain()
    engines: dict[str, tuple[list[Callable[[], Any]], float]] = {
        "ours": (calls.calls, 1),
        "read": ([functools.partial(read, line) for line in plain], plain[0].nbytes),
        "idle": ([calls.idle], 1),
    }
    if chain is not None:
        engines["dots"] = ([chain[0]], chain[1])
    resident = {name: source == "cache" or name in ("idle", "dots") for name in engines}
    clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns
    repeats = {name: _repeats(each[0]) if resident[name] else 1 for name, (each, _) in engines.items()}
    result: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(1, rounds + 1):
        for name, (each, units) in engines.items():
            call = each[turn % len(each)]
            if resident[name]:
                call()  # what the others left in the caches is not what a turn is about
            begin = clock()
            for _ in range(repeats[name]):
                call()
            result[name].append(max(clock() - begin, 1) * 1e-9 / repeats[name] / units)
    return {name: np.array(times) for name, times in result.items()}


def _repeats(call: Callable[[], Any]) -> int:
    """Return how many calls make a turn."""
    call()
    begin = time.perf_counter()
    call()
    return max(1, round(_TURN_S / max(time.perf_counter() - begin, 1e-7)))
