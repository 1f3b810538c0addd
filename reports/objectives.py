"""What an exploration aims at and must keep to: objectives and limits by the name of a point's figure."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sparsefab.errors import ConfigError
from sparsefab.reports.points import Interval, Point

__all__ = ["DEFAULT_OBJECTIVES", "OBJECTIVES", "SHAPE_OBJECTIVES", "Limits", "Objective", "objectives_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A figure of a point that is made small, or large where more is better.

    unit : 's', 'J', 'B', 'W' or empty, as quantities are written.
    """

    name: str
    label: str
    unit: str = ""
    larger: bool = False

    def of(self, point: Point) -> Interval | None:
        """The figure of a point as it stands, or None."""
        value = _loss_fraction(point) if self.name == "loss_fraction" else getattr(point, self.name)
        if value is None or isinstance(value, Interval):
            return value
        return Interval(value=value, low=value, high=value)

    def cost_of(self, point: Point) -> Interval | None:
        """The figure counted so that less is better."""
        value = self.of(point)
        return -value if value is not None and self.larger else value


_KNOWN = (
    Objective(name="loss", label="loss of the metric"),
    Objective(name="loss_fraction", label="loss, part of the baseline"),
    Objective(name="latency_s", label="latency", unit="s"),
    Objective(name="throughput_tokens_per_s", label="items per second", larger=True),
    Objective(name="energy_per_token_j", label="energy per item", unit="J"),
    Objective(name="power_w", label="power", unit="W"),
    Objective(name="price_per_million_tokens_usd", label="USD per million items"),
    Objective(name="memory_bytes", label="memory on the device", unit="B"),
    Objective(name="weight_bytes", label="weights with metadata", unit="B"),
    Objective(name="bits_per_weight", label="bits per weight"),
    Objective(name="lut", label="LUT"),
    Objective(name="ff", label="FF"),
    Objective(name="dsp", label="DSP"),
    Objective(name="bram18", label="BRAM18"),
    Objective(name="uram", label="URAM"),
)
OBJECTIVES: dict[str, Objective] = {objective.name: objective for objective in _KNOWN}
DEFAULT_OBJECTIVES = ("loss", "latency_s")
SHAPE_OBJECTIVES = ("bits_per_weight", "latency_s")  # of a model whose weights nobody has


def objectives_of(names: Sequence[str]) -> tuple[Objective, ...]:
    """Objectives by name.

    Raises
    ------
    ConfigError                  If a name is unknown or given twice, or there are fewer than two.
    """
    for name in names:
        if name not in OBJECTIVES:
            near = difflib.get_close_matches(name, OBJECTIVES, n=1, cutoff=0.5)
            near = near or [known for known in OBJECTIVES if known.startswith(name)]
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"unknown objective {name!r}; {hint}known: {', '.join(OBJECTIVES)}")
    if len(set(names)) != len(names) or len(names) < 2:
        raise ConfigError(f"objectives must be two or more different names, not {', '.join(names) or 'none'}")
    return tuple(OBJECTIVES[name] for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a point must keep to: bounds on the values of figures, and whether it must fit the device's memory."""

    at_most: Mapping[str, float] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)
    fits: bool = False

    def __post_init__(self) -> None:
        for name in (*self.at_most, *self.at_least):
            if name not in OBJECTIVES:
                near = difflib.get_close_matches(name, OBJECTIVES, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(f"unknown figure {name!r}; {hint}known: {', '.join(OBJECTIVES)}")

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.at_most or self.at_least or self.fits)

    def excess(self, point: Point) -> float:
        """How far a point is outside, as a sum of parts of the limits; 0 keeps them all, infinite has no figures.

        A limit on a figure that the point does not have (DSPs of a GPU) is kept.
        """
        if point.status != "ok":
            return float("inf")
        return sum(amount for _, amount in self._broken(point))

    def broken(self, point: Point) -> tuple[str, ...]:
        """The names of the limits that a point breaks."""
        return tuple(name for name, _ in self._broken(point))

    def _broken(self, point: Point) -> list[tuple[str, float]]:
        found = []
        for limits, sign in ((self.at_most, 1.0), (self.at_least, -1.0)):
            for name, limit in limits.items():
                figure = OBJECTIVES[name].of(point)
                over = 0.0 if figure is None else sign * (figure.value - limit)
                if over > 0.0:
                    found.append((name, over / (abs(limit) or 1.0)))
        capacity = point.terms.get("memory_capacity_bytes")
        if self.fits and isinstance(capacity, int | float) and point.memory_bytes is not None:
            over = point.memory_bytes.value / capacity - 1.0
            if over > 0.0:
                found.append(("fits", over))
        return found

    @property
    def text(self) -> str:
        """The limits in words."""
        parts = [f"{name} at most {limit:g}" for name, limit in self.at_most.items()]
        parts += [f"{name} at least {limit:g}" for name, limit in self.at_least.items()]
        return ", ".join([*parts, "fits the device's memory"] if self.fits else parts)


def _loss_fraction(point: Point) -> Interval | None:
    if point.loss is None or not point.baseline:
        return None
    base = abs(point.baseline)
    return Interval(value=point.loss.value / base, low=point.loss.low / base, high=point.loss.high / base)
