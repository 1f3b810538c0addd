"""Search a space: every design of a grid, or what NSGA-II or TPE asks for, round by round.

The driver holds the study and asks and tells; workers only evaluate. A round is asked for whole and told whole in the
order it was asked, so equal seeds give equal searches whatever finishes first; and a search that was ended is resumed
by asking again, since all that was evaluated is found in the store.

Each target has a study of its own: one study over all would drop every target but the fastest. A design is told with
its figures at the first batch and context, in decode where there is one; it is priced for every batch, context and
phase.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sparsefab.errors import ConfigError, MissingToolError
from sparsefab.models.compress import Recipe
from sparsefab.reports.explore import Design, ProgressFunction
from sparsefab.reports.objectives import Limits, Objective, objectives_of
from sparsefab.reports.points import Case, Job, Point
from sparsefab.reports.space import Space, arch_text

if TYPE_CHECKING:
    import optuna

__all__ = ["Explores", "Problem", "check_feasible", "grid", "search"]

log = logging.getLogger(__name__)


class Explores(Protocol):
    """Gives the points of designs, by the key of their job."""

    def points(self, designs: Sequence[Design]) -> dict[str, list[Point]]:
        """See `explore.Explorer`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A space made ready: recipes loaded, allocated and turned into jobs, cases known.

    Parameters
    ----------
    fixed : recipes by name      The named recipes, and 'allocation' recipes apart.
    allocated                    Recipes of the allocation, by their name.
    job                          Recipe -> Job.
    cases                        (target, text of the accelerator) -> cases; the first is what a search goes by.
    fpga : targets               Those that take an accelerator.
    """

    space: Space
    fixed: Mapping[str, Recipe]
    allocated: Mapping[str, Recipe]
    job: Callable[[Recipe], Job]
    cases: Callable[[str, str], Sequence[Case]]
    targets: tuple[str, ...]
    fpga: frozenset[str]
    objectives: tuple[str, ...]


def grid(problem: Problem) -> list[Design]:
    """Every recipe for every target, and for every accelerator where the target takes one."""
    families = [recipe for family in problem.space.families for recipe in family.recipes()]
    recipes = [*problem.fixed.values(), *problem.allocated.values(), *families]
    archs = list(problem.space.arch.texts()) if problem.space.arch.choices else [""]
    cases = [
        case
        for target in problem.targets
        for arch in (archs if target in problem.fpga else [""])
        for case in problem.cases(target, arch)
    ]
    return [(problem.job(recipe), cases) for recipe in recipes]


def search(
    problem: Problem, explorer: Explores, seed: int, progress: ProgressFunction | None = None
) -> dict[str, list[Point]]:
    """Ask, evaluate and tell until the trials are used up; the points in the order they were asked for."""
    options = problem.space.search
    objectives = objectives_of(problem.objectives)
    each = max(1, options.trials // len(problem.targets))
    studies = {target: _study(problem, seed + place) for place, target in enumerate(problem.targets)}
    designs: list[Design] = []
    done = 0
    while done < each:
        count = min(options.population, each - done)
        asked = [(target, study.ask()) for target, study in studies.items() for _ in range(count)]
        wanted = [_design(problem, target, trial) for target, trial in asked]
        designs += wanted
        found = explorer.points(wanted)
        for (target, trial), (job, cases) in zip(asked, wanted, strict=True):
            point = next(point for point in found[job.key] if point.key == cases[0].key(job))
            _tell(studies[target], trial, point, objectives, problem.space.limits)
        done += count
        if progress is not None:
            progress("search", done * len(studies), each * len(studies))
    return explorer.points(designs)


def check_feasible(points: Sequence[Point], objectives: Sequence[str], limits: Limits) -> None:
    """Tell when no point keeps the limits, and which comes closest.

    Raises
    ------
    ConfigError                  If none does.
    """
    chosen = objectives_of(objectives)
    usable = [p for p in points if p.status == "ok" and all(objective.of(p) is not None for objective in chosen)]
    if not usable:
        reasons = sorted({point.reason for point in points if point.reason})
        raise ConfigError(
            f"no point of the space has {' and '.join(objectives)}: {'; '.join(reasons[:3]) or 'nothing to evaluate'}"
        )
    closest = min(usable, key=limits.excess)
    if limits.excess(closest) > 0.0:
        figures = ", ".join(
            f"{objective.name} {value.value:.4g}"
            for objective in chosen
            if (value := objective.of(closest)) is not None
        )
        raise ConfigError(
            f"no point of the space keeps the limits ({limits.text}); the closest of {len(usable)} is {closest.recipe} "
            f"on {closest.target} with {figures}, which breaks {', '.join(limits.broken(closest))}"
        )


def _study(problem: Problem, seed: int) -> "optuna.Study":
    try:
        import optuna
    except ImportError as error:
        raise MissingToolError(
            f"search {problem.space.search.method} needs Optuna; install sparsefab[search]"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = problem.space.search
    sampler: optuna.samplers.BaseSampler
    if options.method == "nsga2":
        sampler = optuna.samplers.NSGAIISampler(population_size=options.population, seed=seed)
    else:
        sampler = optuna.samplers.TPESampler(n_startup_trials=options.population, seed=seed)
    study = optuna.create_study(directions=["minimize"] * len(problem.objectives), sampler=sampler)
    for name in problem.allocated:  # a warm start: the best that layer errors promise comes first
        study.enqueue_trial({"recipe": "allocation", "allocation": name})
    return study


def _design(problem: Problem, target: str, trial: "optuna.Trial") -> Design:
    """Names of fixed recipes and of families are one choice; a family's own choices follow."""
    space = problem.space
    families = {family.name: family for family in space.families}
    names = [*problem.fixed, *families, *(["allocation"] if problem.allocated else [])]
    name = trial.suggest_categorical("recipe", names)
    if name in families:
        family = families[name]
        chosen: dict[str, int | str] = {}
        for parameter, choices in family.parameters.items():
            place = 0
            if len(choices) > 1:  # by its place: the values are of mixed types
                place = int(str(trial.suggest_categorical(f"{name}.{parameter}", list(range(len(choices))))))
            chosen[parameter] = choices[place]
        recipe = family.recipe(chosen)
    elif name == "allocation" and problem.allocated:
        recipe = problem.allocated[trial.suggest_categorical("allocation", list(problem.allocated))]
    else:
        recipe = problem.fixed[name]
    arch = ""
    if target in problem.fpga and space.arch.choices:
        arch = arch_text({name: trial.suggest_categorical(name, list(c)) for name, c in space.arch.choices.items()})
    return problem.job(recipe), problem.cases(target, arch)


def _tell(
    study: "optuna.Study", trial: "optuna.Trial", point: Point, objectives: Sequence[Objective], limits: Limits
) -> None:
    import optuna

    values = [objective.cost_of(point) for objective in objectives]
    known = [value.value for value in values if value is not None]
    if point.status != "ok" or len(known) < len(objectives):
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    trial.set_constraint("limits", limits.excess(point))
    study.tell(trial, known)
