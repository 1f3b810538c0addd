"""Figures that a bench is held to: what is reached, the goal, and whether it is met."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Figure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure.

    name : str                   What is measured, its unit last.
    goal : float                 `reached` must be at least this, or at most where `at_most`.
    reached : float | None       None where it was not measured.
    """

    name: str
    goal: float
    reached: float | None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where nothing was measured."""
        if self.reached is None:
            return None
        return self.reached <= self.goal if self.at_most else self.reached >= self.goal

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"met": self.met}

    def __str__(self) -> str:
        bound = f"goal at {'most' if self.at_most else 'least'} {self.goal:g}"
        if self.reached is None:
            return f"{self.name}: not measured, {bound}"
        return f"{self.name}: {self.reached:.3g}, {bound}: {'met' if self.met else 'missed'}"
