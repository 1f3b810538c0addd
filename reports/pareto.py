"""Pareto fronts: what is best when loss of accuracy and latency both count, and what cannot be told from the best.

A front is taken among points that answer one question: one target, phase, batch and context (`group_key`), and within
it the highest fidelity that was reached. A point without loss or latency is on no front.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsefab.reports.points import Interval, Point

__all__ = ["Standing", "fronts", "group_key", "hypervolume", "non_dominated", "standings"]

GroupKey = tuple[str, str, str, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a point stands in its group.

    `tied_with` holds the keys of the front points that it cannot be told from: its loss interval and its latency
    interval both overlap theirs. A front point may be tied with other front points.
    """

    point: Point
    on_front: bool
    tied_with: tuple[str, ...] = ()

    @property
    def rank(self) -> str:
        """'front', 'indistinguishable' (from some front point), 'dominated', or 'none' (a figure is missing)."""
        if self.on_front:
            return "front"
        if self.tied_with:
            return "indistinguishable"
        return "dominated" if _plotted(self.point) else "none"


def group_key(point: Point) -> GroupKey:
    """What points must share to be compared on one front: model, target, phase, batch, context."""
    return point.model, point.target, point.phase, point.batch, point.context


def standings(points: Sequence[Point]) -> list[Standing]:
    """The standing of every point within its group, in the given order."""
    result: dict[int, Standing] = {}
    groups: dict[GroupKey, list[int]] = {}
    for index, point in enumerate(points):
        if _plotted(point):
            groups.setdefault(group_key(point), []).append(index)
        else:
            result[index] = Standing(point=point, on_front=False)
    for members in groups.values():
        result |= dict(zip(members, _rank([points[index] for index in members]), strict=True))
    return [result[index] for index in range(len(points))]


def fronts(points: Sequence[Point]) -> dict[GroupKey, list[Point]]:
    """The front of every group, fastest point first."""
    result: dict[GroupKey, list[Point]] = {}
    for standing in standings(points):
        if standing.on_front:
            result.setdefault(group_key(standing.point), []).append(standing.point)
    for front in result.values():
        front.sort(key=lambda point: (_interval(point.latency_s).value, _interval(point.loss).value))
    return result


def non_dominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark the rows that no other row dominates, all columns minimized.

    Parameters
    ----------
    values : float64[points, objectives]   A row with a NaN is never marked.

    Returns
    -------
    bool[points]                 Equal rows are marked together: neither dominates the other.
    """
    if values.ndim != 2:
        raise ValueError(f"values must be [points, objectives], not of {values.ndim} dimensions")
    marked = np.zeros(len(values), dtype=np.bool_)
    usable = np.flatnonzero(~np.isnan(values).any(axis=1))
    # In lexicographic order a row can only be dominated by an earlier one, so the front grows and never shrinks.
    order = usable[np.lexsort(values[usable].T[::-1])]
    front = np.empty((len(order), values.shape[1]))
    size = 0
    for index in order:
        row = values[index]
        better = front[:size]
        if not np.any(np.all(better <= row, axis=1) & np.any(better < row, axis=1)):
            marked[index] = True
            front[size] = row
            size += 1
    return marked


def hypervolume(values: NDArray[np.float64], reference: tuple[float, float]) -> float:
    """Area that the front dominates below a reference point, exactly, both columns minimized.

    Parameters
    ----------
    values : float64[points, 2]  Rows beyond the reference, or with a NaN, add nothing.
    reference                    The worst values that count.
    """
    if values.ndim != 2 or values.shape[1] != 2:
        raise ValueError(f"values must be [points, 2], not {values.shape}")
    inside = values[(values < np.asarray(reference)).all(axis=1)]
    front = inside[non_dominated(inside)]
    front = front[np.argsort(front[:, 0], kind="stable")]
    area, height = 0.0, reference[1]
    for first, second in front:
        area += (reference[0] - first) * (height - second)
        height = float(second)
    return area


def _rank(members: Sequence[Point]) -> list[Standing]:
    """Standings within a group of points that all have a loss and a latency."""
    finest = "full" if any(point.fidelity == "full" for point in members) else "screen"
    loss = np.array([_bounds(point.loss) for point in members])
    latency = np.array([_bounds(point.latency_s) for point in members])
    values = np.column_stack([loss[:, 0], latency[:, 0]])
    values[[point.fidelity != finest for point in members]] = np.nan
    front = np.flatnonzero(non_dominated(values))
    result = []
    for index, point in enumerate(members):
        overlap = (
            (loss[front, 1] <= loss[index, 2])
            & (loss[index, 1] <= loss[front, 2])
            & (latency[front, 1] <= latency[index, 2])
            & (latency[index, 1] <= latency[front, 2])
        )
        tied = tuple(members[other].key for other in front[overlap] if other != index)
        result.append(Standing(point=point, on_front=bool(np.isin(index, front)), tied_with=tied))
    return result


def _plotted(point: Point) -> bool:
    return point.status == "ok" and point.loss is not None and point.latency_s is not None


def _interval(interval: Interval | None) -> Interval:
    if interval is None:
        raise ValueError("a point on a front must have a loss and a latency")
    return interval


def _bounds(interval: Interval | None) -> tuple[float, float, float]:
    known = _interval(interval)
    return known.value, known.low, known.high
