"""Run a compressed model on this machine's kernels: by a plan where there is one, else layer by layer."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparsefab.errors import LayoutError, ModelError, StorageError
from sparsefab.models.compress import CompressedModel, Recipe
from sparsefab.models.evaluate import Slice, calibrate, task_for
from sparsefab.models.evaluate.encoder import calibrate_encoder
from sparsefab.models.evaluate.evaluation import Progress
from sparsefab.models.evaluate.tasks import ImageTask, Task, TextTask
from sparsefab.models.tokenize import load_tokenizer
from sparsefab.workload import DEFAULT_CONTEXT

if TYPE_CHECKING:
    from sparsefab.kernels_cpu.decoder import DecoderPlan
    from sparsefab.kernels_cpu.inference import Report
    from sparsefab.kernels_cpu.onnx_agreement import Agreement
    from sparsefab.kernels_cpu.plan import EncoderPlan
    from sparsefab.session.session import Session

__all__ = ["Ran", "run"]

_PROMPT_TOKENS = 32  # of the evaluation data, where a text model is run without a prompt
_COMPARED = 8  # batches of an encoder's calibration data that ONNX Runtime runs too


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ran:
    """A compressed model run on this machine's kernels.

    unit : str                  What was counted: token, image or embedding.
    prompt, text : str          Of a language model: what it was given, and what it added.
    metric, value               Of every other model, over the samples that ran.
    why_no_plan : str           Why the model ran layer by layer; empty where a plan ran it as a whole.
    runtime : Agreement | None  A checked plan against ONNX Runtime on the same quantized weights.
    why_no_runtime : str        Why that comparison was not made; empty where it was, or nothing was to be checked.
    """

    compressed: CompressedModel
    unit: str
    report: "Report"
    prompt: str = ""
    text: str = ""
    metric: str = ""
    value: float | None = None
    why_no_plan: str = ""
    runtime: "Agreement | None" = None
    why_no_runtime: str = ""


def run(
    self: "Session",
    model: str,
    recipe: str | Recipe = "w8",
    *,
    prompt: str | None = None,
    tokens: int = 64,
    samples: int | None = None,
    data: Path | None = None,
    threads: int = 1,
    check: bool = False,
    progress: Progress | None = None,
) -> Ran:
    """Run a compressed model on the CPU kernels: greedy text, or a metric over images or documents.

    Parameters
    ----------
    prompt : str | None         Text to continue; None takes the beginning of the evaluation data.
    tokens : int                Of text to add.
    samples : int | None        Images or documents; None takes all.
    data : Path | None          Samples of the user's own, as in `evaluate`.
    check : bool                Compare outputs with the bit-true runner's: the bits, or within the report's bound; and
                                a plan's with ONNX Runtime's on the same quantized weights, where that is installed.

    Raises
    ------
    ModelError                  If there is no data for a model that needs it.
    """
    from sparsefab.kernels_cpu.generation import continue_text
    from sparsefab.kernels_cpu.inference import Engine, generate
    from sparsefab.kernels_cpu.onnx_agreement import compare_decoder, compare_encoder

    source = self.source(model)
    loaded = source.load()
    text = loaded.workload.family == "decoder"
    compressed = self.compress(loaded, recipe)
    task = None
    if not text or prompt is None or compressed.uncalibrated:
        task = task_for(source, loaded, self.cache_dir, Slice(samples=None if text else samples), data)
    if task is not None and compressed.uncalibrated:
        compressed = calibrate(compressed, task.calibration_feeds())
    decoder, reason = _decoder(compressed, threads) if text else (None, "")
    plan, reason = (None, reason) if text else _plan(compressed, task, threads)
    engine = Engine(compressed, threads=threads, check=check, plan=plan)
    if task is not None and not text:
        value = task.metric(task.records(engine, progress))
        unit = "image" if isinstance(task, ImageTask) else "embedding"
        batches = list(itertools.islice(task.calibration_feeds(), _COMPARED)) if check and plan is not None else []
        runtime, why = _against_runtime(lambda: compare_encoder(plan, batches)) if plan and batches else (None, "")
        return Ran(
            compressed=compressed,
            unit=unit,
            report=engine.report(),
            metric=task.protocol.metric,
            value=value,
            why_no_plan=reason,
            runtime=runtime,
            why_no_runtime=why,
        )
    tokenizer = load_tokenizer(source.file)
    if isinstance(task, TextTask) and prompt is None:
        prompt = tokenizer.decode([int(code) for code in task.tokens[0, :_PROMPT_TOKENS]])
    given = prompt or ""
    ids = tokenizer.encode(given)
    if decoder is not None:
        added, report = continue_text(
            decoder, ids, tokens=tokens, compressed=compressed, check=check, progress=progress
        )
        read = np.array([*ids, *added])[: decoder.context]
        at_once = min(len(ids), len(read))
    else:
        context = int(loaded.metadata.get("context", DEFAULT_CONTEXT))
        added = generate(engine, ids, tokens=tokens, context=context, progress=progress)
        report = engine.report()
    runtime, why = None, ""
    if decoder is not None and check:
        runtime, why = _against_runtime(lambda: compare_decoder(decoder, compressed, read, at_once))
    return Ran(
        compressed=compressed,
        unit="token",
        report=report,
        prompt=given,
        text=tokenizer.decode(added),
        why_no_plan=reason,
        runtime=runtime,
        why_no_runtime=why,
    )


def _against_runtime(compare: "Callable[[], Agreement]") -> "tuple[Agreement | None, str]":
    """A comparison with ONNX Runtime, or why there is none."""
    try:
        return compare(), ""
    except (ImportError, ModelError, StorageError) as error:
        return None, str(error)


def _plan(compressed: CompressedModel, task: Task | None, threads: int) -> "tuple[EncoderPlan | None, str]":
    """The plan of an encoder, or why there is none."""
    from sparsefab.kernels_cpu.plan import EncoderPlan

    family = compressed.model.workload.family
    if family != "encoder" or task is None:
        return None, f"only BERT-type encoders have a plan, this is a {family}"
    try:
        return EncoderPlan(calibrate_encoder(compressed, task.calibration_feeds()), threads=threads), ""
    except (LayoutError, ModelError) as error:
        return None, str(error)


def _decoder(compressed: CompressedModel, threads: int) -> "tuple[DecoderPlan | None, str]":
    """The plan of a decoder, or why there is none."""
    from sparsefab.kernels_cpu.decoder import DecoderPlan

    try:
        return DecoderPlan(compressed, threads=threads), ""
    except (LayoutError, ModelError) as error:
        return None, str(error)
