"""Tasks: what a model is judged by, as samples to run and a metric over their records.

A task runs any executor and returns one record a sample, so that two models are compared sample by sample.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["EvaluationProtocol", "Execute", "Feeds", "ImageTask", "SimilarityTask", "Task", "TextTask"]

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

    @property
    def text(self) -> str:
        """One sentence for a reader."""
        unit = f"windows of {self.context} tokens" if self.task == "language modelling" else "samples"
        parts = [f"{self.samples} {unit} of {self.data}, sha256 {self.data_sha256[:12]}"]
        parts += [f"tokenizer: {self.tokenizer}"] if self.tokenizer else []
        return "; ".join([*parts, *([self.note] if self.note else [])])

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


class Task(Protocol):
    """Samples, their records, and a metric over records."""

    @property
    def higher_is_better(self) -> bool:
        """Direction of the metric."""

    @property
    def protocol(self) -> EvaluationProtocol:
        """How the figure is measured."""

    @property
    def samples(self) -> int:
        """Windows, images or documents."""

    def part(self, start: int, stop: int) -> "Task":
        """The same task with some of its samples; records of parts join to those of the whole."""

    def calibration_feeds(self) -> Iterator[Feeds]:
        """Inputs for calibration, disjoint from the evaluation data unless the protocol's note says otherwise."""

    def check_feed(self) -> Feeds:
        """A small input on which layers are compared with the reference."""

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

    @property
    def samples(self) -> int:
        """Windows."""
        return len(self.tokens)

    def part(self, start: int, stop: int) -> "TextTask":
        """Some of the windows."""
        return replace(self, tokens=self.tokens[start:stop])

    def calibration_feeds(self) -> Iterator[Feeds]:
        """Calibration windows, one at a time."""
        for window in self.calibration:
            yield {"input_ids": window[None]}

    def check_feed(self) -> Feeds:
        """The start of the first window."""
        return {"input_ids": self.tokens[:1, :32]}

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
    """Mean cross entropy of predicting ids[1:] from float32 logits [context, vocabulary]; sums in float64."""
    total = 0.0
    for part in range(0, len(ids) - 1, 64):  # 64 x vocabulary at a time: SmolLM2's logits are large
        rows = logits[part : min(part + 64, len(ids) - 1)]
        peak = rows.max(axis=1)
        exponentials = np.exp(rows - peak[:, None])
        normalizer = np.log(exponentials.sum(axis=1, dtype=np.float64)) + peak
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

    @property
    def samples(self) -> int:
        """Images."""
        return len(self.labels)

    def part(self, start: int, stop: int) -> "ImageTask":
        """Some of the images."""
        return replace(self, images=self.images[start:stop], labels=self.labels[start:stop])

    def calibration_feeds(self) -> Iterator[Feeds]:
        """Calibration images in batches."""
        for start in range(0, len(self.calibration), self.batch):
            yield {self.input_name: self.calibration[start : start + self.batch]}

    def check_feed(self) -> Feeds:
        """The first image."""
        return {self.input_name: self.images[:1]}

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
    first : number of the first document, after `part`.
    """

    feeds: tuple[Feeds, ...]
    calibration: tuple[Feeds, ...]
    human: NDArray[np.float64]
    protocol: EvaluationProtocol
    first: int = 0
    higher_is_better: bool = True

    @property
    def samples(self) -> int:
        """Documents."""
        return len(self.feeds)

    def part(self, start: int, stop: int) -> "SimilarityTask":
        """Some of the documents."""
        return replace(self, feeds=self.feeds[start:stop], first=self.first + start)

    def calibration_feeds(self) -> Iterator[Feeds]:
        """Calibration documents, one at a time."""
        yield from self.calibration

    def check_feed(self) -> Feeds:
        """The start of the first document."""
        return {name: values[:, :32] for name, values in self.feeds[0].items()}

    def records(self, execute: Execute, progress: Callable[[int, int], None] | None = None) -> Records:
        """Document number and embedding, float64[documents, 1 + width]."""
        rows = []
        for number, feed in enumerate(self.feeds, start=self.first):
            embedding = execute(feed, ("embedding",))["embedding"][0].astype(np.float64)
            rows.append(np.concatenate([[number], embedding / np.linalg.norm(embedding)]))
            if progress is not None:
                progress(number + 1 - self.first, len(self.feeds))
        return np.array(rows)

    def metric(self, records: Records) -> float:
        """Pearson correlation over pairs of different documents."""
        numbers, embeddings = records[:, 0].astype(np.intp), records[:, 1:]
        first, second = np.triu_indices(len(records), 1)
        different = numbers[first] != numbers[second]  # a resample holds some documents twice
        first, second = first[different], second[different]
        cosine = (embeddings[first] * embeddings[second]).sum(axis=1)
        return float(np.corrcoef(cosine, self.human[numbers[first], numbers[second]])[0, 1])
