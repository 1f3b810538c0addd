"""The report's files: what they say, and that they can be written again from themselves."""

import csv
import io
import json
import logging
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from sparsefab.errors import ConfigError, StorageError
from sparsefab.reports.points import Cost, Evaluation, Interval, Point
from sparsefab.reports.render.quantities import number, quantity, tick, with_bounds
from sparsefab.reports.render.recommend import recommend
from sparsefab.reports.render.report import rebuild_report, write_report
from sparsefab.reports.render.run_info import RecipeText, RunInfo
from sparsefab.reports.render.view import Setting, View
from sparsefab.reports.schema import decode_points
from tests.unit.reports import toy

RUN = RunInfo(
    model="toy-lm",
    command=("sparsefab", "explore", "toy-lm"),
    seed=3,
    created="2026-01-01T00:00:00+00:00",
    versions={"sparsefab": "0.1.0"},
    settings={"budget": "12"},
    reference="int8-d100",
    recipes=(RecipeText(name="int4", text='[[rule]]\nlayers = "*"\n'),),
)


def made_points(count: int = 14) -> list[Point]:
    points = []
    for job in toy.make_jobs(count):
        evaluation = Evaluation(job=job, accuracy=toy.accuracy(job))
        points += [Point.of(evaluation, case, toy.cost(evaluation, case)) for case in toy.make_cases()]
    return points


