"""Whole encoders timed beside other runtimes, in turns: microseconds a token, memory, and where our time goes.

    table = bench_encoder(source, label="minilm-l6", sequences=(32, 128), batches=(1, 8))

Every runtime gets the same weights, zeros included, and random token ids, none masked; each runs once untimed before
each time, since what the one before it left in the caches is not what a turn is about.  ONNX Runtime runs its graphs as
they are and, where its transformer optimizer is installed, fused by that; DeepSparse runs two of them in a process of
its own, made for each shape; of a precision the fastest counts.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsefab.kernels_cpu.bench import geometric_mean
from sparsefab.kernels_cpu.encoder_peers import (
    ENCODER_PEERS,
    EncoderPeer,
    deepsparse_peers,
    onnxruntime_peers,
    timed,
)
from sparsefab.kernels_cpu.figures import Figure
from sparsefab.kernels_cpu.footprint import Footprint, footprint
from sparsefab.kernels_cpu.plan import EncoderPlan
from sparsefab.models.compress import CompressedModel, Recipe, Rule, compress
from sparsefab.models.evaluate.calibrate import calibrate
from sparsefab.models.evaluate.encoder import QuantizedEncoder, calibrate_encoder
from sparsefab.models.evaluate.encoder_graph import find_encoder
from sparsefab.models.families.bert import BertConfig
from sparsefab.models.families.random_bert import random_bert
from sparsefab.models.model import Model

__all__ = [
    "GOALS",
    "SHAPES",
    "EncoderRow",
    "EncoderTable",
    "PeerTime",
    "bench_encoder",
    "random_encoder",
    "sparse_encoder",
]

Feeds = dict[str, NDArray[np.int64]]

# hidden, inner, layers, heads
SHAPES = {
    "bert-tiny": (128, 512, 2, 2),
    "minilm-l3": (384, 1536, 3, 12),
    "minilm-l6": (384, 1536, 6, 12),
    "bert-base": (768, 3072, 12, 12),
}
# By a peer's precision, the goals for its time over ours: geometric mean over the rows, and each of them.
GOALS = {"int8": (4.0, 2.5), "fp32": (7.0, 5.0), "sparse int8": (2.5, 1.5)}
_VOCABULARY = 30522
_CONTEXT = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTime:
    """Another runtime: microseconds a token, and the median over rounds of its time over ours."""

    name: str
    precision: str
    us_per_token: float
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderRow:
    """One sequence length and batch."""

    sequence: int
    batch: int
    us_per_token: float
    buffer_bytes: int
    parts: dict[str, float]
    peers: tuple[PeerTime, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderTable:
    """All rows of a run; weights are pruned and calibrated for times, not for results.

    level : instruction set.  clock : what times are of, CPU or wall.
    weight_bytes : of the plan.  graph_bytes : of each ONNX graph, whose weights are stored dense.
    footprint : memory and compile times in processes of their own; None where not asked for.
    absent : runtime -> why it was not timed.
    """

    label: str
    level: str
    density: float
    threads: int
    clock: str
    weight_bytes: int
    graph_bytes: dict[str, int]
    footprint: Footprint | None
    rows: tuple[EncoderRow, ...]
    absent: dict[str, str] = field(default_factory=dict)

    def best(self, precision: str) -> list[float]:
        """Of each row, the ratio of the fastest peer of a precision; rows without one are left out."""
        found = ([peer.ratio for peer in row.peers if peer.precision == precision] for row in self.rows)
        return [min(ratios) for ratios in found if ratios]

    def means(self) -> dict[str, float]:
        """By precision, the geometric mean of the fastest peer's time over ours, and the least."""
        found = {}
        for precision in GOALS:
            if ratios := self.best(precision):
                found[precision], found[f"{precision}, least"] = geometric_mean(ratios), min(ratios)
        return found

    def figures(self) -> tuple[Figure, ...]:
        """Return what encoders at density 0.2 are held to."""
        means, found = self.means(), []
        for precision, (mean, least) in GOALS.items():
            name = f"time of the fastest {precision} peer over ours"
            found += [
                Figure(name=f"{name}, geometric mean", goal=mean, reached=means.get(precision)),
                Figure(name=f"{name}, least", goal=least, reached=means.get(f"{precision}, least")),
            ]
        taken = self.footprint
        cold, cached = (None, None) if taken is None else (taken.compile_cold_s, taken.compile_cached_s)
        smallest = min(taken.graph_resident_bytes.values(), default=None) if taken is not None else None
        held = self.weight_bytes + max(row.buffer_bytes for row in self.rows)
        return (
            *found,
            Figure(name="compiling all kernels, s", goal=20, reached=cold, at_most=True),
            Figure(name="loading all kernels, s", goal=2, reached=cached, at_most=True),
            Figure(
                name="weights and buffers, of the least that ONNX Runtime takes", goal=1,
                reached=held / smallest if smallest else None, at_most=True,
            ),
        )  # fmt: skip


