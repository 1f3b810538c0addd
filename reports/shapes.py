"""Sweeps of models known by shape alone: no weights, so no accuracy; bytes, times and energy of every design.

Evaluation costs nothing here, so only priced points are stored, many to a file, and pricing itself runs in workers.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sparsefab.cost_models.estimate import LayerPlan
from sparsefab.cost_models.grouping import layer_kinds
from sparsefab.errors import SparseFabError, StorageError
from sparsefab.formats import storage_layout
from sparsefab.models.compress import PUBLISHED
from sparsefab.models.compress.recipe import recipe_from_text
from sparsefab.reports.explore import CostFunction, Design, EvaluateFunction, ProgressFunction, price, reason_of
from sparsefab.reports.plans import shape_plans
from sparsefab.reports.points import Accuracy, Case, Evaluation, Job, Point
from sparsefab.reports.store import Store
from sparsefab.reports.workers import Workers
from sparsefab.workload import Workload

__all__ = ["ShapeEvaluator", "ShapeExplorer", "shape_jobs"]

_CHUNK = 600  # points priced together and stored in one file
_FEW = 2_000  # points that are priced here, sooner than workers start
_FLOAT_BYTES = 2


@dataclass(frozen=True, slots=True)
class ShapeEvaluator:
    """Job -> Accuracy without a metric: what is known of a recipe from the shapes of a workload."""

    workload: Workload
    _plans: dict[str, Mapping[str, LayerPlan]] = field(default_factory=dict, compare=False, repr=False)

    def plans(self, job: Job) -> Mapping[str, LayerPlan]:
        """The plan of every layer; kept for the next case."""
        if job.recipe_text not in self._plans:
            self._plans.clear()  # cases come recipe by recipe
            self._plans[job.recipe_text] = shape_plans(self.workload, recipe_from_text(job.recipe_text))
        return self._plans[job.recipe_text]

    def __call__(self, job: Job) -> Accuracy:
        """Bytes of the weights with all their metadata."""
        total = 0.0
        plans, kinds = self.plans(job), layer_kinds(self.workload)
        for group in kinds.group(plans):
            if group.plan.spec is None:
                rows, columns = kinds.examples[group.kind].weight_shape
                total += group.layers * rows * columns * _FLOAT_BYTES
            else:
                spec = group.plan.spec
                total += group.layers * sum(storage_layout(spec).section_bytes(spec).values())
        names = [layer.name for layer in kinds.layers if layer.name not in plans]
        return Accuracy(
            metric=None,
            better=None,
            accuracy=None,
            baseline=None,
            delta=None,
            protocol="known by shape alone: no accuracy",
            weight_bytes=round(total),
            bits_per_weight=total * 8 / self.workload.parameters,
            float_layers=tuple(names),
            details={"calibration": job.recipe if job.recipe in PUBLISHED else None},
        )


def shape_jobs(model: str, workload: Workload, recipes: Sequence[tuple[str, str]], seed: int) -> list[Job]:
    """One job a (name, text) of a recipe."""
    model_hash = hashlib.sha256(repr(workload).encode()).hexdigest()
    return [
        Job(
            model=model,
            model_hash=model_hash,
            recipe=name,
            recipe_text=text,
            data_hash="shapes",
            evaluator="shapes",
            seed=seed,
        )
        for name, text in recipes
    ]


class ShapeExplorer:
    """As `explore.Explorer`, for designs whose evaluation costs nothing."""

    def __init__(
        self,
        evaluate: EvaluateFunction,
        cost: CostFunction,
        store: Store,
        workers: Workers,
        progress: ProgressFunction | None = None,
    ) -> None:
        self._step = _Step(evaluate, cost, store)
        self._store, self._workers, self._report = store, workers, progress
        self._known: dict[str, Point] | None = None

    def points(self, designs: Sequence[Design]) -> dict[str, list[Point]]:
        """Points of each design by the key of its job; designs of one job are joined."""
        if self._known is None:
            self._known = {point.key: point for point in self._store.points() if point.status != "failed"}
        joined: dict[str, tuple[Job, dict[str, Case]]] = {}
        for job, asked in designs:
            joined.setdefault(job.key, (job, {}))[1].update({case.key(job): case for case in asked})
        todo = []
        for job, cases in joined.values():
            missing = tuple(case for key, case in cases.items() if key not in self._known)
            if missing:
                todo.append((job, missing))
        found = self._known | self._priced(todo)
        self._known |= {key: point for key, point in found.items() if point.status != "failed"}
        return {
            key: [replace(found[name], recipe=job.recipe) for name in cases] for key, (job, cases) in joined.items()
        }

    def _priced(self, todo: Sequence[Design]) -> dict[str, Point]:
        total, found = sum(len(cases) for _, cases in todo), dict[str, Point]()
        chunks: list[tuple[Design, ...]] = []
        chunk: list[Design] = []
        for design in todo:
            chunk.append(design)
            if sum(len(cases) for _, cases in chunk) >= _CHUNK:
                chunks.append(tuple(chunk))
                chunk = []
        chunks += [tuple(chunk)] if chunk else []
        results = (
            self._workers.run(self._step, chunks) if total > _FEW else ((part, self._step(part)) for part in chunks)
        )
        for part, result in results:
            if isinstance(result, StorageError):
                raise result
            if isinstance(result, BaseException):
                result = self._step.failed(part, reason_of(result))
            found |= {point.key: point for point in result}
            if self._report is not None:
                self._report("price", len(found), total)
        return found


@dataclass(frozen=True, slots=True)
class _Step:
    """In a worker: evaluate and price a few designs, and store the points."""

    evaluate: EvaluateFunction
    cost: CostFunction
    store: Store

    def __call__(self, designs: Sequence[Design]) -> list[Point]:
        points = []
        for job, cases in designs:
            try:
                evaluation = Evaluation(job=job, accuracy=self.evaluate(job))
            except (SparseFabError, ValueError) as error:  # a recipe that does not fit the shapes
                evaluation = Evaluation(job=job, accuracy=None, reason=reason_of(error))
            points += [price(evaluation, case, self.cost) for case in cases]
        self.store.put_points(points)
        return points

    def failed(self, designs: Sequence[Design], reason: str) -> list[Point]:
        """The points of designs that cost their worker its life."""
        return [
            price(Evaluation(job=job, accuracy=None, reason=reason), case, self.cost)
            for job, cases in designs
            for case in cases
        ]
