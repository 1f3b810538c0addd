"""Figures beside the fronts, and two runs side by side: what is in them, not how they look."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sparsefab import config
from sparsefab.errors import ConfigError
from sparsefab.reports.points import Interval, LayerError, Point
from sparsefab.reports.render.charts import (
    breakdown_figure,
    course,
    hypervolume_figure,
    roofline_figure,
    sensitivity_figure,
)
from sparsefab.reports.render.compare import changes
from sparsefab.reports.render.report import compare_reports, rebuild_report, write_report
from sparsefab.reports.render.run_info import RunInfo
from sparsefab.reports.render.view import View
from sparsefab.reports.schema import encode_points
from tests.unit.reports import toy
from tests.unit.reports.test_report import RUN, made_points

LAYERS = [
    LayerError(recipe=recipe, layer=layer, relative_error=error * (place + 1), bits_per_weight=4.5)
    for recipe, error in (("int4-d100", 0.1), ("int8-d100", 0.01), ("float", 0.0))
    for place, layer in enumerate(("a", "b", "c"))
]


def priced(points: list[Point]) -> list[Point]:
    """The toy's points with the terms that the cost models give."""
    terms = {"operations": 2e6, "traffic_bytes": 1e5, "peak_op_per_s": {"int8": 1e12, "fp16": 5e11}}
    terms |= {"bandwidth_bytes_per_s": 1e11, "terms_s": {"compute": 1e-5, "hbm": 3e-5}}
    return [replace(point, terms=terms if point.status == "ok" else {}) for point in points]


def test_a_roofline_has_its_peaks_and_points() -> None:
    view = View.of(priced(made_points()))
    figure = roofline_figure(view, view.settings[0])
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == [f"{name}, 100 GB/s" for name in view.targets]
    for axes, target in zip(figure.axes, view.targets, strict=True):
        roofs = [line for line in axes.lines if len(line.get_xdata()) == 200]
        assert sorted(max(line.get_ydata()) for line in roofs) == [5e11, 1e12]
        slope = roofs[0].get_ydata()[0] / roofs[0].get_xdata()[0]
        assert slope == pytest.approx(1e11)
        drawn = sum(len(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) != 200)
        assert drawn == sum(s.point.target == target and s.rank != "none" for s in view.standings)
    assert roofline_figure(View.of(made_points()), view.settings[0]) is None


def test_a_breakdown_has_a_bar_a_term_and_point() -> None:
    view = View.of(priced(made_points()))
    figure = breakdown_figure(view, view.settings[0])
    assert figure is not None
    for axes, target in zip(figure.axes, view.targets, strict=True):
        names = [label.get_text() for label in axes.get_yticklabels()]
        front = {s.point.recipe for s in view.standings if s.on_front and s.point.target == target}
        assert set(names) <= front
        assert sorted({patch.get_width() for patch in axes.patches}) == [1e-5, 3e-5]
        assert len(axes.patches) == 2 * len(names)


def test_a_heat_map_has_a_row_a_layer_and_a_column_a_recipe() -> None:
    figure = sensitivity_figure(LAYERS)
    assert figure is not None
    (image,) = figure.axes[0].images
    assert image.get_array().shape == (3, 2)  # nothing is lost in float
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["int4-d100", "int8-d100"]
    np.testing.assert_allclose(image.get_array(), [[0.1, 0.01], [0.2, 0.02], [0.3, 0.03]])
    assert sensitivity_figure([]) is None


def test_the_hypervolume_grows_and_ends_with_all_points() -> None:
    points = made_points(28)
    view = View.of(points)
    counts, volumes = course(view, view.settings[0], "decode", "u280")
    assert counts[-1] == 28
    assert (np.diff(volumes) >= -1e-12).all()
    assert 0.0 < volumes[0] < volumes[-1] <= 1.0
    backwards, other = course(View.of(points[::-1]), view.settings[0], "decode", "u280")
    assert other[-1] == pytest.approx(volumes[-1])
    assert not np.array_equal(other[: len(backwards) // 2], volumes[: len(backwards) // 2])
    assert hypervolume_figure(view, view.settings[0]) is not None


def test_a_report_with_layers_is_written_again_from_itself(tmp_path: Path) -> None:
    points = [point for point in made_points() if point.target == "u280"]
    files = write_report(tmp_path, priced(points), RUN, LAYERS)
    names = {"layers.csv", "sensitivity.svg", "sensitivity.png", "roofline.svg", "breakdown.png", "hypervolume.svg"}
    assert names <= set(files)
    before = {name: path.read_bytes() for name, path in files.items()}
    assert {name: path.read_bytes() for name, path in rebuild_report(tmp_path).items()} == before


def keep(folder: Path, points: list[Point], run: RunInfo = RUN) -> None:
    """What of a report a comparison reads."""
    folder.mkdir()
    (folder / "points.parquet").write_bytes(encode_points(points))
    (folder / "run.toml").write_text(config.dumps(run))


def test_two_runs_side_by_side(tmp_path: Path) -> None:
    points = made_points()
    slower = [
        replace(p, latency_s=Interval(value=p.latency_s.value * 2, low=p.latency_s.low * 2, high=p.latency_s.high * 2))
        if p.latency_s and p.target == "u280"
        else p
        for p in points
    ]
    keep(tmp_path / "a", points)
    keep(tmp_path / "b", slower[6:])
    files = compare_reports(tmp_path / "a", tmp_path / "b")
    assert {path.parent for path in files.values()} == {tmp_path / "a-b"}
    rows = list(csv.DictReader(files["compare.csv"].read_text().splitlines()))
    assert len(rows) == len(points) - 6
    changed = {row["target"] for row in rows if row["apart"]}
    assert changed == {"u280"}
    for row in rows:
        if row["latency_s_before"]:
            ratio = float(row["latency_s_after"]) / float(row["latency_s_before"])
            assert ratio == pytest.approx(2.0 if row["target"] == "u280" else 1.0)
    text = files["compare.md"].read_text()
    assert "a: 84 points" in text
    assert "only in a, 0 only in b" in text
    assert "a: u280" in files["compare.html"].read_text()


def test_runs_of_two_models_do_not_compare(tmp_path: Path) -> None:
    keep(tmp_path / "a", made_points(3))
    other = [replace(point, model="other") for point in made_points(3)]
    keep(tmp_path / "b", other, replace(RUN, model="other"))
    with pytest.raises(ConfigError, match="equal models, not toy-lm and other"):
        compare_reports(tmp_path / "a", tmp_path / "b")


def test_equal_runs_do_not_differ() -> None:
    found = changes(made_points(), made_points(), RUN.objectives)
    assert len(found) == len(made_points())
    assert not any(change.apart for change in found)
    assert {change.before.target for change in found} == set(toy.DEVICES)
