"""Tasks: what a model is judged by, as samples to run and a metric over their records.

A task runs any executor and returns one record a sample, so that two models are compared sample by sample.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.model import Model
from sparsefab.models.tokenize import TextTokenizer, load_tokenizer
from sparsefab.models.zoo import (
    calibration_images,
    calibration_text,
    evaluation_images,
    evaluation_text,
    get,
    locate,
    similarity_set,
)

__all__ = ["EvaluationProtocol", "Execute", "ImageTask", "SimilarityTask", "Task", "TextTask", "zoo_task"]

Feeds = Mapping[str, NDArray[Any]]
Execute = Callable[[Feeds, tuple[str, ...]], dict[str, NDArray[Any]]]
Records = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationProtocol:
    """How a figure was measured; stored beside it.

    context : tokens a window, 0 for images.   samples : windows, images or documents.
    """

    task: str
    metric: str
    data: str
    data_sha256: str
    samples: int
    context: int = 0
    tokenizer: str = ""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


class Task(Protocol):
    """Samples, their records, and a metric over records."""

    higher_is_better: bool
    protocol: EvaluationProtocol

    def calibration_feeds(self) -> Iterator[Feeds]:
        """Inputs for calibration, disjoint from the evaluation data unless the protocol's note says otherwise."""

    def records(self, execute: Execute, progress: Callable[[int, int], None] | None = None) -> Records:
        """Run every sample: float64[samples, values]."""

    def metric(self, records: Records) -> float:
        """The figure of merit over records; also over a resample of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTask:
    """Next-token loss over non-overlapping windows, no BOS; record: mean nats a window.

    tokens : int64[windows, context]
    """

    tokens: NDArray[np.int64]
    calibration: NDArray[np.int64]
    protocol: EvaluationProtocol
    batch: int = 1
    higher_is_better: bool = False

    def calibration_feeds(self) -> Iterator[Feeds]:
        """Calibration windows, one at a time."""
        for window in self.calibration:
            yield {"input_ids": window[None]}

    def records(self, execute: Execute, progress: Callable[[int, int], None] | None = None) -> Records:
        """Mean loss of each window in nats a token, float64[windows, 1]."""
        losses = []
        for start in range(0, len(self.tokens), self.batch):
            windows = self.tokens[start : start + self.batch]
            logits = execute({"input_ids": windows}, ("logits",))["logits"]
            losses += [_window_loss(row, ids) for row, ids in zip(logits, windows, strict=True)]
            if progress is not None:
                progress(min(start + self.batch, len(self.tokens)), len(self.tokens))
        return np.array(losses, np.float64)[:, None]

    def metric(self, records: Records) -> float:
        """Perplexity exp(mean nats), or the mean nats a character."""
        mean = float(records.mean())
        return float(np.exp(mean)) if self.protocol.metric == "perplexity" else mean


def _window_loss(logits: NDArray[np.float32], ids: NDArray[np.int64]) -> float:
    """Mean cross entropy of predicting ids[1:], in float64 from float32 logits [context, vocabulary]."""
    total = 0.0
    for part in range(0, len(ids) - 1, 128):  # 128 x vocabulary at a time: SmolLM2's logits are large
        rows = logits[part : min(part + 128, len(ids) - 1)].astype(np.float64)
        peak = rows.max(axis=1)
        normalizer = np.log(np.exp(rows - peak[:, None]).sum(axis=1)) + peak
        total += float((normalizer - rows[np.arange(len(rows)), ids[part + 1 : part + 1 + len(rows)]]).sum())
    return total / (len(ids) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTask:
    """Top-1 accuracy; record: 1 for a right answer."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    calibration: NDArray[np.float32]
    input_name: str
    output_name: str
    protocol: EvaluationProtocol
    batch: int = 100
    higher_is_better: bool = True

    def calibration_feeds(self) -> Iterator[Feeds]:
        """Calibration images in batches."""
        for start in range(0, len(self.calibration), self.batch):
            yield {self.input_name: self.calibration[start : start + self.batch]}

    def records(self, execute: Execute, progress: Callable[[int, int], None] | None = None) -> Records:
        """1 where the largest output is the label, float64[images, 1]."""
        right = np.zeros((len(self.labels), 1))
        for start in range(0, len(self.labels), self.batch):
            part = slice(start, min(start + self.batch, len(self.labels)))
            scores = execute({self.input_name: self.images[part]}, (self.output_name,))[self.output_name]
            right[part, 0] = scores.reshape(len(scores), -1).argmax(axis=1) == self.labels[part]
            if progress is not None:
                progress(part.stop, len(self.labels))
        return right

    def metric(self, records: Records) -> float:
        """Share of right answers."""
        return float(records.mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarityTask:
    """Pearson correlation of cosine similarities with human ones; record: a document's embedding and its number.

    human : float64[documents, documents]
    """

    feeds: tuple[Feeds, ...]
    calibration: tuple[Feeds, ...]
    human: NDArray[np.float64]
    protocol: EvaluationProtocol
    higher_is_better: bool = True

    def calibration_feeds(self) -> Iterator[Feeds]:
        """Calibration documents, one at a time."""
        yield from self.calibration

    def records(self, execute: Execute, progress: Callable[[int, int], None] | None = None) -> Records:
        """Document number and embedding, float64[documents, 1 + width]."""
        rows = []
        for number, feed in enumerate(self.feeds):
            embedding = execute(feed, ("embedding",))["embedding"][0].astype(np.float64)
            rows.append(np.concatenate([[number], embedding / np.linalg.norm(embedding)]))
            if progress is not None:
                progress(number + 1, len(self.feeds))
        return np.array(rows)

    def metric(self, records: Records) -> float:
        """Pearson correlation over pairs of different documents."""
        numbers, embeddings = records[:, 0].astype(np.intp), records[:, 1:]
        first, second = np.triu_indices(len(records), 1)
        different = numbers[first] != numbers[second]  # a resample holds some documents twice
        first, second = first[different], second[different]
        cosine = (embeddings[first] * embeddings[second]).sum(axis=1)
        return float(np.corrcoef(cosine, self.human[numbers[first], numbers[second]])[0, 1])


def zoo_task(
    name: str, model: Model, cache_dir: Path, *, windows: int | None = None, context: int | None = None,
    samples: int | None = None,
) -> Task:
    """Make the task of a catalogue model that has been loaded.

    windows, context : for texts; default the whole text for char-llama, 64 x 512 tokens for other language models.
    samples : images or documents to use, default all.

    Raises
    ------
    ModelError                      If the text is too short, or the model is unknown or not fetched.
    """
    entry = get(name)
    path = locate(name, cache_dir)
    if entry.evaluation in ("char-text", "wikipedia"):
        return _text_task(name, cache_dir, load_tokenizer(path), windows, context)
    if entry.evaluation == "lee-50":
        return _similarity_task(name, cache_dir, load_tokenizer(path), samples)
    images, calibration = evaluation_images(name, cache_dir), calibration_images(name, cache_dir)
    count = len(images.labels) if samples is None else min(samples, len(images.labels))
    note = "calibrated on the evaluated pictures: there are no others" if entry.evaluation == "imagenet-20" else ""
    return ImageTask(
        images=images.inputs()[:count], labels=images.labels[:count], calibration=calibration.inputs(),
        input_name=model.graph.inputs[0].name, output_name=model.graph.outputs[0].name, batch=100 if images.images.ndim == 3 else 1,
        protocol=EvaluationProtocol(
            task="image classification", metric=entry.metric, data=images.source, data_sha256=images.sha256,
            samples=count, note=note,
        ),
    )


def _text_task(
    name: str, cache_dir: Path, tokenizer: TextTokenizer, windows: int | None, context: int | None
) -> TextTask:
    entry = get(name)
    characters = entry.evaluation == "char-text"
    size = (256 if characters else 512) if context is None else context
    if size < 2:
        raise ValueError(f"context must be at least 2 tokens, not {size}")
    text, calibration = evaluation_text(name, cache_dir), calibration_text(name, cache_dir)
    ids = tokenizer.encode(text.text)
    wanted = (len(ids) // size if characters else 64) if windows is None else windows
    if len(ids) < wanted * size or wanted < 1:
        raise ModelError(f"{text.source} has {len(ids)} tokens, not enough for {wanted} windows of {size}")
    calibration_ids = tokenizer.encode(calibration.text)[: 8 * size]
    return TextTask(
        tokens=ids[: wanted * size].reshape(wanted, size),
        calibration=calibration_ids[: len(calibration_ids) // size * size].reshape(-1, size),
        batch=8 if characters else 1,
        protocol=EvaluationProtocol(
            task="language modelling", metric="nats/char" if characters else "perplexity", data=text.source,
            data_sha256=text.sha256, samples=wanted, context=size,
            tokenizer="characters" if characters else f"{name}'s own", note="windows without overlap, no BOS",
        ),
    )


def _similarity_task(name: str, cache_dir: Path, tokenizer: TextTokenizer, samples: int | None) -> SimilarityTask:
    documents = similarity_set(name, cache_dir)
    count = len(documents.documents) if samples is None else min(samples, len(documents.documents))
    calibration = calibration_text(name, cache_dir)
    lines = [line for line in calibration.text.splitlines() if line.strip()][:16]

    def feed(text: str) -> Feeds:
        ids = tokenizer.encode(text)[None, :256]
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    return SimilarityTask(
        feeds=tuple(feed(text) for text in documents.documents[:count]),
        calibration=tuple(feed(line) for line in lines),
        human=documents.similarities,
        protocol=EvaluationProtocol(
            task="sentence similarity", metric="Pearson (Lee-50)", data=f"{name} Lee-50",
            data_sha256=documents.sha256, samples=count, context=256, tokenizer=f"{name}'s own",
        ),
    )
