"""Judge a compressed model against its float baseline on one task."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.models.compress import CompressedModel
from sparsefab.models.evaluate.bootstrap import bootstrap, paired_bootstrap
from sparsefab.models.evaluate.runner import BitTrueRunner
from sparsefab.models.evaluate.tasks import EvaluationProtocol, Execute, Task
from sparsefab.models.execute import Runner, execute
from sparsefab.models.model import Model

__all__ = ["Evaluation", "Figure", "Progress", "Records", "baseline_records", "compressed_records", "executor", "judge"]

Progress = Callable[[int, int], None]
Records = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A value with a 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Accuracy of a compressed model and its difference from the float baseline, on the same samples.

    loss : Figure               How much worse it is: the delta, signed so that positive is worse.
    bit_true : str              What the figures hold for.
    notes : (layer, text)       What stays in float or departs from the recipe.
    """

    metric: str
    higher_is_better: bool
    compressed: Figure
    baseline: Figure
    delta: Figure
    protocol: EvaluationProtocol
    notes: tuple[tuple[str, str], ...] = ()
    bit_true: str = (
        "linear layers bit-true, convolutions too; embedding, norms, softmax and attention products in float32"
    )

    @property
    def loss(self) -> Figure:
        """The delta, positive when the compressed model is worse."""
        if not self.higher_is_better:
            return self.delta
        return Figure(value=-self.delta.value, low=-self.delta.high, high=-self.delta.low)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, figures as {value, low, high}."""
        return {**asdict(self), "loss": asdict(self.loss)}


def executor(model: Model, runner: Runner | None = None) -> Execute:
    """Bind a model, and a runner of its compressed layers, into what a task runs."""

    def run(feeds: Mapping[str, NDArray[Any]], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        return execute(model, feeds, runner=runner, outputs=outputs)

    return run


def baseline_records(model: Model, task: Task, progress: Progress | None = None) -> Records:
    """Run a task in float32."""
    return task.records(executor(model), progress)


def compressed_records(compressed: CompressedModel, task: Task, progress: Progress | None = None) -> Records:
    """Run a task in the one arithmetic; the model must be calibrated."""
    return task.records(executor(compressed.model, BitTrueRunner(compressed)), progress)


def judge(
    task: Task, baseline: Records, records: Records, notes: tuple[tuple[str, str], ...] = (), seed: int = 0
) -> Evaluation:
    """Put two models' records of the same samples side by side."""
    before, after = task.metric(baseline), task.metric(records)
    low, high = paired_bootstrap(task.metric, baseline, records, seed)
    base_low, base_high = bootstrap(task.metric, baseline, seed)
    own_low, own_high = bootstrap(task.metric, records, seed)
    return Evaluation(
        metric=task.protocol.metric,
        higher_is_better=task.higher_is_better,
        compressed=Figure(value=after, low=own_low, high=own_high),
        baseline=Figure(value=before, low=base_low, high=base_high),
        delta=Figure(value=after - before, low=low, high=high),
        protocol=task.protocol,
        notes=notes,
    )
