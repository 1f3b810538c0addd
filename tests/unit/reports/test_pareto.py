"""Fronts and hypervolumes against definitions written out."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sparsefab.reports.pareto import fronts, hypervolume, non_dominated, standings
from sparsefab.reports.points import Evaluation, Interval, Point
from tests.unit.reports import toy

coordinate = st.one_of(st.integers(0, 6).map(float), st.just(float("nan")))


def dominated(row: NDArray[np.float64], by: NDArray[np.float64]) -> bool:
    return all(b <= a for a, b in zip(row, by, strict=True)) and any(b < a for a, b in zip(row, by, strict=True))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3).flatmap(lambda d: st.lists(st.lists(coordinate, min_size=d, max_size=d), max_size=30)))
def test_non_dominated_is_what_its_definition_says(rows: list[list[float]]) -> None:
    values = np.array(rows, dtype=np.float64).reshape(len(rows), -1 if rows else 2)
    usable = [row for row in values if not np.isnan(row).any()]
    expected = [not np.isnan(row).any() and not any(dominated(row, other) for other in usable) for row in values]
    assert non_dominated(values).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_hypervolume_counts_the_dominated_cells(rows: list[tuple[int, int]]) -> None:
    cells = sum(any(a <= x and b <= y for a, b in rows) for x, y in itertools.product(range(8), range(8)))
    values = np.array(rows, dtype=np.float64).reshape(-1, 2)
    assert hypervolume(values, (8.0, 8.0)) == cells


def test_hypervolume_of_nothing_and_of_the_wrong_shape() -> None:
    assert hypervolume(np.empty((0, 2)), (1.0, 1.0)) == 0.0
    assert hypervolume(np.array([[np.nan, 0.0], [2.0, 0.0]]), (1.0, 1.0)) == 0.0
    with pytest.raises(ValueError, match=r"\[points, 2\]"):
        hypervolume(np.zeros((2, 3)), (1.0, 1.0))


def point(loss: float, latency_s: float, part: float = 0.0, **change: object) -> Point:
    job = toy.make_job(4, 1.0)
    evaluation = Evaluation(job=job, accuracy=toy.accuracy(job))
    case = toy.make_cases()[0]
    made = Point.of(evaluation, case, toy.cost(evaluation, case))
    return replace(
        made,
        key=f"{loss}-{latency_s}-{change}",
        delta=toy.around(loss, part),
        latency_s=toy.around(latency_s, part),
        **change,
    )  # type: ignore[arg-type]


def test_targets_phases_and_settings_have_fronts_of_their_own() -> None:
    points = [
        point(1, 1),
        point(2, 2),
        point(2, 2, target="u50"),
        point(2, 2, phase="decode"),
        point(2, 2, batch=8),
        point(2, 2, context=64),
        point(2, 2, kv="gear"),
        point(2, 2, model="other"),
    ]
    assert [standing.rank for standing in standings(points)] == ["front", "dominated", *["front"] * 6]
    assert len(fronts(points)) == 7


def test_a_front_is_sorted_and_ties_stay_together() -> None:
    points = [point(1, 3), point(3, 1), point(2, 2, recipe="a"), point(2, 2, recipe="b"), point(3, 3)]
    (front,) = fronts(points).values()
    assert [made.recipe for made in front] == [points[1].recipe, "a", "b", points[0].recipe]


def test_a_point_without_figures_is_on_no_front() -> None:
    points = [
        point(1, 1),
        replace(point(0, 0), latency_s=None),
        replace(point(0, 0), delta=None),
        replace(point(0, 0), status="absent", reason="no kernel"),
    ]
    assert [standing.rank for standing in standings(points)] == ["front", "none", "none", "none"]


def test_overlap_in_both_directions_makes_points_indistinguishable() -> None:
    best = point(1.0, 1.0, part=0.1)
    near = point(1.1, 1.1, part=0.1)
    slow = replace(point(1.1, 5.0, part=0.1), key="slow")  # its loss overlaps, its latency does not
    ranks = standings([best, near, slow])
    assert [standing.rank for standing in ranks] == ["front", "indistinguishable", "dominated"]
    assert ranks[1].tied_with == (best.key,)


def test_a_refined_point_is_compared_with_refined_points_only() -> None:
    points = [point(1, 1, fidelity="screen"), point(2, 2, fidelity="full"), point(3, 3, fidelity="full")]
    assert [standing.on_front for standing in standings(points)] == [False, True, False]


def test_negative_loss_is_a_gain() -> None:
    gained = replace(point(0.5, 1.0), delta=Interval(value=-0.5, low=-0.6, high=-0.4))
    assert [standing.on_front for standing in standings([gained, point(0.0, 1.0)])] == [True, False]
