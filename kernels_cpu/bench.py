"""The kernel table: shapes x density x tokens, as fractions of this machine's peak and against other libraries.

    table = bench(shapes=[(768, 768)], densities=[0.2], tokens=[128], peers=["onnxruntime"])
    table.rows[0].fraction_of_peak, table.rows[0].peers[0].ratio

All engines of a row take turns in one loop, with a chain of bare dot products among them; a ratio is the median of the
ratios of single turns.  One thread is timed by its CPU time, several by the wall.  Weights and activations are hot.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats.requantize import Requantizer
from sparsefab.kernels_cpu.drawn import check_pattern, drawn_mask, drawn_weights
from sparsefab.kernels_cpu.features import Level
from sparsefab.kernels_cpu.panels import interleaved, panels_of
from sparsefab.kernels_cpu.peers import Peer, Problem, peers_of
from sparsefab.kernels_cpu.ports import LOOPS
from sparsefab.kernels_cpu.probe import MachinePeaks, dot_chain, dot_chains, dot_peak, measure
from sparsefab.kernels_cpu.spmm import Codes, MaskedWeights, Product
from sparsefab.kernels_cpu.threads import check_threads

__all__ = ["BENCH_DENSITIES", "BENCH_SHAPES", "BenchRow", "BenchTable", "PeerTime", "bench", "geometric_mean"]

# The layers of BERT-base and BERT-large: (rows, columns).
BENCH_SHAPES = ((768, 768), (3072, 768), (768, 3072), (1024, 1024), (4096, 1024), (1024, 4096))
BENCH_DENSITIES = (0.3, 0.2, 0.1)
# The share of the dot products' peak that a kernel's instructions allow, by gathered inputs or not and width: 16 dot
# products and 8 shuffles; 8 and 6; of 16 tokens, 4 dot products, two cycles, in those that the loop takes.
_ALLOWED = {
    (False, 64): 16 / 24, (False, 32): 8 / 14, (False, 16): 2 / LOOPS["gathered", 16].cycles,
    (True, 64): 1.0, (True, 16): 2 / LOOPS["aligned", 16].cycles,
}  # fmt: skip
_TILES = 8.0  # products of a tdpbsud, 16 cycles, to those of as many cycles of two vpdpbusd


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTime:
    """One peer's time for a row; `ratio` is its time over ours."""

    name: str
    precision: str
    median_s: float
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRow:
    """One product, ours and the peers'; u8 codes in and out.

    Attributes
    ----------
    density : float              Of the stored blocks, as drawn.
    level, engine : str          Of our kernel; 'tiles' of AMX, or 'quads'.
    macs_per_s : float           Products with stored weights, those that fill up quads not counted.
    fraction_of_peak : float | None           Of the dot products that as many threads make; see `probe.dot_chain`.
    fraction_of_bound : float | None          The same, of what the kernel's instructions allow of that peak; N:M and
                                 tiles make dense products, of which the stored ones are a part. None for single tokens.
    bytes_per_call : int         Weights, activations and results, each once.
    repack_s : float             Time to bring [tokens, columns] into panels, not part of `median_s`.
    speedup : float | None       One thread's time over that of several; None for one.
    dots_speedup : float | None  The same of bare dot products in the same turns, see `probe.dot_chains`.
    """

    pattern: str
    rows: int
    columns: int
    tokens: int
    density: float
    threads: int
    level: str
    engine: str
    median_s: float
    macs_per_s: float
    fraction_of_peak: float | None
    fraction_of_bound: float | None
    repack_s: float
    bytes_per_call: int
    speedup: float | None
    dots_speedup: float | None
    peers: tuple[PeerTime, ...]

    def best_dense(self) -> PeerTime | None:
        """Return the fastest peer that works on int8."""
        dense = [peer for peer in self.peers if peer.precision == "int8"]
        return min(dense, key=lambda peer: peer.ratio) if dense else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchTable:
    """All rows, the machine's peaks, that of one thread's dot products, and why a peer is absent (name -> reason)."""

    peaks: MachinePeaks
    peak_macs_per_s: float | None
    rows: tuple[BenchRow, ...]
    absent: dict[str, str]


