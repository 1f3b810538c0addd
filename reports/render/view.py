"""What a report shows, worked out once for the figures, the page and the summary: standings, settings, scales.

A chart compares points at one batch, context and key/value cache (a setting). The one shown first is that which the
most targets and phases have in common.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparsefab.reports.objectives import DEFAULT_OBJECTIVES, Limits, Objective, objectives_of
from sparsefab.reports.pareto import Standing, standings
from sparsefab.reports.points import Better, Device, Interval, Phase, Point

__all__ = ["LossScale", "Setting", "View"]

_PHASES: tuple[Phase, ...] = ("prefill", "decode")
_DEVICES: tuple[Device, ...] = ("fpga", "gpu", "cpu")
_WIDE_RANGE = 8.0  # beyond this ratio of largest to median loss a linear axis hides the good recipes


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """A batch, a context, and a key/value cache; empty: the device's own."""

    batch: int
    context: int
    kv: str = ""

    @classmethod
    def of(cls, point: Point) -> "Setting":
        """The setting of a point."""
        return cls(point.batch, point.context, point.kv)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossScale:
    """How the axis upwards is drawn: linear when `linear_width` is None, else asinh(value / linear_width)."""

    linear_width: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Points of one model with their standings, and how to show them.

    objectives                   The first is drawn upwards, the second across.
    panels                       What can be drawn at a setting, in a phase.
    """

    objectives: tuple[Objective, ...]
    standings: tuple[Standing, ...]
    targets: tuple[str, ...]
    settings: tuple[Setting, ...]
    loss_scale: LossScale
    panels: Mapping[tuple[Setting, Phase], tuple[Standing, ...]]

    @classmethod
    def of(
        cls, points: Sequence[Point], objectives: Sequence[str] = DEFAULT_OBJECTIVES, limits: Limits | None = None
    ) -> "View":
        """Work out the view; raises ValueError when the points are of several models or metrics."""
        for name in ("model", "metric"):
            found = sorted({getattr(point, name) for point in points} - {None})
            if len(found) > 1:
                raise ValueError(f"points must have one {name}, not {', '.join(found)}")
        devices = {point.target: point.device for point in points}
        targets = sorted(devices, key=lambda target: (_DEVICES.index(devices[target]), target))
        chosen = objectives_of(objectives)
        ranked = standings(points, objectives, limits)
        return cls(
            objectives=chosen,
            standings=tuple(ranked),
            targets=tuple(targets),
            settings=_settings(ranked),
            loss_scale=_loss_scale(ranked, chosen[0]),
            panels=_panels(ranked),
        )

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return next((s.point.metric for s in self.standings if s.point.metric), "metric")

    @property
    def better(self) -> Better:
        """Which way the metric counts."""
        return next((s.point.better for s in self.standings if s.point.better), "lower")

    @property
    def baselines(self) -> dict[tuple[str, str], float]:
        """The baseline by protocol and data hash."""
        return {
            (s.point.protocol or "", s.point.data_hash): s.point.baseline
            for s in self.standings
            if s.point.baseline is not None
        }

    @property
    def loss_label(self) -> str:
        """What the loss axis measures; up is worse."""
        return f"increase of {self.metric}" if self.better == "lower" else f"decrease of {self.metric}"

    @property
    def y(self) -> Objective:
        """What is drawn upwards."""
        return self.objectives[0]

    @property
    def x(self) -> Objective:
        """What is drawn across."""
        return self.objectives[1]

    @property
    def y_label(self) -> str:
        """What the axis upwards measures."""
        return self.loss_label if self.y.name == "loss" else self._label(self.y)

    def x_label(self, phase: Phase) -> str:
        """What the axis across measures."""
        if self.x.name != "latency_s":
            return self._label(self.x)
        return "latency of a decode step" if phase == "decode" else "latency of a pass"

    def _label(self, objective: Objective) -> str:
        item = next((s.point.item for s in self.standings if s.point.status == "ok"), "item")
        return objective.label.replace("item", item)

    @property
    def across_is_log(self) -> bool:
        """Whether the axis across can be logarithmic: no figure is zero or below."""
        figures = [self.x.of(standing.point) for standing in self.standings if standing.rank != "none"]
        return all(figure is not None and figure.low > 0.0 for figure in figures)

    def xy(self, standing: Standing) -> tuple[Interval, Interval]:
        """Where a point is drawn."""
        across, upwards = self.x.of(standing.point), self.y.of(standing.point)
        if across is None or upwards is None:
            raise ValueError("a point that is drawn must have both figures of the axes")
        return across, upwards

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Phases that occur, prefill first."""
        found = {standing.point.phase for standing in self.standings}
        return tuple(phase for phase in _PHASES if phase in found)

    def phase_label(self, phase: Phase) -> str:
        """The phase as people call it: a model that has only one makes one pass."""
        return phase if len(self.phases) > 1 else "one pass"

    def setting_label(self, setting: Setting) -> str:
        """Batch, context and cache in words; images have no context."""
        items = {standing.point.item for standing in self.standings if standing.point.status == "ok"}
        context = "" if items == {"image"} else f", context {setting.context}"
        return f"batch {setting.batch}{context}" + (f", cache {setting.kv}" if setting.kv else "")

    def at(self, setting: Setting, phase: Phase, target: str | None = None) -> list[Standing]:
        """What can be drawn in one panel."""
        return [s for s in self.panels.get((setting, phase), ()) if target in (None, s.point.target)]

    def device(self, target: str) -> Device:
        """The kind of a target."""
        return next(s.point.device for s in self.standings if s.point.target == target)


def _settings(ranked: Sequence[Standing]) -> tuple[Setting, ...]:
    """Settings with something to draw, the one that most targets and phases share first."""
    shared: dict[Setting, set[tuple[str, str]]] = {}
    for standing in ranked:
        if standing.rank != "none":
            point = standing.point
            shared.setdefault(Setting.of(point), set()).add((point.target, point.phase))
    return tuple(sorted(shared, key=lambda setting: (-len(shared[setting]), setting)))


def _panels(ranked: Sequence[Standing]) -> dict[tuple[Setting, Phase], tuple[Standing, ...]]:
    """Standings with something to draw, by setting and phase, in order."""
    found: dict[tuple[Setting, Phase], list[Standing]] = {}
    for standing in ranked:
        if standing.rank != "none":
            found.setdefault((Setting.of(standing.point), standing.point.phase), []).append(standing)
    return {panel: tuple(members) for panel, members in found.items()}


def _loss_scale(ranked: Sequence[Standing], upwards: Objective) -> LossScale:
    figures = [upwards.of(standing.point) for standing in ranked if standing.rank != "none"]
    positive = np.array([abs(figure.value) for figure in figures if figure is not None and figure.value != 0.0])
    if not len(positive) or positive.max() <= _WIDE_RANGE * np.median(positive):
        return LossScale(linear_width=None)
    width = float(np.quantile(positive, 0.1))
    return LossScale(linear_width=float(f"{width:.0e}"))
