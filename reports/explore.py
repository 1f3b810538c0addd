"""Explore: evaluate recipes for accuracy, price them on targets, and evaluate the best again more precisely.

Accuracy is dear (minutes) and runs in workers, once a recipe; a worker stores what it finishes before it says so.
Pricing is cheap and runs here, once a recipe and case. Everything stored is found again by the next run. The order of
the result is that of the jobs and the cases, whatever finished first.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sparsefab.errors import SparseFabError, StorageError
from sparsefab.reports.objectives import DEFAULT_OBJECTIVES, Limits
from sparsefab.reports.pareto import standings
from sparsefab.reports.points import Accuracy, Case, Cost, Evaluation, Job, Point
from sparsefab.reports.store import Store
from sparsefab.reports.workers import ProcessWorkers, Workers

__all__ = [
    "CostFunction",
    "Design",
    "EvaluateFunction",
    "Explorer",
    "ProgressFunction",
    "RefineFunction",
    "explore",
    "flat",
    "price",
    "reason_of",
]

log = logging.getLogger(__name__)

_UNSTORED_S = 0.5  # priced points are stored together at least this often: pricing is faster than writing a file

EvaluateFunction = Callable[[Job], Accuracy]
CostFunction = Callable[[Evaluation, Case], Cost]
RefineFunction = Callable[[Job], Job]
ProgressFunction = Callable[[str, int, int], None]
Design = tuple[Job, Sequence[Case]]  # a recipe and what to price it for


def explore(
    jobs: Sequence[Job],
    evaluate: EvaluateFunction,
    cases: Sequence[Case],
    cost: CostFunction,
    store: Store,
    *,
    workers: int | Workers = 2,
    refine: RefineFunction | None = None,
    progress: ProgressFunction | None = None,
) -> list[Point]:
    """Evaluate every job and price it for every case; resume from what the store holds.

    Parameters
    ----------
    jobs                         Recipes; one that repeats an earlier key is left out.
    evaluate                     Job -> Accuracy, run in a worker: an importable function, or an instance of an
                                 importable class that carries what it needs. Same job, same result.
    cases                        What to price for.
    cost                         (Evaluation, Case) -> Cost, run here; never called for a failed evaluation.
    store : Store                Where results are kept and looked for.
    workers                      Processes at most, or what runs the evaluations.
    refine                       Job -> the same recipe as a job of fidelity 'full'. The recipes on any front are
                                 evaluated again so; what comes of it replaces the first points, unless it failed.
    progress                     Called with (stage, done, total) as evaluations finish.

    Returns
    -------
    list[Point]                  One a recipe and case. What failed is there with its reason, and is tried again by
                                 the next run.

    Raises
    ------
    StorageError                 If the store cannot be written; what was finished before is kept.
    """
    own = ProcessWorkers(workers) if isinstance(workers, int) else None
    explorer = Explorer(evaluate, cost, store, own or workers, progress)  # type: ignore[arg-type]  # not an int here
    try:
        found = explorer.points([(job, cases) for job in jobs])
        return flat(found if refine is None else explorer.refined(found, refine))
    finally:
        if own is not None:
            own.close()


def flat(points: "Mapping[str, Sequence[Point]]") -> list[Point]:
    """Points by job as one list."""
    return [point for key in points for point in points[key]]


class Explorer:
    """Evaluates and prices designs as they are asked for; what it has once read of the store it keeps.

    The parameters are those of `explore`.
    """

    def __init__(
        self,
        evaluate: EvaluateFunction,
        cost: CostFunction,
        store: Store,
        workers: Workers,
        progress: ProgressFunction | None = None,
    ) -> None:
        self._evaluate, self._cost, self._store, self._workers = evaluate, cost, store, workers
        self._report = progress or _silent
        self._designs: dict[str, Design] = {}
        self._known: dict[str, Point] | None = None

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every job that was asked for, in order."""
        return tuple(job for job, _ in self._designs.values())

    def points(self, designs: Sequence[Design], stage: str = "evaluate") -> dict[str, list[Point]]:
        """Points of each design by the key of its job; designs of one job are joined."""
        joined: dict[str, tuple[Job, dict[Case, None]]] = {}
        for job, asked in designs:
            joined.setdefault(job.key, (job, {}))[1].update(dict.fromkeys(asked))
        jobs = [job for job, _ in joined.values()]
        self._designs |= {key: (job, tuple(cases)) for key, (job, cases) in joined.items()}
        evaluations = self._evaluate_all(jobs, stage)
        if self._known is None:
            self._known = {point.key: point for point in self._store.points() if point.status != "failed"}
        points: dict[str, list[Point]] = {}
        fresh: list[Point] = []
        stored_s = time.monotonic()
        for done, (key, (job, cases)) in enumerate(joined.items(), start=1):
            points[key] = []
            for case in cases:
                point = self._known.get(case.key(job))
                if point is None:
                    point = price(evaluations[key], case, self._cost)
                    fresh.append(point)
                points[key].append(replace(point, recipe=job.recipe))
            if time.monotonic() - stored_s > _UNSTORED_S or done == len(joined):
                self._store.put_points(fresh)
                self._known |= {point.key: point for point in fresh if point.status != "failed"}
                fresh, stored_s = [], time.monotonic()
            self._report("price", done, len(joined))
        return points

    def refined(
        self,
        found: dict[str, list[Point]],
        refine: RefineFunction,
        objectives: Sequence[str] = DEFAULT_OBJECTIVES,
        limits: Limits | None = None,
    ) -> dict[str, list[Point]]:
        """The same points, those of recipes on a front evaluated again at full fidelity."""
        ranked = standings(flat(found), objectives, limits)
        best = {standing.point.recipe_text for standing in ranked if standing.on_front}
        designs = {key: self._designs[key] for key in found}
        again = {key: (refine(job), cases) for key, (job, cases) in designs.items() if job.recipe_text in best}
        refined = self.points(list(again.values()), "refine")
        result = dict(found)
        for key, (job, _) in again.items():
            if all(point.status != "failed" for point in refined[job.key]):
                result[key] = refined[job.key]
        return result

    def _evaluate_all(self, jobs: Sequence[Job], stage: str) -> dict[str, Evaluation]:
        finished: dict[str, Evaluation] = {}
        for job in jobs:
            stored = self._store.evaluation(job)
            if stored is not None and not stored.failed:
                finished[job.key] = replace(stored, job=job)
        if finished:
            log.info("%d of %d evaluations were in the store", len(finished), len(jobs))
        self._report(stage, len(finished), len(jobs))
        todo = [job for job in jobs if job.key not in finished]
        if not todo:
            return finished
        for job, result in self._workers.run(_Step(self._evaluate, self._store), todo):
            if isinstance(result, StorageError):
                raise result
            if isinstance(result, BaseException):
                result = Evaluation(job=job, accuracy=None, reason=reason_of(result))
                self._store.put_evaluation(result)
            if result.failed:
                log.warning("recipe %s failed: %s", job.recipe, result.reason)
            finished[job.key] = result
            self._report(stage, len(finished), len(jobs))
        return finished


