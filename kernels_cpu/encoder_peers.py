"""Other runtimes with the same quantized encoder: ONNX Runtime in this process, DeepSparse in one of its own.

Weights, zeros included, are the same for all; each runtime gets every form of graph that it may run fastest.
"""

import importlib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sparsefab.kernels_cpu.encoder_onnx import Form, encoder_onnx
from sparsefab.kernels_cpu.peer_processes import DeepSparse
from sparsefab.models.evaluate.encoder import QuantizedEncoder

__all__ = ["ENCODER_PEERS", "EncoderPeer", "deepsparse_peers", "onnxruntime_peers"]

ENCODER_PEERS = ("onnxruntime", "deepsparse")
_FOR_DEEPSPARSE: tuple[Form, ...] = ("static", "integer")

Feeds = Mapping[str, NDArray[Any]]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderPeer:
    """A way to compute embeddings; `seconds(feeds)` does so once and returns the time it took."""

    name: str
    precision: str
    seconds: Callable[[Feeds], float]


def timed(call: Callable[[Feeds], Any], clock: Clock) -> Callable[[Feeds], float]:
    """Return a function that calls once for the caches and once more, and says how long the second call took."""

    def seconds(feeds: Feeds) -> float:
        call(feeds)
        begin = clock()
        call(feeds)
        return clock() - begin

    return seconds


def onnxruntime_peers(
    source: QuantizedEncoder, threads: int, clock: Clock, absent: dict[str, str]
) -> tuple[list[EncoderPeer], dict[str, bytes]]:
    """Return ONNX Runtime's peers and the graph of each, by its name; what cannot be had goes to `absent`."""
    if importlib.util.find_spec("onnxruntime") is None:
        absent["onnxruntime"] = "it is not installed: pip install onnxruntime"
        return [], {}
    runtime = importlib.import_module("onnxruntime")
    forms: tuple[tuple[Form, str], ...] = (("float", "fp32"), ("dynamic", "int8"), ("static", "int8"))
    graphs: list[tuple[str, str, bytes]] = [
        (form, precision, encoder_onnx(source, form).SerializeToString()) for form, precision in forms
    ]
    try:
        graphs += _fused(source)
    except Exception as error:  # the optimizer is a peer's: whatever it raises, it is absent
        absent["onnxruntime's transformer optimizer"] = f"{type(error).__name__}: {error}".splitlines()[0]
    runners = [
        _session(runtime, content, threads, clock, f"onnxruntime {runtime.__version__} {name}", precision)
        for name, precision, content in graphs
    ]
    return runners, {runner.name: content for runner, (_, _, content) in zip(runners, graphs, strict=True)}


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


def _session(runtime: Any, content: bytes, threads: int, clock: Clock, name: str, precision: str) -> EncoderPeer:
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return EncoderPeer(
        name=name, precision=precision, seconds=timed(lambda feeds: session.run(["embedding"], dict(feeds)), clock)
    )


def deepsparse_peers(
    source: QuantizedEncoder,
    *,
    batch: int,
    sequence: int,
    threads: int,
    cache: Path,
    cpu: bool,
) -> tuple[list[EncoderPeer], Callable[[], None]]:
    """Return DeepSparse's peers for one shape, and what ends its process.

    Parameters
    ----------
    cpu : bool                   Time by the process's CPU time, not by wall time.

    Raises
    ------
    ImportError                  If it, or onnx to write its graphs, cannot be had.
    """
    onnx = importlib.import_module("onnx")
    (cache / "peers").mkdir(parents=True, exist_ok=True)
    graphs = [cache / "peers" / f"{os.getpid()}-{form}.onnx" for form in _FOR_DEEPSPARSE]
    for path, form in zip(graphs, _FOR_DEEPSPARSE, strict=True):
        onnx.save(encoder_onnx(source, form, batch=batch, sequence=sequence), str(path))
    shape = [batch, sequence]
    inputs = [{"shape": shape, "integers": [0, len(source.graph.words)]}, {"shape": shape, "integers": [1, 2]}]
    engine = DeepSparse(graphs, inputs, threads, cache)

    def seconds(index: int) -> Callable[[Feeds], float]:
        return lambda feeds: engine.seconds(index, cpu=cpu)

    peers = [
        EncoderPeer(name=f"{engine.name} {form}", precision="sparse int8", seconds=seconds(index))
        for index, form in enumerate(_FOR_DEEPSPARSE)
    ]
    return peers, engine.close
