"""Pareto fronts: what is best when several objectives count, and what cannot be told from the best.

The objectives are loss of accuracy and latency unless others are chosen. A front is taken among points that answer one
question: one target, phase, batch, context and cache (`group_key`), and within it the highest fidelity that was
reached. A point that lacks an objective, or breaks a limit, is on no front.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsefab.reports.objectives import DEFAULT_OBJECTIVES, Limits, Objective, objectives_of
from sparsefab.reports.points import Interval, Point

__all__ = ["Standing", "fronts", "group_key", "hypervolume", "non_dominated", "standings"]

GroupKey = tuple[str, str, str, int, int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a point stands in its group.

    `tied_with` holds the keys of the front points that it cannot be told from: its interval overlaps theirs in every
    objective. A front point may be tied with other front points. `broken` names the limits that the point breaks.
    """

    point: Point
    on_front: bool
    tied_with: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    complete: bool = True

    @property
    def rank(self) -> str:
        """'front', 'indistinguishable' (from some front point), 'dominated', 'outside' the limits, or 'none'."""
        if not self.complete:  # a figure is missing
            return "none"
        if self.broken:
            return "outside"
        if self.on_front:
            return "front"
        if self.tied_with:
            return "indistinguishable"
        return "dominated"


def group_key(point: Point) -> GroupKey:
    """What points must share to be compared on one front: model, target, phase, batch, context, cache.

    The cache is none of a front's choices: the loss does not count what its format loses.
    """
    return point.model, point.target, point.phase, point.batch, point.context, point.kv


def standings(
    points: Sequence[Point], objectives: Sequence[str] = DEFAULT_OBJECTIVES, limits: Limits | None = None
) -> list[Standing]:
    """The standing of every point within its group, in the given order."""
    chosen = objectives_of(objectives)
    result: dict[int, Standing] = {}
    groups: dict[GroupKey, list[int]] = {}
    for index, point in enumerate(points):
        if point.status != "ok" or any(objective.of(point) is None for objective in chosen):
            result[index] = Standing(point=point, on_front=False, complete=False)
        elif limits and (broken := limits.broken(point)):
            result[index] = Standing(point=point, on_front=False, broken=broken)
        else:
            groups.setdefault(group_key(point), []).append(index)
    for members in groups.values():
        result |= dict(zip(members, _rank([points[index] for index in members], chosen), strict=True))
    return [result[index] for index in range(len(points))]


def fronts(
    points: Sequence[Point], objectives: Sequence[str] = DEFAULT_OBJECTIVES, limits: Limits | None = None
) -> dict[GroupKey, list[Point]]:
    """The front of every group, best in the last objective first: the fastest, where that is the latency."""
    chosen = objectives_of(objectives)
    result: dict[GroupKey, list[Point]] = {}
    for standing in standings(points, objectives, limits):
        if standing.on_front:
            result.setdefault(group_key(standing.point), []).append(standing.point)
    for front in result.values():
        front.sort(key=lambda point: tuple(_known(objective.cost_of(point)).value for objective in reversed(chosen)))
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


def hypervolume(values: NDArray[np.float64], reference: Sequence[float]) -> float:
    """Volume that the front dominates below a reference point, exactly, all columns minimized.

    Parameters
    ----------
    values : float64[points, objectives]   Rows beyond the reference, or with a NaN, add nothing.
    reference                    The worst values that count, one an objective.
    """
    worst = np.asarray(reference, np.float64)
    if values.ndim != 2 or values.shape[1] != len(worst):
        raise ValueError(f"values must be [points, {len(worst)}], not {values.shape}")
    inside = values[(values < worst).all(axis=1)]
    return _volume(inside[non_dominated(inside)], worst)


def _volume(front: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Slice along the last objective: between two of its values, what the points up to there dominate in the rest."""
    if not len(front):
        return 0.0
    if front.shape[1] == 1:
        return float(reference[0] - front.min())
    order = front[np.argsort(front[:, -1], kind="stable")]
    if front.shape[1] == 2:
        area, height = 0.0, float(reference[0])
        for first, second in order:  # the first coordinate falls along a front
            if first < height:
                area += (height - first) * (reference[1] - second)
                height = float(first)
        return float(area)
    ends = np.append(order[1:, -1], reference[-1])
    volume = 0.0
    for count, (start, end) in enumerate(zip(order[:, -1], ends, strict=True), start=1):
        if end > start:
            slab = order[:count, :-1]
            volume += float(end - start) * _volume(slab[non_dominated(slab)], reference[:-1])
    return volume


def _rank(members: Sequence[Point], objectives: Sequence[Objective]) -> list[Standing]:
    """Standings within a group of points that all have every objective."""
    finest = "full" if any(point.fidelity == "full" for point in members) else "screen"
    figures = [[_known(objective.cost_of(point)) for objective in objectives] for point in members]
    bounds = np.array([[(one.value, one.low, one.high) for one in row] for row in figures])  # [points, objectives, 3]
    values = bounds[:, :, 0].copy()
    values[[point.fidelity != finest for point in members]] = np.nan
    front = np.flatnonzero(non_dominated(values))
    marked = set(front.tolist())
    result = []
    for index, point in enumerate(members):
        below, above = bounds[front, :, 1] <= bounds[index, :, 2], bounds[index, :, 1] <= bounds[front, :, 2]
        overlap = (below & above).all(axis=1)
        tied = tuple(members[other].key for other in front[overlap] if other != index)
        result.append(Standing(point=point, on_front=index in marked, tied_with=tied))
    return result


def _known(interval: Interval | None) -> Interval:
    if interval is None:
        raise ValueError("a point on a front must have every objective")
    return interval
