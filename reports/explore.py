"""Explore: evaluate recipes for accuracy, price them on targets, and evaluate the best again more precisely.

Accuracy is dear (minutes) and runs in worker processes, once a recipe; a worker stores what it finishes before it says
so. Pricing is cheap and runs here, once a recipe, target, phase, batch and context. Everything stored is found again by
the next run. The order of the result is that of the jobs and the cases, whatever finished first.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sparsefab.errors import SparseFabError, StorageError
from sparsefab.reports.pareto import standings
from sparsefab.reports.points import Accuracy, Case, Cost, Evaluation, Job, Point
from sparsefab.reports.store import Store
from sparsefab.reports.workers import run_all

__all__ = ["CostFunction", "EvaluateFunction", "ProgressFunction", "RefineFunction", "explore"]

log = logging.getLogger(__name__)

_UNSTORED_S = 0.5  # priced points are stored together at least this often: pricing is faster than writing a file

EvaluateFunction = Callable[[Job], Accuracy]
CostFunction = Callable[[Evaluation, Case], Cost]
RefineFunction = Callable[[Job], Job]
ProgressFunction = Callable[[str, int, int], None]


def explore(
    jobs: Sequence[Job],
    evaluate: EvaluateFunction,
    cases: Sequence[Case],
    cost: CostFunction,
    store: Store,
    *,
    workers: int = 2,
    refine: RefineFunction | None = None,
    progress: ProgressFunction | None = None,
) -> list[Point]:
    """Evaluate every job and price it for every case; resume from what the store holds.

    Parameters
    ----------
    jobs                         Recipes; one that repeats an earlier key is left out.
    evaluate                     Job -> Accuracy, run in a spawned process: an importable function, or an instance of an
                                 importable class that carries what it needs. Same job, same result.
    cases                        What to price for.
    cost                         (Evaluation, Case) -> Cost, run here; never called for a failed evaluation.
    store : Store                Where results are kept and looked for.
    workers : int                Worker processes.
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
    report = progress or _silent
    unique = list({job.key: job for job in reversed(jobs)}.values())[::-1]
    points = _explore(unique, evaluate, cases, cost, store, workers, "evaluate", report)
    if refine is None:
        return [point for key in points for point in points[key]]
    first = [point for key in points for point in points[key]]
    best = {standing.point.recipe_text for standing in standings(first) if standing.on_front}
    again = {job.key: refine(job) for job in unique if job.recipe_text in best}
    refined = _explore(list(again.values()), evaluate, cases, cost, store, workers, "refine", report)
    for key, job in again.items():
        if all(point.status != "failed" for point in refined[job.key]):
            points[key] = refined[job.key]
    return [point for key in points for point in points[key]]


def _explore(
    jobs: Sequence[Job],
    evaluate: EvaluateFunction,
    cases: Sequence[Case],
    cost: CostFunction,
    store: Store,
    workers: int,
    stage: str,
    report: ProgressFunction,
) -> dict[str, list[Point]]:
    """Points by the key of their job."""
    evaluations = _evaluate_all(jobs, evaluate, store, workers, stage, report)
    known = {point.key: point for point in store.points() if point.status != "failed"}
    points: dict[str, list[Point]] = {}
    fresh: list[Point] = []
    stored_s = time.monotonic()
    for done, job in enumerate(jobs, start=1):
        points[job.key] = []
        for case in cases:
            point = known.get(case.key(job))
            if point is None:
                point = _price(evaluations[job.key], case, cost)
                fresh.append(point)
            points[job.key].append(replace(point, recipe=job.recipe))
        if time.monotonic() - stored_s > _UNSTORED_S or done == len(jobs):
            store.put_points(fresh)
            fresh, stored_s = [], time.monotonic()
        report("price", done, len(jobs))
    return points


def _evaluate_all(
    jobs: Sequence[Job], evaluate: EvaluateFunction, store: Store, workers: int, stage: str, report: ProgressFunction
) -> dict[str, Evaluation]:
    finished: dict[str, Evaluation] = {}
    for job in jobs:
        stored = store.evaluation(job)
        if stored is not None and not stored.failed:
            finished[job.key] = replace(stored, job=job)
    if finished:
        log.info("%d of %d evaluations were in the store", len(finished), len(jobs))
    report(stage, len(finished), len(jobs))
    todo = [job for job in jobs if job.key not in finished]
    if not todo:
        return finished
    for job, result in run_all(_Step(evaluate, store), todo, workers):
        if isinstance(result, StorageError):
            raise result
        if isinstance(result, BaseException):
            result = Evaluation(job=job, accuracy=None, reason=_reason(result))
            store.put_evaluation(result)
        if result.failed:
            log.warning("recipe %s failed: %s", job.recipe, result.reason)
        finished[job.key] = result
        report(stage, len(finished), len(jobs))
    return finished


@dataclass(frozen=True, slots=True)
class _Step:
    """In a worker: evaluate a job and store the evaluation."""

    evaluate: EvaluateFunction
    store: Store

    def __call__(self, job: Job) -> Evaluation:
        evaluation = Evaluation(job=job, accuracy=self.evaluate(job))
        self.store.put_evaluation(evaluation)
        return evaluation


def _price(evaluation: Evaluation, case: Case, cost: CostFunction) -> Point:
    if evaluation.failed:
        return Point.of(evaluation, case, Cost(status="failed", reason=evaluation.reason))
    try:
        return Point.of(evaluation, case, cost(evaluation, case))
    except StorageError:
        raise
    except Exception as error:  # whatever one recipe's pricing does, the sweep goes on and says so
        log.warning("no cost of recipe %s on %s: %s", evaluation.job.recipe, case.target, error)
        log.debug("the cost function raised", exc_info=error)
        return Point.of(evaluation, case, Cost(status="failed", reason=_reason(error)))


def _reason(error: BaseException) -> str:
    text = str(error).strip().split("\n", 1)[0]
    return text if isinstance(error, SparseFabError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def _silent(stage: str, done: int, total: int) -> None:
    """Say nothing."""
