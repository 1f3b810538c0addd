"""Pairs of layers, A [m, k] then B [k, m], ours against peers that live in a process of their own.

    rows, absent = bench_pairs(shapes=[(3072, 768)], densities=[0.2], tokens=[128], peers=["intel"], cache=path)

A peer's process cannot be bound to our buffers, so DeepSparse's time of a pair is a difference of two whole graphs.
Ours and the peer take turns, by wall time; codes of 8 bits from layer to layer, no repacking between ours.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats.requantize import Requantizer
from sparsefab.kernels_cpu.features import Level
from sparsefab.kernels_cpu.intel_jit import IntelPair
from sparsefab.kernels_cpu.panels import panels_of
from sparsefab.kernels_cpu.peer_processes import PROCESS_PEERS, DeepSparsePair, environment_of
from sparsefab.kernels_cpu.spmm import BlockWeights, Call, Codes, Product
from sparsefab.kernels_cpu.threads import check_threads

__all__ = ["PairRow", "bench_pairs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """One pair of 4x1-sparse layers; `ratio` is the median of the peer's time over ours, turn by turn."""

    rows: int
    columns: int
    tokens: int
    density: float
    threads: int
    peer: str
    median_s: float
    peer_median_s: float
    ratio: float


def bench_pairs(
    *,
    shapes: Sequence[tuple[int, int]],
    densities: Sequence[float],
    tokens: Sequence[int],
    peers: Sequence[str],
    cache: Path,
    threads: int = 1,
    level: Level | None = None,
    rounds: int = 31,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[tuple[PairRow, ...], dict[str, str]]:
    """Time the pairs of all combinations; return them, and why a peer is absent (name -> reason).

    Raises
    ------
    ValueError                   If an argument is out of range or a peer's name is unknown.
    """
    check_threads(threads)
    if rounds < 1 or any(count < 1 for count in tokens) or any(not 0 < density <= 1 for density in densities):
        raise ValueError("rounds and tokens must be at least 1, densities above 0 and at most 1")
    absent: dict[str, str] = {}
    for name in peers:
        if name not in PROCESS_PEERS:
            raise ValueError(f"peer must be one of {', '.join(PROCESS_PEERS)}, not {name!r}")
        try:
            environment_of(name, cache)
        except ImportError as error:
            absent[name] = str(error)
    plan = [(shape, count, density) for shape in shapes for count in tokens for density in densities]
    result: list[PairRow] = []
    for done, ((rows, columns), count, density) in enumerate(plan, 1):
        random = np.random.default_rng([seed, rows, columns, round(1000 * density)])
        pair = (_layer(rows, columns, density, random), _layer(columns, rows, density, random))
        for name in peers:
            if name not in absent:
                try:
                    result.append(_time(name, pair, count, density, threads, level, rounds, cache))
                except ImportError as error:
                    absent[name] = str(error)
        if progress is not None:
            progress(done, len(plan))
    return tuple(result), absent


def _time(
    name: str,
    pair: tuple[NDArray[np.int8], NDArray[np.int8]],
    tokens: int,
    density: float,
    threads: int,
    level: Level | None,
    rounds: int,
    cache: Path,
) -> PairRow:
    rows, columns = pair[0].shape
    first, second = _ours(pair, tokens, threads, level)
    peer = (DeepSparsePair if name == "deepsparse" else IntelPair)(pair, tokens, threads, cache)
    try:
        _seconds(first, second, 1)  # compiles
        calls = max(1, round(2e-3 / max(_seconds(first, second, 1), 1e-6)))
        turns = [(_seconds(first, second, calls), peer.pair_seconds(max(1, calls // 4))) for _ in range(rounds)]
    finally:
        peer.close()
    table = np.array(turns)
    return PairRow(
        rows=rows,
        columns=columns,
        tokens=tokens,
        density=density,
        threads=threads,
        peer=peer.name,
        median_s=float(np.median(table[:, 0])),
        peer_median_s=float(np.median(table[:, 1])),
        ratio=float(np.median(table[:, 1] / table[:, 0])),
    )


def _seconds(first: Call, second: Call, calls: int) -> float:
    """Wall time of a pair; once before it, since what the peer left in the caches is not what a turn is about."""
    for call in (first, second):
        call()
    begin = time.perf_counter()
    for _ in range(calls):
        first()
        second()
    return (time.perf_counter() - begin) / calls


def _layer(rows: int, columns: int, density: float, random: np.random.Generator) -> NDArray[np.int8]:
    """Normal weights whose greatest in a row is 127, in 4x1 blocks."""
    reals = random.normal(size=(rows, columns))
    codes = np.rint(reals * (127 / np.abs(reals).max(axis=1, keepdims=True)))
    kept = np.repeat(random.random((-(-rows // 4), columns)) < density, 4, axis=0)[:rows]
    return np.where(kept, codes, 0).astype(np.int8)


def _ours(
    pair: tuple[NDArray[np.int8], NDArray[np.int8]], tokens: int, threads: int, level: Level | None
) -> tuple[Call, Call]:
    products = []
    for matrix in pair:
        spread = np.sqrt((matrix.astype(np.float64) ** 2).sum(axis=1)).mean() or 1.0
        epilogue = Codes(requantizer=Requantizer.of(np.full(len(matrix), 1 / spread), 128, 0, 255))
        products.append(Product(BlockWeights.from_columns(matrix), epilogue, zero_point=128, level=level))
    codes = np.random.default_rng(0).integers(0, 256, (tokens, pair[0].shape[1])).astype(np.uint8)
    first = products[0].bind(panels_of(codes, width=products[0].width(tokens)), threads=threads)
    return first, products[1].bind(first.out, threads=threads)
