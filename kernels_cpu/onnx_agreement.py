"""Plans compared with ONNX Runtime on the same quantized weights: an arithmetic that others wrote.

    decoder     every linear layer in exact integers (`models.onnx_integers`), norms, rotations and attention by the
                runtime's own operators
    encoder     the arithmetic of `models.evaluate.encoder`, integers in float64 (`encoder_onnx`, form 'meaning')

Graphs run as they are written, without the runtime's rewriting, which would merge scales. So all that is left apart is
floats added up in another order: where that takes a value over the middle between two codes, the other code is taken,
and values after it follow, as far as the model lets them. Two bounds hold, one for all outputs, one for their median.

Decoders: of the range of a token's logits, `decoder.BOUND` and USUAL. A relative change of 1e-6 of the embeddings alone
takes SmolLM2-135M's logits in ONNX Runtime 0.08 to 0.115 of it away at most, 0.010 to 0.015 at the median.
Encoders: of an embedding's length. Most have no code that turns, and are within ENCODER_USUAL, float32's accuracy; no
other one may be further off than the rounding to int8 takes it from float, 0.10 to 0.12 for MiniLM-L6.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.kernels_cpu.decoder import BOUND, DecoderPlan
from sparsefab.kernels_cpu.encoder_onnx import encoder_onnx
from sparsefab.kernels_cpu.plan import EncoderPlan
from sparsefab.models.compress import CompressedModel
from sparsefab.models.onnx_export import onnx_bytes

__all__ = ["Agreement", "compare_decoder", "compare_encoder"]

USUAL = 0.03
ENCODER_BOUND, ENCODER_USUAL = 0.1, 1e-4

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How near a plan's outputs are to ONNX Runtime's.

    version : str                Of ONNX Runtime.
    of : str                     What distances are shares of.
    compared : int               Logits, or embeddings.
    differing : int              Of these, the ones further off than `bound`.
    farthest, median : float     How far they are off.
    usual : float                What the median must not exceed.
    other_choices : int          Tokens of a text whose greatest logit is another.
    """

    version: str
    of: str
    compared: int
    differing: int
    farthest: float
    median: float
    bound: float
    usual: float
    other_choices: int = 0

    @property
    def holds(self) -> bool:
        """Whether both bounds hold."""
        return not self.differing and self.median <= self.usual

    @classmethod
    def within(
        cls, apart: Floats, bound: float, usual: float, *, version: str, of: str, other_choices: int = 0
    ) -> "Agreement":
        """Sum up distances; one that is NaN is beyond every bound."""
        return cls(
            version=version,
            of=of,
            compared=apart.size,
            differing=int(np.count_nonzero(~(apart <= bound))),
            farthest=float(apart.max()),
            median=float(np.median(apart)),
            bound=bound,
            usual=usual,
            other_choices=other_choices,
        )


def compare_decoder(plan: DecoderPlan, compressed: CompressedModel, ids: NDArray[np.integer], prompt: int) -> Agreement:
    """Read a text as a decoder does, and compare the logits after the prompt and after each further token.

    Parameters
    ----------
    plan : DecoderPlan           Of `compressed`; forgets what it read.
    ids : integers[n]            At most its context.
    prompt : int                 Tokens that are read at once, at least one; the others follow one by one.

    Raises
    ------
    ImportError                  If ONNX Runtime is not installed.
    ModelError                   If a layer of the model has no form in ONNX, or the runtime does not run the graph; the
                                 message says which.
    """
    runtime = _runtime()
    tensors = {name: layer.tensor for name, layer in compressed.layers.items()}
    dynamic = {name: layer.activations for name, layer in compressed.layers.items() if layer.dynamic}
    content, notes = onnx_bytes(compressed.model, tensors, dynamic=dynamic)
    if notes:
        raise ModelError(f"layer {notes[0][0]} has no form in ONNX: {notes[0][1]}")
    run = _session(runtime, content, "logits")
    expected = run({"input_ids": np.asarray(ids, np.int64)[None]})[0, prompt - 1 :]
    plan.forget()
    found = [plan.feed(ids[:prompt]), *(plan.feed(ids[at : at + 1]) for at in range(prompt, len(ids)))]
    plan.forget()
    logits = np.stack(found)
    apart = np.abs(logits - expected) / np.ptp(expected, axis=1, keepdims=True)
    return Agreement.within(
        apart, BOUND, USUAL, version=runtime.__version__, of="a token's range",
        other_choices=int(np.count_nonzero(logits.argmax(axis=1) != expected.argmax(axis=1))),
    )  # fmt: skip


def compare_encoder(plan: EncoderPlan, batches: Sequence[Mapping[str, NDArray[Any]]]) -> Agreement:
    """Compare the embeddings of some batches, at least one.

    Raises
    ------
    ImportError                  If ONNX Runtime is not installed.
    ModelError                   If the runtime does not run the graph.
    """
    runtime = _runtime()
    run = _session(runtime, encoder_onnx(plan.source, "meaning").SerializeToString(), "embedding")
    found = np.concatenate([plan.embed(feeds) for feeds in batches])
    expected = np.concatenate([run(feeds) for feeds in batches])
    apart = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return Agreement.within(
        apart, ENCODER_BOUND, ENCODER_USUAL, version=runtime.__version__, of="an embedding's length"
    )


def _runtime() -> Any:
    if importlib.util.find_spec("onnxruntime") is None:
        raise ImportError("ONNX Runtime is not installed: pip install sparsefab[peers]")
    return importlib.import_module("onnxruntime")


def _session(runtime: Any, content: bytes, output: str) -> Callable[[Mapping[str, NDArray[Any]]], Floats]:
    """Return a function from inputs, by name, to an output."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # whatever it raises, it is the runtime's: an old one lacks operators
        reason = str(error).splitlines()[0]
        raise ModelError(f"ONNX Runtime {runtime.__version__} does not run the graph: {reason}") from error

    def run(feeds: Mapping[str, NDArray[Any]]) -> Floats:
        names = [value.name for value in session.get_inputs()]
        result: Floats = session.run([output], {name: np.asarray(feeds[name], np.int64) for name in names})[0]
        return result

    return run
