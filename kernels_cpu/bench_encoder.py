"""Whole encoders timed beside other runtimes, in turns: microseconds a token, memory, and where our time goes.

    table = bench_encoder(source, label="minilm-l6", sequences=(32, 128), batches=(1, 8))

Every runtime gets the same weights, zeros included, and the same token ids, no token masked.  ONNX Runtime runs its
graphs as they are and, where its transformer optimizer is installed, fused by that; of a precision the fastest counts.
"""

import importlib
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.kernels_cpu.encoder_onnx import Form, encoder_onnx
from sparsefab.kernels_cpu.plan import EncoderPlan
from sparsefab.models.compress import CompressedModel, Recipe, Rule, compress
from sparsefab.models.evaluate.calibrate import calibrate
from sparsefab.models.evaluate.encoder import QuantizedEncoder, calibrate_encoder
from sparsefab.models.evaluate.encoder_graph import find_encoder
from sparsefab.models.families.bert import BertConfig
from sparsefab.models.families.random_bert import random_bert
from sparsefab.models.model import Model

__all__ = ["SHAPES", "EncoderRow", "EncoderTable", "PeerTime", "bench_encoder", "random_encoder", "sparse_encoder"]

Feeds = dict[str, NDArray[np.int64]]

# hidden, inner, layers, heads
SHAPES = {
    "bert-tiny": (128, 512, 2, 2),
    "minilm-l3": (384, 1536, 3, 12),
    "minilm-l6": (384, 1536, 6, 12),
    "bert-base": (768, 3072, 12, 12),
}
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
    """All rows of a run.

    level : instruction set.  pack_s, compile_s : making the plan, and its first call.
    weight_bytes : of the plan.  graph_bytes : of each ONNX graph, whose weights are stored dense.
    absent : runtime -> why it was not timed.
    """

    label: str
    level: str
    density: float
    threads: int
    pack_s: float
    compile_s: float
    weight_bytes: int
    graph_bytes: dict[str, int]
    rows: tuple[EncoderRow, ...]
    absent: dict[str, str] = field(default_factory=dict)

    def best(self, precision: str) -> list[float]:
        """Of each row, the ratio of the fastest peer of a precision; rows without one are left out."""
        found = ([peer.ratio for peer in row.peers if peer.precision == precision] for row in self.rows)
        return [min(ratios) for ratios in found if ratios]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runner:
    """Something that computes embeddings of feeds."""

    name: str
    precision: str
    call: Callable[[Feeds], Any]


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
    rounds: int = 15,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> EncoderTable:
    """Time a plan and its peers in turns; a figure is a median, a ratio the median of ratios.

    One thread is timed by the process's CPU time, which other work on the machine does not lengthen; more by wall time.

    Raises
    ------
    ValueError                   If a peer is unknown, a sequence longer than the encoder's context, or there is nothing
                                 to do.
    """
    if unknown := sorted(set(peers) - {"onnxruntime"}):
        raise ValueError(f"peer must be onnxruntime, not {unknown[0]!r}")
    if not sequences or not batches or rounds < 1:
        raise ValueError("sequences and batches must not be empty, and rounds at least 1")
    if (longest := max(sequences)) > source.graph.context:
        raise ValueError(f"a sequence may have {source.graph.context} tokens, not {longest}")
    begin = time.perf_counter()
    plan = EncoderPlan(source, threads=threads)
    packed = time.perf_counter()
    vocabulary = len(source.graph.words)
    plan.embed(_feeds(1, 16, vocabulary, seed))
    compiled = time.perf_counter()
    absent: dict[str, str] = {}
    runners, graph_bytes = _onnxruntime(source, threads, absent) if peers else ([], {})
    rows = []
    points = [(sequence, batch) for sequence in sequences for batch in batches]
    for done, (sequence, batch) in enumerate(points):
        feeds = _feeds(batch, sequence, vocabulary, seed)
        rows.append(_row(plan, runners, feeds, rounds, time.process_time if threads == 1 else time.perf_counter))
        if progress is not None:
            progress(done + 1, len(points))
    return EncoderTable(
        label=label,
        level=plan.level.value,
        density=density,
        threads=threads,
        pack_s=packed - begin,
        compile_s=compiled - packed,
        weight_bytes=plan.weight_bytes,
        graph_bytes=graph_bytes,
        rows=tuple(rows),
        absent=absent,
    )