@dataclass(frozen=True, slots=True)
class _Step:
    """In a worker: evaluate a job and store the evaluation."""

    evaluate: EvaluateFunction
    store: Store

    def __call__(self, job: Job) -> Evaluation:
        stored = self.store.evaluation(job)  # a cluster runs a task again when the worker that had done it dies
        if stored is not None and not stored.failed:
            return stored
        evaluation = Evaluation(job=job, accuracy=self.evaluate(job))
        self.store.put_evaluation(evaluation)
        return evaluation


def price(evaluation: Evaluation, case: Case, cost: CostFunction) -> Point:
    """A point, whatever the cost function does."""
    if evaluation.failed:
        return Point.of(evaluation, case, Cost(status="failed", reason=evaluation.reason))
    try:
        return Point.of(evaluation, case, cost(evaluation, case))
    except StorageError:
        raise
    except Exception as error:  # whatever one recipe's pricing does, the sweep goes on and says so
        log.warning("no cost of recipe %s on %s: %s", evaluation.job.recipe, case.target, error)
        log.debug("the cost function raised", exc_info=error)
        return Point.of(evaluation, case, Cost(status="failed", reason=reason_of(error)))


def reason_of(error: BaseException) -> str:
    """One line of an error, with its type where it is none of ours."""
    text = str(error).strip().split("\n", 1)[0]
    return text if isinstance(error, SparseFabError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def _silent(stage: str, done: int, total: int) -> None:
    """Say nothing."""
