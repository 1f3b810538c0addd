"""The pictures of a validation: what is drawn of which rows, twice the same bytes, and from the command line."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from sparsefab.cli.main import main
from sparsefab.cost_models.pictures import PICTURES, draw, write_pictures
from sparsefab.cost_models.validate import Row, validate


def test_every_set_of_measurements_has_a_panel() -> None:
    rows = validate("attention") + validate("marlin")
    figures = draw(rows)
    assert tuple(figures) == PICTURES
    for name in ("errors", "predicted"):
        (axes,) = [axes for axes in figures[name].axes if axes.axison]
        assert axes.get_title().startswith("attention: h200  9.2")
    bars = figures["goals"].axes[0].patches
    goals = [row for row in rows if row.goal and row.at_most]
    assert len(bars) == len(goals) == 6
    for bar, row in zip(bars, goals, strict=True):
        assert row.value is not None
        assert row.goal is not None
        assert bar.get_width() == pytest.approx(row.value / row.goal)


def test_the_histogram_holds_every_sample() -> None:
    predicted = np.array([1.0, 1.1, 5.0, 0.01])  # two far outside of the axis are drawn at its ends
    ones = np.ones(4)
    row = Row(part="p", name="n", metric="mean error", value=0.1, goal=0.2, samples=4,
              compared=(predicted, 0.5 * ones, 2.0 * ones, ones))  # fmt: skip
    axes = draw([row])["errors"].axes[0]
    heights = [patch.get_height() for patch in axes.patches]
    assert sum(heights) == pytest.approx(1.0)
    assert heights[0] == heights[-1] == pytest.approx(0.25)


def test_rows_without_measurements_draw_nothing(tmp_path: Path) -> None:
    row = Row(part="cpu", name="kernels", metric="mean error", value=None, goal=0.1, samples=0)
    assert draw([row]) == {}
    assert write_pictures([row], tmp_path / "none") == []


def test_equal_rows_give_equal_files(tmp_path: Path) -> None:
    rows = validate("marlin")
    first, second = (write_pictures(rows, tmp_path / name) for name in ("a", "b"))
    assert [path.name for path in first] == ["goals.svg", "goals.png"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["validate", "attention", "--json", "--cache-dir", str(tmp_path / "cache")]
    assert main([*common, "-o", str(tmp_path / "v")]) == 0
    pictures = json.loads(capsys.readouterr().out)["pictures"]
    assert [Path(path).name for path in pictures] == [f"{name}.{end}" for name in PICTURES for end in ("svg", "png")]
    for path in pictures:
        if path.endswith(".svg"):
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
        else:
            assert Path(path).read_bytes()[:4] == b"\x89PNG"