def _row(
    plan: EncoderPlan, runners: list[_Runner], feeds: Feeds, rounds: int, clock: Callable[[], float]
) -> EncoderRow:
    ours = _Runner(name="plan", precision="int8", call=plan.embed)
    every, times = [ours, *runners], [[0.0] * rounds for _ in range(1 + len(runners))]
    for runner in every:
        runner.call(feeds)
    for turn in range(rounds):
        for runner, taken in zip(every, times, strict=True):
            begin = clock()
            runner.call(feeds)
            taken[turn] = clock() - begin
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
                name=runner.name,
                precision=runner.precision,
                us_per_token=statistics.median(taken) * unit,
                ratio=statistics.median(theirs / own for theirs, own in zip(taken, times[0], strict=True)),
            )
            for runner, taken in zip(runners, times[1:], strict=True)
        ),
    )


def _onnxruntime(
    source: QuantizedEncoder, threads: int, absent: dict[str, str]
) -> tuple[list[_Runner], dict[str, int]]:
    if importlib.util.find_spec("onnxruntime") is None:
        absent["onnxruntime"] = "it is not installed: pip install onnxruntime"
        return [], {}
    runtime = importlib.import_module("onnxruntime")
    runners: list[_Runner] = []
    sizes: dict[str, int] = {}
    forms: tuple[tuple[Form, str], ...] = (("float", "fp32"), ("dynamic", "int8"), ("static", "int8"))
    for form, precision in forms:
        content = encoder_onnx(source, form).SerializeToString()
        sizes[form] = len(content)
        runners.append(_session(runtime, content, threads, f"onnxruntime {runtime.__version__} {form}", precision))
    try:
        fused = _fused(source)
    except Exception as error:  # the optimizer is a peer's: whatever it raises, it is absent
        absent["onnxruntime's transformer optimizer"] = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        for name, precision, content in fused:
            runners.append(_session(runtime, content, threads, f"onnxruntime {runtime.__version__} {name}", precision))
    return runners, sizes


def _fused(source: QuantizedEncoder) -> list[tuple[str, str, bytes]]:
    """The float graph fused by ONNX Runtime's transformer optimizer, and the same with dynamic quantization."""
    optimizer = importlib.import_module("onnxruntime.transformers.optimizer")
    quantization = importlib.import_module("onnxruntime.quantization")
    onnx = importlib.import_module("onnx")
    with tempfile.TemporaryDirectory() as folder:
        plain, fused, narrow = (Path(folder) / f"{name}.onnx" for name in ("plain", "fused", "narrow"))
        onnx.save(encoder_onnx(source, "float"), plain)
        heads = source.graph.blocks[0].heads
        model = optimizer.optimize_model(
            str(plain), model_type="bert", num_heads=heads, hidden_size=source.graph.width, opt_level=0
        )
        model.save_model_to_file(str(fused))
        options = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # its shape inference does not know fused operators
        quantization.quantize_dynamic(fused, narrow, per_channel=True, extra_options=options)
        return [("fused", "fp32", fused.read_bytes()), ("fused dynamic", "int8", narrow.read_bytes())]


def _session(runtime: Any, content: bytes, threads: int, name: str, precision: str) -> _Runner:
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return _Runner(name=name, precision=precision, call=lambda feeds: session.run(["embedding"], feeds))


def _feeds(batch: int, sequence: int, vocabulary: int, seed: int) -> Feeds:
    ids = np.random.default_rng(seed).integers(0, vocabulary, (batch, sequence))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
