"""Rows of the validation page: a figure, the goal it is held to, and how many samples are behind it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sparsefab.cost_models.gemm import Floats

__all__ = ["Goal", "Row", "judge", "relative_errors"]

#: A limit, or two that a figure must lie between.
Goal = float | tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. `goal` None: shown, not judged. `at_most`: the goal is a ceiling, else a floor, and `ceiling` may be
    one beside it. `value` None: it was not measured here, and is not judged either. `compared`: predicted, low, high
    and measured seconds behind an error.
    """

    part: str
    name: str
    metric: str
    value: float | None
    goal: float | None
    samples: int
    at_most: bool = True
    ceiling: float | None = None
    note: str = ""
    compared: tuple[Floats, Floats, Floats, Floats] | None = field(default=None, repr=False, compare=False)

    @property
    def passed(self) -> bool:
        """Whether the goal is met; True without one, or without a measurement."""
        if self.goal is None or self.value is None:
            return True
        within = self.ceiling is None or self.value <= self.ceiling
        return self.value <= self.goal if self.at_most else self.value >= self.goal and within

    @property
    def goal_text(self) -> str:
        """The goal in signs."""
        if self.goal is None:
            return ""
        if self.ceiling is not None:
            return f"{self.goal:.3g} to {self.ceiling:.3g}"
        return f"{'<=' if self.at_most else '>='} {self.goal:.6g}"

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "part": self.part, "name": self.name, "metric": self.metric, "value": self.value, "goal": self.goal,
            "at_most": self.at_most, "ceiling": self.ceiling, "samples": self.samples, "passed": self.passed,
            "note": self.note,
        }  # fmt: skip


def relative_errors(predicted: Floats, measured: Floats) -> Floats:
    """|predicted / measured - 1|."""
    return np.abs(predicted / measured - 1.0)


def judge(
    part: str,
    name: str,
    times: tuple[Floats, Floats, Floats],
    measured: Floats,
    goals: Mapping[str, Goal],
    note: str = "",
) -> list[Row]:
    """Rows of error, coverage and width of one set of predictions.

    Parameters
    ----------
    times : (value, low, high)      float64[samples] each.
    goals : mapping by metric       'mean error' and 'median high/low' are ceilings, 'coverage' a floor or (floor,
                                    ceiling).
    """
    value, low, high = times
    figures = {
        "mean error": float(relative_errors(value, measured).mean()),
        "coverage": float(((measured >= low) & (measured <= high)).mean()),
        "median high/low": float(np.median(high / low)),
    }
    rows = []
    for metric, figure in figures.items():
        goal, ceiling = goals.get(metric), None
        if isinstance(goal, tuple):
            goal, ceiling = goal
        compared = (*times, measured) if metric == "mean error" else None
        rows.append(Row(part=part, name=name, metric=metric, value=figure, goal=goal, ceiling=ceiling, note=note,
                        samples=len(measured), at_most=metric != "coverage", compared=compared))  # fmt: skip
    return rows
