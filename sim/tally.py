"""The outcome of a check: what it compared, what differs, and what it exercised."""

from dataclasses import dataclass, field

from sparsefab.sim.report import VerifyReport

__all__ = ["Tally"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What a check compared and how much of it differs; `first` says where.

    coverage : {kind: cases}   Every opcode, mode or pattern that the check knows of, with how often it came.
    """

    cases: int
    failures: int
    first: str = ""
    coverage: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def of(report: VerifyReport) -> "Tally":
        """The sum of a bench's runs; what was never exercised fails, too."""
        failed = [run for run in report.runs if run.mismatches]
        first = f"{failed[0].name}, seed {failed[0].seed}: {failed[0].first}" if failed else ""
        return Tally.judged(cases=report.checks, failures=report.mismatches, first=first, coverage=report.coverage)

    @staticmethod
    def judged(*, cases: int, failures: int, first: str, coverage: dict[str, int]) -> "Tally":
        """A tally in which each kind that never came is a failure."""
        missing = [kind for kind, count in coverage.items() if not count]
        if not first and missing:
            first = f"never seen: {', '.join(missing)}"
        return Tally(cases=cases, failures=failures + len(missing), first=first, coverage=coverage)
