"""The rows of speed: on a small part of the sweep here, in full in tests/benchmarks."""

import time
from pathlib import Path

import pytest

from sparsefab.reports import speed
from sparsefab.reports.speed import find_chromium, page_ready_s, sweep_space

_SECONDS, _CORES, _POINTS = 30.0, 2, 10_000


def test_the_sweep_has_ten_thousand_points() -> None:
    space = sweep_space()
    recipes = sum(1 for family in space.families for _ in family.recipes())
    assert recipes * len(space.targets) * len(space.batch) * len(space.context) * 2 == 10_080


def test_a_small_sweep_takes_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in this process's own seconds: the machine has other work."""
    monkeypatch.setattr(speed, "_FORMATS", ("int4",))
    monkeypatch.setattr("sparsefab.reports.shapes._FEW", 10_000)
    begin = time.process_time()
    points, _ = speed._sweep(workers=1)
    assert len(points) == 1_440
    assert time.process_time() - begin < _SECONDS * _CORES * len(points) / _POINTS + 3.0  # and what is loaded once
    assert sum(point.status == "ok" for point in points) > 1_000


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium on the path")
def test_a_page_that_does_not_open_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<html data-ready-ms='x'></html>")
    with pytest.raises(RuntimeError, match="did not open"):
        page_ready_s(str(find_chromium()), page)
    page.write_text('<html data-ready-ms="12"></html>')
    assert page_ready_s(str(find_chromium()), page) == pytest.approx(0.012)
