"""The data of a task: that of a catalogue model, or a user's own file."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.evaluate.tasks import (
    EvaluationProtocol,
    Feeds,
    ImageTask,
    SimilarityTask,
    Task,
    TextTask,
)
from sparsefab.models.model import Model
from sparsefab.models.source import Source
from sparsefab.models.tokenize import TextTokenizer, load_tokenizer
from sparsefab.models.zoo import (
    calibration_images,
    calibration_text,
    evaluation_images,
    evaluation_text,
    get,
    similarity_set,
)
from sparsefab.models.zoo.texts import SimilaritySet

__all__ = ["Slice", "task_for"]

MIN_DOCUMENTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """How much of a task's data is used; None takes the default.

    windows, context : of a text; default its whole for char-llama, 64 x 512 tokens else.
    samples : images or documents; default all.
    """

    windows: int | None = None
    context: int | None = None
    samples: int | None = None

    def __post_init__(self) -> None:
        for name, value, least in (
            ("windows", self.windows, 1),
            ("context", self.context, 2),
            ("samples", self.samples, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")


def task_for(source: Source, model: Model, cache_dir: Path, part: Slice, data: Path | None = None) -> Task:
    """Make the task of a model.

    Parameters
    ----------
    data : Path | None          A user's own data: a UTF-8 text for a language model with a tokenizer beside it, or an
                                .npz with `inputs` float32[n, ...] and `labels` int64[n] for a classifier.

    Raises
    ------
    ModelError                  If there is no data for the model, or it does not fit.
    """
    if data is not None:
        return _own_task(source, model, part, data)
    if not source.known:
        raise ModelError(
            f"model {source.name!r} is not in the catalogue, so its evaluation data is unknown; give --data with text "
            "or an .npz of inputs and labels"
        )
    entry = get(source.name)
    text = entry.evaluation in ("char-text", "wikipedia")
    _refuse_foreign(part, text=text)
    if text:
        return _catalogue_text(source.name, cache_dir, load_tokenizer(source.file), part, _context_limit(model))
    if entry.evaluation == "lee-50":
        return _similarity_task(source.name, cache_dir, load_tokenizer(source.file), part)
    images, calibration = evaluation_images(source.name, cache_dir), calibration_images(source.name, cache_dir)
    count = len(images.labels) if part.samples is None else min(part.samples, len(images.labels))
    note = "calibrated on the evaluated pictures: there are no others" if entry.evaluation == "imagenet-20" else ""
    return ImageTask(
        images=images.inputs()[:count],
        labels=images.labels[:count],
        calibration=calibration.inputs(),
        input_name=model.graph.inputs[0].name,
        output_name=model.graph.outputs[0].name,
        batch=100 if images.images.ndim == 3 else 1,
        protocol=EvaluationProtocol(
            task="image classification",
            metric=entry.metric,
            data=images.source,
            data_sha256=images.sha256,
            samples=count,
            note=note,
        ),
    )


def _refuse_foreign(part: Slice, *, text: bool) -> None:
    """Refuse an option that has no meaning for the task."""
    given = part.samples is not None if text else part.windows is not None or part.context is not None
    if given:
        wrong, right = ("--samples", "--windows and --context") if text else ("--windows and --context", "--samples")
        raise ValueError(f"{wrong} have no meaning for this task; it takes {right}")


def _own_task(source: Source, model: Model, part: Slice, data: Path) -> Task:
    try:
        raw = data.read_bytes()
    except OSError as error:
        raise ModelError(f"{data}: cannot be read ({error.strerror})") from error
    digest = hashlib.sha256(raw).hexdigest()
    _refuse_foreign(part, text=data.suffix != ".npz")
    if data.suffix == ".npz":
        return _own_images(model, part, data, digest)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{data}: neither an .npz nor UTF-8 text; give one of these") from error
    ids = load_tokenizer(source.file).encode(text)
    tenth = len(ids) // 10  # the first tenth calibrates, the rest judges
    limit = _context_limit(model)
    return _text_task(
        ids[tenth:],
        ids[:tenth],
        part,
        context=512 if limit is None else min(512, limit),
        limit=limit,
        windows=None,
        protocol={"data": data.name, "data_sha256": digest, "metric": "perplexity", "tokenizer": "the model's own"},
    )


def _own_images(model: Model, part: Slice, data: Path, digest: str) -> ImageTask:
    try:
        with np.load(data, allow_pickle=False) as arrays:
            inputs, labels = np.asarray(arrays["inputs"], np.float32), np.asarray(arrays["labels"], np.int64)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{data}: needs arrays `inputs` float32[n, ...] and `labels` int64[n] ({error})") from error
    if len(inputs) != len(labels) or len(labels) < 20:
        raise ModelError(f"{data}: {len(inputs)} inputs and {len(labels)} labels; both must be equal and at least 20")
    tenth = max(len(labels) // 10, 1)
    count = len(labels) - tenth if part.samples is None else min(part.samples, len(labels) - tenth)
    return ImageTask(
        images=inputs[tenth : tenth + count],
        labels=labels[tenth : tenth + count],
        calibration=inputs[:tenth],
        input_name=model.graph.inputs[0].name,
        output_name=model.graph.outputs[0].name,
        batch=50,
        protocol=EvaluationProtocol(
            task="classification",
            metric="top-1",
            data=data.name,
            data_sha256=digest,
            samples=count,
            note="the first tenth of the data calibrates and is not judged",
        ),
    )


def _context_limit(model: Model) -> int | None:
    """Tokens that the model takes at most, None if it does not say."""
    return int(model.metadata["context"]) if "context" in model.metadata else None


def _catalogue_text(name: str, cache_dir: Path, tokenizer: TextTokenizer, part: Slice, limit: int | None) -> TextTask:
    characters = get(name).evaluation == "char-text"
    text, calibration = evaluation_text(name, cache_dir), calibration_text(name, cache_dir)
    return _text_task(
        tokenizer.encode(text.text),
        tokenizer.encode(calibration.text),
        part,
        context=256 if characters else 512,
        windows=None if characters else 64,
        limit=limit,
        protocol={
            "data": text.source,
            "data_sha256": text.sha256,
            "metric": "nats/char" if characters else "perplexity",
            "tokenizer": "characters" if characters else f"{name}'s own",
        },
    )


def _text_task(
    ids: NDArray[np.int64],
    calibration: NDArray[np.int64],
    part: Slice,
    *,
    context: int,
    windows: int | None,
    limit: int | None,
    protocol: dict[str, str],
) -> TextTask:
    size = context if part.context is None else part.context
    if limit is not None and size > limit:
        raise ModelError(f"the model takes at most {limit} tokens, not {size}; give --context {limit} or less")
    wanted = part.windows or windows or len(ids) // size
    if len(calibration) < size:
        raise ModelError(
            f"{protocol['data']}: {len(calibration)} tokens to calibrate with are not one window of {size}"
        )
    if len(ids) < wanted * size or wanted < 1:
        raise ModelError(f"{protocol['data']} has {len(ids)} tokens, not enough for {max(wanted, 1)} windows of {size}")
    calibration = calibration[: 8 * size]
    return TextTask(
        tokens=ids[: wanted * size].reshape(wanted, size),
        calibration=calibration[: len(calibration) // size * size].reshape(-1, size),
        batch=max(1, 2048 // size) if size < 512 else 1,
        protocol=EvaluationProtocol(
            task="language modelling", samples=wanted, context=size, note="windows without overlap, no BOS", **protocol
        ),
    )


def _digest(documents: SimilaritySet) -> str:
    """Hash of the documents and of what people said of them."""
    text = "\0".join(documents.documents).encode()
    return hashlib.sha256(text + np.ascontiguousarray(documents.similarity).tobytes()).hexdigest()


def _similarity_task(name: str, cache_dir: Path, tokenizer: TextTokenizer, part: Slice) -> SimilarityTask:
    documents = similarity_set(name, cache_dir)
    count = len(documents.documents) if part.samples is None else min(part.samples, len(documents.documents))
    if count < MIN_DOCUMENTS:
        raise ValueError(f"a correlation needs at least {MIN_DOCUMENTS} documents, not {count}")
    lines = [line for line in calibration_text(name, cache_dir).text.splitlines() if line.strip()][:16]

    def feed(text: str) -> Feeds:
        ids = tokenizer.encode(text)[None, :256]
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    return SimilarityTask(
        feeds=tuple(feed(text) for text in documents.documents[:count]),
        calibration=tuple(feed(line) for line in lines),
        human=documents.similarity,
        protocol=EvaluationProtocol(
            task="sentence similarity",
            metric="Pearson (Lee-50)",
            data=f"{name} Lee-50",
            data_sha256=_digest(documents),
            samples=count,
            context=256,
            tokenizer=f"{name}'s own",
        ),
    )
