"""A whole exploration: a model and a space in, points out; what `Session.explore` and the command line run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sparsefab.cost_models.estimate import Options
from sparsefab.errors import ConfigError
from sparsefab.models.compress import Recipe, Rule
from sparsefab.reports.allocate import allocated_recipes
from sparsefab.reports.dask_workers import DaskWorkers
from sparsefab.reports.explore import Explorer, ProgressFunction, flat
from sparsefab.reports.objectives import DEFAULT_OBJECTIVES, SHAPE_OBJECTIVES, objectives_of
from sparsefab.reports.points import Job, LayerError, Point
from sparsefab.reports.pricer import Pricer
from sparsefab.reports.search import Problem, grid, search
from sparsefab.reports.shapes import ShapeEvaluator, ShapeExplorer, shape_jobs
from sparsefab.reports.space import Space
from sparsefab.reports.store import Store
from sparsefab.reports.sweep import (
    RecipeEvaluator,
    cases_for,
    full_job,
    jobs_for,
    layer_errors,
    open_model,
)
from sparsefab.reports.workers import ProcessWorkers, Workers
from sparsefab.targets import Device
from sparsefab.workload import Workload

__all__ = ["Studied", "study_model", "study_shapes"]

Targets = Mapping[str, tuple[Device, Options]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Studied:
    """What an exploration found.

    recipes : (name, text)          Those that were asked for, in order.
    layers                          Errors of the layers, where weights were known.
    """

    points: tuple[Point, ...]
    recipes: tuple[tuple[str, str], ...]
    layers: tuple[LayerError, ...]
    objectives: tuple[str, ...]


def study_model(
    evaluator: RecipeEvaluator,
    space: Space,
    fixed: Sequence[Recipe],
    targets: Targets,
    store: Store,
    *,
    workers: int,
    scheduler: str | None = None,
    budget: int | None = None,
    progress: ProgressFunction | None = None,
) -> Studied:
    """Judge and price the designs of a space, and judge the fronts again at full length.

    Raises
    ------
    ConfigError, StorageError, SchedulerLost
    """
    loaded = open_model(evaluator.source)
    task = evaluator.task(loaded, "full")
    data = task.protocol.data_sha256
    allocated = [] if space.allocation is None else allocated_recipes(loaded, space.allocation)

    def job(recipe: Recipe) -> Job:
        return jobs_for(evaluator, [recipe], evaluator.source.sha256, data)[0]

    objectives = space.objectives or DEFAULT_OBJECTIVES
    problem = _problem(space, fixed, allocated, job, loaded.workload, targets, objectives)
    designs = grid(problem)[:budget] if space.search.method == "grid" else []
    # the baseline serves every recipe: computed here once, on all cores, before the workers start
    first = designs[0][0] if designs else job(Recipe(name="baseline", rules=(Rule(weights="float"),)))
    evaluator.baseline(first, None if progress is None else lambda done, total: progress("baseline", done, total))
    pool: Workers = ProcessWorkers(workers) if scheduler is None else DaskWorkers(scheduler)
    try:
        explorer = Explorer(evaluator, Pricer(workload=loaded.workload, targets=targets), store, pool, progress)
        found = explorer.points(designs) if designs else search(problem, explorer, evaluator.seed, progress)
        if evaluator.screen != evaluator.full:
            found = explorer.refined(found, lambda job: full_job(evaluator, job), objectives, space.limits)
    finally:
        pool.close()
    jobs = explorer.jobs
    return Studied(
        points=tuple(flat(found)),
        recipes=tuple(dict.fromkeys((job.recipe, job.recipe_text) for job in jobs)),
        layers=tuple(layer_errors(store, [job for job in jobs if job.fidelity == "screen"])),
        objectives=objectives,
    )


def study_shapes(
    name: str,
    workload: Workload,
    space: Space,
    fixed: Sequence[Recipe],
    targets: Targets,
    store: Store,
    *,
    workers: int,
    scheduler: str | None = None,
    budget: int | None = None,
    seed: int = 0,
    progress: ProgressFunction | None = None,
) -> Studied:
    """Price the designs of a space for a model known by shape alone.

    Raises
    ------
    ConfigError                     If the space asks for what only weights tell: loss, an allocation.
    """
    objectives = space.objectives or SHAPE_OBJECTIVES
    unknown = {"loss", "loss_fraction"} & {*objectives, *space.limits.at_most, *space.limits.at_least}
    if unknown or space.allocation is not None:
        what = ", ".join(sorted(unknown)) or "an allocation"
        raise ConfigError(f"{name} is known by shape alone, so {what} cannot be had; choose bits_per_weight instead")
    seen: dict[str, Job] = {}

    def job(recipe: Recipe) -> Job:
        key = recipe.text
        if key not in seen:
            seen[key] = shape_jobs(name, workload, [(recipe.name, key)], seed)[0]
        return seen[key]

    problem = _problem(space, fixed, [], job, workload, targets, objectives)
    shapes = ShapeEvaluator(workload)
    pool: Workers = ProcessWorkers(workers) if scheduler is None else DaskWorkers(scheduler)
    try:
        explorer = ShapeExplorer(
            shapes, Pricer(workload=workload, targets=targets, shapes=shapes), store, pool, progress
        )
        if space.search.method == "grid":
            found = explorer.points(grid(problem)[:budget])
        else:
            found = search(problem, explorer, seed, progress)
    finally:
        pool.close()
    points = flat(found)
    recipes = tuple(dict.fromkeys((point.recipe, point.recipe_text) for point in points))
    return Studied(points=tuple(points), recipes=recipes, layers=(), objectives=objectives)


def _problem(
    space: Space,
    fixed: Sequence[Recipe],
    allocated: Sequence[Recipe],
    job: Callable[[Recipe], Job],
    workload: Workload,
    targets: Targets,
    objectives: Sequence[str],
) -> Problem:
    objectives_of(objectives)
    named: dict[str, Recipe] = {}
    for recipe in fixed:
        if named.setdefault(recipe.name, recipe) != recipe:
            raise ConfigError(f"two different recipes are called {recipe.name!r}; give one of them another name")
    return Problem(
        space=space,
        fixed=named,
        allocated={recipe.name: recipe for recipe in allocated},
        job=job,
        cases=lambda target, arch: cases_for(
            workload, target, targets[target], space.batch, space.context, arch, space.kv
        ),
        targets=tuple(targets),
        fpga=frozenset(name for name, (device, _) in targets.items() if device.kind == "fpga"),
        objectives=tuple(objectives),
    )
