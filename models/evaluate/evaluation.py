"""Judge a compressed model against its float baseline on one task."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.models.evaluate.bootstrap import Interval, bootstrap, paired_bootstrap
from sparsefab.models.evaluate.tasks import EvaluationProtocol, Execute, Task
from sparsefab.models.execute import Runner, execute
from sparsefab.models.model import Model

__all__ = ["Evaluation", "Figure", "Progress", "Records", "executor", "judge"]

_ARITHMETIC = "linear layers bit-true where compressed, convolutions too; all else in float32"
MIN_SAMPLES = 8  # below this a resample says nothing about the spread

Progress = Callable[[int, int], None]
Records = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A value with a 95 % interval; None as bounds where there are too few samples for one."""

    value: float
    low: float | None
    high: float | None

    @staticmethod
    def of(value: float, interval: Interval | None) -> "Figure":
        """Join a value and its interval, which a resample may put a hair beside the value."""
        if interval is None:
            return Figure(value=value, low=None, high=None)
        return Figure(value=value, low=min(interval[0], value), high=max(interval[1], value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Accuracy of a compressed model and its difference from the float baseline, on the same samples.

    loss : Figure               How much worse it is: the delta, signed so that positive is worse.
    arithmetic : str            What the figures hold for.
    notes : (layer, text)       What stays in float or departs from the recipe.
    """

    metric: str
    higher_is_better: bool
    compressed: Figure
    baseline: Figure
    delta: Figure
    protocol: EvaluationProtocol
    notes: tuple[tuple[str, str], ...] = ()
    arithmetic: str = _ARITHMETIC

    @property
    def loss(self) -> Figure:
        """The delta, positive when the compressed model is worse."""
        if not self.higher_is_better:
            return self.delta
        low, high = self.delta.low, self.delta.high
        return Figure(value=-self.delta.value, low=None if high is None else -high, high=None if low is None else -low)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, figures as {value, low, high}."""
        return {**asdict(self), "loss": asdict(self.loss)}


def executor(model: Model, runner: Runner | None = None) -> Execute:
    """Bind a model, and a runner of its compressed layers, into what a task runs."""

    def run(feeds: Mapping[str, NDArray[Any]], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        return execute(model, feeds, runner=runner, outputs=outputs)

    return run


def judge(
    task: Task, baseline: Records, records: Records, notes: tuple[tuple[str, str], ...] = (), seed: int = 0
) -> Evaluation:
    """Put two models' records of the same samples side by side."""
    before, after = task.metric(baseline), task.metric(records)
    if not (math.isfinite(before) and math.isfinite(after)):
        raise ValueError(f"the metric is not a number on these {len(records)} samples: {before}, {after}")
    enough = len(records) >= MIN_SAMPLES
    delta = paired_bootstrap(task.metric, baseline, records, seed) if enough else None
    if delta == (0.0, 0.0) and records is not baseline:
        # no sample changed: by the rule of three fewer than 3 / n do, with 95 % confidence
        delta = (-3 / len(records), 3 / len(records)) if set(np.unique(records)) <= {0.0, 1.0} else delta
    return Evaluation(
        metric=task.protocol.metric,
        higher_is_better=task.higher_is_better,
        compressed=Figure.of(after, bootstrap(task.metric, records, seed) if enough else None),
        baseline=Figure.of(before, bootstrap(task.metric, baseline, seed) if enough else None),
        delta=Figure.of(after - before, delta),
        protocol=task.protocol,
        notes=notes,
    )