def bench(
    *,
    shapes: Sequence[tuple[int, int]] = BENCH_SHAPES,
    densities: Sequence[float] = BENCH_DENSITIES,
    tokens: Sequence[int] = (128,),
    patterns: Sequence[str] = ("4x1",),
    threads: int = 1,
    level: Level | None = None,
    peers: Sequence[str] = (),
    rounds: int = 31,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> BenchTable:
    """Time the products of all combinations.

    Parameters
    ----------
    shapes : sequence of (rows, columns)      Weight matrices.
    densities : sequence of float             In (0, 1]; dense and N:M have their own.
    tokens : sequence of int                  Columns of activations at once.
    patterns : sequence of str                '4x1', '4x4' (aligned blocks), 'dense', or N:M as '2:4'.
    threads : int                             For every engine.
    peers : sequence of str                   Names in `peers.PEERS`.
    rounds : int                              Turns of each engine.
    progress : callable(done, total) | None   Called after each row.

    Raises
    ------
    ValueError                   If an argument is out of range or a peer's name is unknown.
    """
    check_threads(threads)
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, not {rounds}")
    for pattern in patterns:
        check_pattern(pattern)
    for density in densities:
        if not 0 < density <= 1:
            raise ValueError(f"density must be above 0 and at most 1, not {density}")
    for count in tokens:
        if count < 1:
            raise ValueError(f"tokens must be at least 1, not {count}")
    plan = [
        (pattern, rows, columns, count, density)
        for pattern in patterns
        for rows, columns in shapes
        for count in tokens
        for density in (densities if pattern in ("4x1", "4x4") else [1.0])
    ]
    result: list[BenchRow] = []
    absent: dict[str, str] = {}
    for pattern, rows, columns, count, density in plan:
        random = np.random.default_rng([seed, rows, columns, round(1000 * density)])
        row = _Row(pattern, rows, columns, count, density, threads, level, random)
        result.append(row.time(peers, absent, rounds))
        if progress is not None:
            progress(len(result), len(plan))
    return BenchTable(peaks=measure(threads=threads), peak_macs_per_s=dot_peak(), rows=tuple(result), absent=absent)


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of positive values."""
    return float(np.exp(np.mean(np.log(values))))


class _Row:
    """One combination, ready to be timed."""

    def __init__(
        self, pattern: str, rows: int, columns: int, tokens: int, density: float, threads: int,
        level: Level | None, random: np.random.Generator,
    ) -> None:  # fmt: skip
        mask = drawn_mask(pattern, rows, columns, density, random)
        # Normal weights whose greatest in a row is 127, as quantized layers have: without VNNI, pairs of great ones
        # take more quads.
        reals = random.normal(size=(rows, columns))
        matrix = np.rint(reals * (127 / np.abs(reals).max(axis=1, keepdims=True)))
        matrix[matrix == 0] = 1
        self.matrix = np.where(mask, matrix, 0).astype(np.int8)
        self.codes = random.integers(0, 256, (tokens, columns)).astype(np.uint8)
        self.pattern, self.threads = pattern, threads
        self.macs = int(mask.sum()) * tokens
        self.density = float(mask.mean())
        weights = drawn_weights(pattern, self.matrix, mask)
        ratio = np.full(rows, 1 / (16 * max(1.0, float(np.abs(self.matrix).sum(axis=1, dtype=np.int64).max()))))
        epilogue = Codes(requantizer=Requantizer.of(ratio, 128, 0, 255), interleaved=pattern != "4x1")
        self.product = Product(weights, epilogue, level=level)
        self.width = self.product.width(tokens)
        self.panels = self._packed()
        self.call = self.product.bind(self.panels, threads=threads)
        together = len(self.panels) if threads == 1 else 1
        self.tiled = self.product.tiled(self.width, together) is not None

    def _packed(self) -> NDArray[np.uint8]:
        panels = panels_of(self.codes, width=self.width)
        return panels if self.pattern == "4x1" else interleaved(panels)

    def time(self, peers: Sequence[str], absent: dict[str, str], rounds: int) -> BenchRow:
        """Let all engines take turns."""
        found: list[Peer] = []
        problem = Problem(weights=self.matrix, codes=self.codes, threads=self.threads)
        for name in peers:
            try:
                found += peers_of(name, problem)
            except ImportError as error:
                absent[name] = str(error)
        engines: list[Callable[[], Any]] = [
            self.call,
            *(peer.call for peer in found),
        ]
        if self.threads > 1:
            engines += [self.product.bind(self.panels), *(dot_chains(self.threads) or ())]
        chain = dot_chain()
        if chain is not None:
            engines.append(chain[0])
        clock = time.thread_time_ns if self.threads == 1 else time.perf_counter_ns
        calls = [_calls(engine) for engine in engines]
        turns: list[list[float]] = []
        for _ in range(rounds):
            turn = []
            for engine, count in zip(engines, calls, strict=True):
                engine()  # what the others left in the caches is not what a turn is about
                begin = clock()
                for _ in range(count):
                    engine()
                turn.append(max(clock() - begin, 1) * 1e-9 / count)
            turns.append(turn)
        table, one = np.array(turns), 1 + len(found)
        ours = statistics.median(table[:, 0])
        fraction = None
        if chain is not None:
            fraction = float(np.median(self.macs / table[:, 0] * table[:, -1] / chain[1])) / self.threads
        allowed = _ALLOWED.get((self.pattern != "4x1", self.width))
        if self.tiled:
            allowed = _TILES * self.density
        elif isinstance(self.product.weights, MaskedWeights) and allowed is not None:
            allowed *= self.density
        begin = time.thread_time_ns()
        self._packed()
        repack = (time.thread_time_ns() - begin) * 1e-9
        weights, (rows, columns) = self.product.weights, self.matrix.shape
        return BenchRow(
            pattern=self.pattern,
            rows=rows,
            columns=columns,
            tokens=len(self.codes),
            density=self.density,
            threads=self.threads,
            level=self.product.level.value,
            engine="tiles" if self.tiled else "quads",
            median_s=ours,
            macs_per_s=self.macs / ours,
            fraction_of_peak=fraction,
            fraction_of_bound=None if fraction is None or allowed is None else fraction / allowed,
            repack_s=repack,
            bytes_per_call=weights.nbytes + self.panels.nbytes + self.call.out.nbytes,
            speedup=float(np.median(table[:, one] / table[:, 0])) if self.threads > 1 else None,
            dots_speedup=None
            if self.threads == 1 or chain is None
            else float(np.median(table[:, one + 1] / table[:, one + 2])),
            peers=tuple(
                PeerTime(
                    name=peer.name,
                    precision=peer.precision,
                    median_s=float(np.median(table[:, i])),
                    ratio=float(np.median(table[:, i] / table[:, 0])),
                )
                for i, peer in enumerate(found, 1)
            ),
        )


def _calls(engine: Callable[[], Any]) -> int:
    """Return how many calls make a turn of 200 microseconds at least."""
    for _ in range(3):
        engine()
    begin = time.perf_counter()
    engine()
    return max(1, round(200e-6 / max(time.perf_counter() - begin, 1e-7)))
