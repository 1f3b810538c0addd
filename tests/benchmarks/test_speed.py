"""Estimates a second, a sweep of 10,000 points, opening its report: in full, on a machine with nothing else to do."""

import pytest

from sparsefab.reports.speed import validate_speed

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]


def test_the_goals_of_speed_are_met() -> None:
    rows = validate_speed()
    print(*rows, sep="\n")
    assert len(rows) == 3
    for row in rows:
        assert row.value is None or row.passed, row