def embedded(page: str) -> dict[str, object]:
    """The page's data, as a browser finds it."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    data: dict[str, object] = json.loads(match[1])
    return data


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_report(tmp_path_factory.mktemp("run"), made_points(), RUN)


def test_every_file_is_there_and_nothing_else(report: dict[str, Path]) -> None:
    folder = report["report.html"].parent
    assert (
        {path.name for path in folder.iterdir()}
        == set(report)
        == {
            "points.parquet",
            "points.csv",
            "run.toml",
            "summary.md",
            "report.html",
            "pareto.svg",
            "pareto.png",
            "hypervolume.svg",
            "hypervolume.png",
            "pareto-u280.svg",
            "pareto-a100.svg",
            "pareto-xeon-8375c.svg",
        }
    )
    assert report["pareto.png"].read_bytes().startswith(b"\x89PNG")
    for name in ("pareto.svg", "pareto-u280.svg"):
        assert ElementTree.parse(report[name]).getroot().tag.endswith("svg")


def test_a_report_is_rebuilt_to_the_byte_from_its_own_files(report: dict[str, Path]) -> None:
    before = {name: path.read_bytes() for name, path in report.items()}
    report["report.html"].unlink()
    again = rebuild_report(report["points.parquet"].parent)
    assert {name: path.read_bytes() for name, path in again.items()} == before


def test_the_tables_hold_every_point(report: dict[str, Path]) -> None:
    assert decode_points(report["points.parquet"].read_bytes(), "x") == made_points()
    rows = list(csv.DictReader(io.StringIO(report["points.csv"].read_text())))
    assert len(rows) == len(made_points())
    absent = next(row for row in rows if row["status"] == "absent")
    assert (absent["latency_s"], absent["reason"]) == ("", "a100 has no 2-bit kernel")
    assert tomllib.loads(report["run.toml"].read_text())["seed"] == 3


def test_the_summary_recommends_with_bounds_and_origin(report: dict[str, Path]) -> None:
    text = report["summary.md"].read_text()
    assert "a loss of at most 1 % of the baseline" in text
    assert re.search(r"\*\*a100, decode \(batch 1, context 512\): `int5-d100`\*\*, \S+ µs \[.*\] \(calibrated\)", text)
    assert "baseline 24.2: 16 windows of 512 tokens (data d16)" in text
    assert "- embedding" in text
    assert "modelled (computed from the architecture" in text
    assert "- absent on a100, 4 points: a100 has no 2-bit kernel" in text
    assert "sparsefab explore toy-lm" in text


def test_the_recommendation_is_the_fastest_within_the_limits() -> None:
    view = View.of(made_points())
    for made in recommend(view, RUN):
        assert made.point is not None
        assert made.point.latency_s is not None
        allowed = [
            s.point
            for s in view.at(made.setting, made.phase, made.target)
            if s.point.loss is not None and s.point.loss.value <= 0.01 * 24.18
        ]
        assert made.point.latency_s.value == min(p.latency_s.value for p in allowed if p.latency_s)
        assert any("times as fast as int8-d100" in reason for reason in made.reasons)
    assert [made.target for made in recommend(view, RUN)][:3] == ["a100", "u280", "xeon-8375c"]


def test_limits_that_nothing_keeps_name_the_closest() -> None:
    view = View.of(made_points())
    for strict in (replace(RUN, max_loss_fraction=0.0), replace(RUN, max_latency_s=1e-9)):
        for made in recommend(view, strict):
            assert made.point is None
            assert "the closest is int8-d100" in made.reasons[0]


def test_no_data_can_leave_its_script_element(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><!-- \u2028"
    job = replace(toy.make_job(4, 1.0), recipe=evil, recipe_text=toy.make_job(4, 1.0).recipe_text + f"# {evil}")
    evaluation = Evaluation(job=job, accuracy=toy.accuracy(job))
    points = [Point.of(evaluation, case, toy.cost(evaluation, case)) for case in toy.make_cases()]
    page = write_report(tmp_path, points, RUN)["report.html"].read_text()
    assert page.count("<script") == 2
    assert "alert(1)" in page
    data = embedded(page)
    assert data["recipes"] == [{"name": evil, "text": job.recipe_text}]


def test_the_page_names_nothing_to_fetch(report: dict[str, Path]) -> None:
    page = report["report.html"].read_text()
    assert "default-src 'none'" in page
    without_data = re.sub(r'(id="data">).*?(</script>)', r"\1\2", page, flags=re.DOTALL)
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", without_data)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|WebSocket", without_data)


def test_a_run_without_figures_still_has_a_report(tmp_path: Path) -> None:
    evaluation = Evaluation(job=toy.make_job(4, 1.0), accuracy=None, reason="no calibration data")
    points = [Point.of(evaluation, case, Cost(status="failed", reason="x")) for case in toy.make_cases()]
    paths = write_report(tmp_path, points, RUN)
    assert "pareto.svg" not in paths
    assert "nothing to compare" in paths["summary.md"].read_text()
    assert "6 points" not in paths["summary.md"].read_text()
    assert "failed on u280, 2 points: no calibration data" in paths["summary.md"].read_text()


def test_what_is_missing_or_damaged_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StorageError, match=r"points\.parquet: No such file"):
        rebuild_report(tmp_path)
    paths = write_report(tmp_path, made_points(2), RUN)
    paths["run.toml"].unlink()
    with pytest.raises(ConfigError, match=r"run\.toml"):
        rebuild_report(tmp_path)
    paths["points.parquet"].write_bytes(b"PAR1")
    with caplog.at_level(logging.ERROR), pytest.raises(StorageError, match="is damaged"):
        rebuild_report(tmp_path)
    with pytest.raises(ValueError, match="one model"):
        View.of([*made_points(2), replace(made_points(1)[0], model="other")])


def test_the_chart_shows_the_setting_that_most_share() -> None:
    points = made_points(2)
    more = [replace(point, key=f"{point.key}-8", batch=8) for point in points if point.target == "u280"]
    view = View.of([*more, *points])
    assert view.settings == (Setting(1, 512), Setting(8, 512))
    assert len(view.at(Setting(8, 512), "decode")) == 2


def test_a_model_of_one_phase_makes_one_pass_and_an_image_has_no_context(tmp_path: Path) -> None:
    points = [replace(point, item="image", better="higher") for point in made_points() if point.phase == "prefill"]
    paths = write_report(tmp_path, points, RUN)
    text = paths["summary.md"].read_text()
    assert "u280 (FPGA), one pass, batch 1\n" in text
    assert "higher is better" in text
    assert "images/s" in text
    for word in ("prefill", "context", "token"):
        assert word not in text.replace("512 tokens", "")
    assert embedded(paths["report.html"].read_text())["loss_label"] == "decrease of perplexity"


def test_the_loss_axis_bends_only_when_it_must() -> None:
    assert View.of(made_points(14)).loss_scale.linear_width is not None
    close = [replace(p, delta=Interval(value=0.1, low=0.0, high=0.2)) for p in made_points(2) if p.status == "ok"]
    assert View.of(close).loss_scale.linear_width is None


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00321, "s", "3.21 ms"),
        (1.0, "s", "1.00 s"),
        (3.2e-7, "s", "320 ns"),
        (250.0, "s", "250 s"),
        (0.0, "s", "0 s"),
        (0.104, "J", "104 mJ"),
        (4.93 * 2**20, "B", "4.93 MiB"),
        (12, "B", "12.0 B"),
        (24.18, "", "24.2"),
        (401000.0, "", "401,000"),
        (-0.5, "", "-0.500"),
        (1.5e7, "", "1.50e+07"),
    ],
)
def test_quantities_read_well(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_bounds_share_the_unit_of_their_value() -> None:
    assert with_bounds(Interval(value=9.5e-4, low=9e-4, high=1.1e-3), "s") == "950 µs [900, 1,100]"
    assert with_bounds(Interval(value=0.25, low=-0.1, high=0.5), signed=True) == "+0.250 [-0.100, 0.500]"
    assert with_bounds(Interval(value=3.0, low=3.0, high=3.0)) == "3.00"
    assert (tick(0.005, "s"), tick(2.0), tick(20.0), number(0.0)) == ("5 ms", "2", "20", "0")
