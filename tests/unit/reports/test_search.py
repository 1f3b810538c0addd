"""Grids and searches on the toy: what they ask for, that seeds decide, that limits hold."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sparsefab.errors import ConfigError
from sparsefab.models.compress import Recipe
from sparsefab.reports.explore import Explorer, flat
from sparsefab.reports.objectives import Limits
from sparsefab.reports.pareto import fronts
from sparsefab.reports.points import Case, Evaluation, Job, Point
from sparsefab.reports.schema import encode_points
from sparsefab.reports.search import Problem, check_feasible, grid, search
from sparsefab.reports.space import ArchChoices, Family, RuleChoices, Search, Space
from sparsefab.reports.store import Store
from tests.unit.reports import toy

OBJECTIVES = ("loss", "latency_s")


class Inline:
    """Workers that run in the test itself, and count."""

    def __init__(self) -> None:
        self.tasks = 0

    def run(self, function, tasks):  # type: ignore[no-untyped-def]
        for task in tasks:
            self.tasks += 1
            yield task, function(task)

    def close(self) -> None:
        """Nothing was started."""


def job(recipe: Recipe) -> Job:
    """Bits from the rule's format, density from its group size: the toy knows no others."""
    rule = recipe.rules[0]
    made = toy.make_job(int(rule.weights[3:]), (rule.group_size or 100) / 100)
    return replace(made, recipe=recipe.name)


def cases(target: str, arch: str) -> Sequence[Case]:
    return [replace(case, arch=arch) for case in toy.make_cases(("decode",)) if case.target == target]


def problem(method: str = "grid", trials: int = 40, **change: object) -> Problem:
    rule = RuleChoices(weights=("int2", "int3", "int4", "int5", "int6", "int7", "int8"), group_size=(25, 50, 75, "row"))
    space = Space(
        families=(Family(name="f", rules=(rule,)),),
        arch=ArchChoices(dsps=(32, 64)),
        search=Search(method=method, trials=trials, population=8),  # type: ignore[arg-type]  # tested with wrong ones
        **change,  # type: ignore[arg-type]
    )
    return Problem(
        space=space,
        fixed={},
        allocated={},
        job=job,
        cases=cases,
        targets=("u280", "a100"),
        fpga=frozenset({"u280"}),
        objectives=OBJECTIVES,
    )


def explorer(folder: Path, workers: Inline) -> Explorer:
    return Explorer(toy.accuracy, toy.cost, Store(folder), workers)


def test_a_grid_is_every_recipe_on_every_target_and_accelerator(tmp_path: Path) -> None:
    designs = grid(problem())
    assert len(designs) == 28
    archs = {(case.target, case.arch) for _, asked in designs for case in asked}
    assert archs == {("u280", "dsps = 32\n"), ("u280", "dsps = 64\n"), ("a100", "")}
    points = flat(explorer(tmp_path, Inline()).points(designs))
    assert len(points) == len({point.key for point in points}) == 28 * 3


@pytest.mark.parametrize("method", ["nsga2", "tpe"])
def test_equal_seeds_give_equal_searches_and_the_store_resumes_them(tmp_path: Path, method: str) -> None:
    pytest.importorskip("optuna")
    workers = Inline()
    first = flat(search(problem(method), explorer(tmp_path / "a", workers), seed=5))
    again = flat(search(problem(method), explorer(tmp_path / "b", Inline()), seed=5))
    assert encode_points(first) == encode_points(again)
    assert [sorted(p.key for p in front) for front in fronts(first).values()] == [
        sorted(p.key for p in front) for front in fronts(again).values()
    ]
    resumed = Inline()
    assert flat(search(problem(method), explorer(tmp_path / "a", resumed), seed=5)) == first
    assert resumed.tasks == 0
    assert 8 < workers.tasks <= 28
    other = flat(search(problem(method), explorer(tmp_path / "c", Inline()), seed=6))
    assert [point.key for point in other] != [point.key for point in first]


def test_a_search_comes_close_to_the_grid(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    every = flat(explorer(tmp_path / "grid", Inline()).points(grid(problem())))
    found = flat(search(problem("nsga2", trials=120), explorer(tmp_path / "nsga2", Inline()), seed=1))
    best = {point.recipe for point in fronts(every)["toy-lm", "u280", "decode", 1, 512, ""]}
    mine = {point.recipe for point in fronts(found)["toy-lm", "u280", "decode", 1, 512, ""]}
    assert len(mine & best) >= 0.6 * len(best)


def made(limits: Limits) -> list[Point]:
    points = []
    for design, asked in grid(problem(limits=limits)):
        evaluation = Evaluation(job=design, accuracy=toy.accuracy(design))
        points += [Point.of(evaluation, case, toy.cost(evaluation, case)) for case in asked]
    return points


def test_a_space_without_a_feasible_point_says_which_came_closest() -> None:
    check_feasible(made(Limits()), OBJECTIVES, Limits(at_most={"latency_s": 1.0}))
    limits = Limits(at_most={"latency_s": 1e-9})
    with pytest.raises(ConfigError, match=r"keeps the limits \(latency_s at most 1e-09\); the closest of \d+ is f-"):
        check_feasible(made(limits), OBJECTIVES, limits)
    absent = [replace(point, status="absent", reason="no 2-bit kernel") for point in made(limits)]
    with pytest.raises(ConfigError, match="no point of the space has loss and latency_s: no 2-bit kernel"):
        check_feasible(absent, OBJECTIVES, limits)


def test_a_search_in_which_everything_fails_ends(tmp_path: Path) -> None:
    pytest.importorskip("optuna")

    class Failing(Inline):
        def run(self, function, tasks):  # type: ignore[no-untyped-def]
            return ((task, OSError("no such data")) for task in tasks)

    points = flat(search(problem("tpe", trials=16), explorer(tmp_path, Failing()), seed=0))
    assert {point.status for point in points} == {"failed"}
    assert {point.reason for point in points} == {"OSError: no such data"}
