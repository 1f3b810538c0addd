"""What a bench measured: a report for each run, and one for all runs of a design."""

from dataclasses import dataclass, field
from typing import Final

__all__ = ["MODES", "RunReport", "VerifyReport"]

# name -> (probability that a source idles, probability that the sink stalls)
MODES: Final[dict[str, tuple[float, float]]] = {
    "plain": (0.0, 0.0),
    "idles": (0.4, 0.0),
    "back-pressure": (0.0, 0.4),
    "both": (0.3, 0.3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """One pass of one stimulus file through the design; `utilisation` is weight beats a cycle, first to last.

    `coverage` counts the results that were compared, by what they exercise.
    """

    name: str
    seed: int
    beats: int
    cycles: int
    utilisation: float
    mismatches: int
    first: dict[str, int | None] | None
    coverage: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """All runs of one design in one simulator; `required` is what they must have exercised."""

    block: str
    simulator: str
    runs: tuple[RunReport, ...]
    required: tuple[str, ...] = ()

    @property
    def coverage(self) -> dict[str, int]:
        """Results compared in all runs, by what they exercise."""
        total = dict.fromkeys(self.required, 0)
        for run in self.runs:
            for kind, count in run.coverage.items():
                total[kind] = total.get(kind, 0) + count
        return total

    @property
    def missing(self) -> tuple[str, ...]:
        """What was never exercised."""
        return tuple(kind for kind, count in self.coverage.items() if not count)

    @property
    def checks(self) -> int:
        """Beats compared."""
        return sum(run.beats for run in self.runs)

    @property
    def mismatches(self) -> int:
        """Beats that differ, are missing or are too many."""
        return sum(run.mismatches for run in self.runs)

    @property
    def cycles(self) -> int:
        """Clock cycles simulated."""
        return sum(run.cycles for run in self.runs)

    @property
    def utilisation(self) -> float | None:
        """Weight beats a cycle in the steady run, None when there was none."""
        return next((run.utilisation for run in self.runs if run.name == "steady"), None)