def random_encoder(shape: str, seed: int = 0) -> Model:
    """A BERT-type encoder with random weights: good for times, not for results.

    Raises
    ------
    ValueError                   If the shape is unknown.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}, not {shape!r}")
    width, inner, layers, heads = SHAPES[shape]
    config = BertConfig(
        hidden_size=width,
        intermediate_size=inner,
        layers=layers,
        heads=heads,
        vocabulary_size=_VOCABULARY,
        context=_CONTEXT,
        layer_norm_eps=1e-12,
        gelu="none",
    )
    return random_bert(shape, config, seed=seed)


def sparse_encoder(model: Model, density: float, seed: int = 0) -> QuantizedEncoder:
    """Prune to 4x1 blocks, quantize to 8 bits, and calibrate on random tokens: good for times, not for results."""
    if not 0 < density <= 1:
        raise ValueError(f"density must be above 0 and at most 1, not {density}")
    pattern = "dense" if density == 1 else f"4x1@{density:g}"
    recipe = Recipe(name=f"w8-4x1-{100 * density:g}", rules=(Rule(weights="int8sym", pattern=pattern),))
    vocabulary = len(find_encoder(model).words)
    feeds = [_feeds(1, 64, vocabulary, seed + turn) for turn in range(4)]
    compressed: CompressedModel = calibrate(compress(model, recipe), feeds)
    return calibrate_encoder(compressed, feeds)


def bench_encoder(
    source: QuantizedEncoder,
    *,
    label: str,
    density: float,
    sequences: Sequence[int] = (32, 128, 384),
    batches: Sequence[int] = (1, 8),
    threads: int = 1,
    peers: Sequence[str] = ("onnxruntime",),
    cache: Path | None = None,
    rounds: int = 15,
    seed: int = 0,
    apart: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> EncoderTable:
    """Time a plan and its peers in turns; a figure is a median, a ratio the median of ratios.

    One thread is timed by the process's CPU time, which other work on the machine does not lengthen; more by wall time.

    Parameters
    ----------
    apart : bool                 Measure memory and compile times too, in processes of their own, at the most tokens.

    Raises
    ------
    ValueError                   If a peer is unknown, a sequence longer than the encoder's context, or there is nothing
                                 to do.
    """
    if unknown := sorted(set(peers) - set(ENCODER_PEERS)):
        raise ValueError(f"peer must be one of {', '.join(ENCODER_PEERS)}, not {unknown[0]!r}")
    if "deepsparse" in peers and cache is None:
        raise ValueError("deepsparse needs a folder for its environment: cache must not be None")
    if not sequences or not batches or rounds < 1:
        raise ValueError("sequences and batches must not be empty, and rounds at least 1")
    if (longest := max(sequences)) > source.graph.context:
        raise ValueError(f"a sequence may have {source.graph.context} tokens, not {longest}")
    plan = EncoderPlan(source, threads=threads)
    vocabulary = len(source.graph.words)
    absent: dict[str, str] = {}
    clock = time.process_time if threads == 1 else time.perf_counter
    here: list[EncoderPeer] = []
    graphs: dict[str, bytes] = {}
    if "onnxruntime" in peers:
        here, graphs = onnxruntime_peers(source, threads, clock, absent)
    ours = EncoderPeer(name="plan", precision="int8", seconds=timed(plan.embed, clock))
    rows = []
    points = [(sequence, batch) for sequence in sequences for batch in batches]
    for done, (sequence, batch) in enumerate(points):
        theirs: list[EncoderPeer] = []
        close: Callable[[], None] | None = None
        if "deepsparse" in peers and cache is not None and "deepsparse" not in absent:
            try:
                theirs, close = deepsparse_peers(
                    source, batch=batch, sequence=sequence, threads=threads, cache=cache, cpu=threads == 1
                )
            except ImportError as error:
                absent["deepsparse"] = str(error)
        try:
            rows.append(_row(plan, [ours, *here, *theirs], _feeds(batch, sequence, vocabulary, seed), rounds))
        finally:
            if close is not None:
                close()
        if progress is not None:
            progress(done + 1, len(points))
    taken = None
    if apart:
        sequence, batch = max(points, key=lambda point: point[0] * point[1])
        taken = footprint(source, graphs, batch=batch, sequence=sequence, threads=threads)
    return EncoderTable(
        label=label,
        level=plan.level.value,
        density=density,
        threads=threads,
        clock="CPU time" if threads == 1 else "wall time",
        weight_bytes=plan.weight_bytes,
        graph_bytes={name: len(content) for name, content in graphs.items()},
        footprint=taken,
        rows=tuple(rows),
        absent=absent,
    )


def _row(plan: EncoderPlan, every: list[EncoderPeer], feeds: Feeds, rounds: int) -> EncoderRow:
    """Time all in turns, ours first."""
    times = [[0.0] * rounds for _ in every]
    for peer in every:
        peer.seconds(feeds)
    for turn in range(rounds):
        for peer, taken in zip(every, times, strict=True):
            taken[turn] = peer.seconds(feeds)
    batch, sequence = feeds["input_ids"].shape
    unit = 1e6 / (batch * sequence)
    try:
        parts = plan.profile(feeds)
    except ValueError:  # no counter to be read here
        parts = {}
    return EncoderRow(
        sequence=sequence,
        batch=batch,
        us_per_token=statistics.median(times[0]) * unit,
        buffer_bytes=plan.buffer_bytes,
        parts=parts,
        peers=tuple(
            PeerTime(
                name=peer.name,
                precision=peer.precision,
                us_per_token=statistics.median(taken) * unit,
                ratio=statistics.median(other / own for other, own in zip(taken, times[0], strict=True)),
            )
            for peer, taken in zip(every[1:], times[1:], strict=True)
        ),
    )


def _feeds(batch: int, sequence: int, vocabulary: int, seed: int) -> Feeds:
    ids = np.random.default_rng(seed).integers(0, vocabulary, (batch, sequence))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
