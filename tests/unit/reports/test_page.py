"""The page in a browser: hover, sorting, filters, links, speed, and that it asks no network for anything."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparsefab.reports.pareto import fronts
from sparsefab.reports.points import Evaluation, Interval, Point
from sparsefab.reports.render.quantities import with_bounds
from sparsefab.reports.render.report import write_report
from sparsefab.reports.render.run_info import RunInfo
from tests.unit.reports import toy
from tests.unit.reports.chromium import Page, find_chromium, open_page

BROWSER = find_chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path; install it to test the page"),
]

RUN = RunInfo(model="toy-lm", command=("sparsefab", "explore", "toy-lm"), seed=3, created="2026-01-01T00:00:00+00:00")
RECIPES = 20


def made_points(count: int) -> list[Point]:
    points = []
    for job in toy.make_jobs(count):
        evaluation = Evaluation(job=job, accuracy=toy.accuracy(job))
        points += [Point.of(evaluation, case, toy.cost(evaluation, case)) for case in toy.make_cases()]
    return points


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(tmp_path_factory.mktemp("run"), made_points(RECIPES), RUN)["report.html"].as_uri()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_page(str(BROWSER), tmp_path_factory.mktemp("profile")) as page:
        yield page


def column(page: Page, name: str) -> list[str]:
    """The texts of one column of the table's page that is shown."""
    place = page.value(f"""[...document.querySelectorAll("#table thead th")].findIndex(
        (head) => head.dataset.column === {json.dumps(name)}) + 1""")
    texts: list[str] = page.value(f"""[...document.querySelectorAll("#table tbody td:nth-child({place})")].map(
        (cell) => cell.textContent)""")
    return texts


def count(page: Page) -> str:
    text: str = page.value('document.getElementById("count").textContent')
    return text


def choose(page: Page, control: str, value: str) -> None:
    page.value(f"""(() => {{ const control = document.getElementById({json.dumps(control)});
        control.value = {json.dumps(value)};
        for (const kind of ["input", "change"]) control.dispatchEvent(new Event(kind)); }})()""")


def place_of(page: Page, point: Point) -> tuple[float, float]:
    """Where a point is on the screen: in the middle of the ring that the page draws round what is selected."""
    x, y = page.value(f"""(() => {{ window.location.hash = "#point={point.key}";
        return new Promise((done) => setTimeout(() => {{
          document.getElementById("panels").scrollIntoView({{block: "center"}});
          const canvas = document.querySelector('canvas[data-phase="{point.phase}"]');
          const {{ width, height }} = canvas, pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
          let left = width, right = 0, top = height, bottom = 0;
          for (let place = 0; place < width * height; place++) if (pixels[4 * place + 3] > 200) {{
            left = Math.min(left, place % width); right = Math.max(right, place % width);
            top = Math.min(top, Math.floor(place / width)); bottom = Math.max(bottom, Math.floor(place / width)); }}
          const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio;
          done([box.x + (left + right) / 2 / ratio, box.y + (top + bottom) / 2 / ratio]);
        }}, 100)); }})()""")
    return x, y


def test_the_page_opens_without_errors_or_requests(page: Page, url: str) -> None:
    page.requests.clear()
    page.open(url)
    assert page.errors == []
    assert page.requests == ["about:blank", url] or page.requests == [url]
    assert page.value("document.title") == "toy-lm · SparseFab report"
    assert count(page) == f"{6 * RECIPES} of {6 * RECIPES}"


def test_a_page_that_fetched_something_would_be_caught(page: Page, url: str, tmp_path: Path) -> None:
    """The same page with a picture from elsewhere: seen without its policy, blocked with it."""
    text = Path(url.removeprefix("file://")).read_text()
    planted = text.replace("<main>", '<main><img src="http://127.0.0.1:9/planted.png">')
    for name, content in (("open.html", planted.replace("Content-Security-Policy", "x")), ("closed.html", planted)):
        (tmp_path / name).write_text(content)
    page.requests.clear()
    page.open((tmp_path / "open.html").as_uri())
    assert "http://127.0.0.1:9/planted.png" in page.requests
    page.open((tmp_path / "closed.html").as_uri())
    assert page.value('performance.getEntriesByType("resource").filter((entry) => entry.transferSize > 0).length') == 0


def test_the_pointer_over_a_point_shows_its_recipe_and_figures(page: Page, url: str) -> None:
    page.open(url)
    (point, *_) = next(front for key, front in fronts(made_points(RECIPES)).items() if key[1:3] == ("u280", "decode"))
    x, y = place_of(page, point)
    page.move(5, 5)
    assert page.value('document.getElementById("tooltip").hidden') is True
    page.move(x, y)
    assert page.value('document.getElementById("tooltip").hidden') is False
    text = page.value('document.getElementById("tooltip").textContent')
    assert text.startswith(f"{point.recipe}u280 (FPGA), decode, front")
    assert "modelled" in text
    assert point.latency_s is not None
    assert f"latency{with_bounds(point.latency_s, 's')}tokens" in text
    page.value('history.replaceState(null, "", window.location.pathname)')
    page.click(x, y)
    assert page.value("window.location.hash") == f"#point={point.key}"
    assert page.value('document.querySelector("#recipe-text").textContent') == point.recipe_text


def number_of(text: str) -> float:
    """A latency as text, in seconds."""
    value, unit, *_ = text.split()
    return float(value.replace(",", "")) * {"s": 1.0, "ms": 1e-3, "µs": 1e-6}[unit]


def test_a_click_on_a_heading_sorts_and_says_so(page: Page, url: str) -> None:
    page.open(url)
    page.value('document.querySelector("#front-only").click()')
    for expected, reverse in (("descending", True), ("ascending", False)):
        page.click_on('th[data-column="latency_s"] button')
        assert page.value("""document.querySelector('th[data-column="latency_s"]').ariaSort""") == expected
        known = [number_of(text) for text in column(page, "latency_s") if text != "-"]
        assert len(known) > 20
        assert known == sorted(known, reverse=reverse)
    page.click_on('th[data-column="recipe"] button')
    recipes = column(page, "recipe")
    assert recipes == sorted(recipes, key=lambda name: [int(part) for part in name[3:].split("-d")])
    assert page.value("""document.querySelector('th[data-column="latency_s"]').ariaSort""") == "none"


def embedded(figure: Interval | None) -> Interval | None:
    """A figure with the nine digits that the page has, so that both round the same number."""
    if figure is None:
        return None
    return Interval(**{name: float(f"{getattr(figure, name):.9g}") for name in ("value", "low", "high")})


def test_the_table_writes_figures_as_the_summary_does(page: Page, url: str) -> None:
    page.open(url)
    points = {point.key: point for point in made_points(RECIPES)}
    keys = page.value('[...document.querySelectorAll("#table tbody tr")].map((row) => row.dataset.key)')
    for name, unit in (
        ("latency_s", "s"),
        ("energy_per_token_j", "J"),
        ("memory_bytes", "B"),
        ("accuracy", ""),
        ("loss", ""),
    ):
        shown = [embedded(getattr(points[key], name)) for key in keys]
        assert column(page, name) == [
            "-" if figure is None else with_bounds(figure, unit, signed=name == "loss") for figure in shown
        ]


def test_what_is_unknown_comes_last_either_way(page: Page, url: str) -> None:
    page.open(url)
    choose(page, "recipe", "int2")
    for _ in range(2):
        page.click_on('th[data-column="latency_s"] button')
        texts = column(page, "latency_s")
        assert set(texts[-6:]) == {"-"}
        assert "-" not in texts[:-6]
    assert set(column(page, "rank")[-6:]) == {"not possible"}


def test_filters_narrow_table_and_chart(page: Page, url: str) -> None:
    page.open(url)
    choose(page, "phase", "decode")
    assert page.value('document.querySelectorAll("#panels .panel").length') == 1
    assert set(column(page, "phase")) == {"decode"}
    page.click_on("#targets button:nth-child(1)")
    assert page.value('document.querySelector("#targets button").ariaPressed') == "false"
    assert set(column(page, "target")) == {"a100", "xeon-8375c"}
    choose(page, "recipe", "INT5")
    assert {name[:4] for name in column(page, "recipe")} == {"int5"}
    assert count(page).split()[0] == str(len(column(page, "recipe")))
    choose(page, "recipe", "no such recipe")
    assert count(page).startswith("0 of")
    assert page.value('document.querySelector(".panel .empty").textContent') == "No point passes the filters."
    assert page.errors == []


def test_key_value_caches_are_chosen_one_at_a_time(page: Page, tmp_path: Path) -> None:
    """A chart holds one cache only; the table may hold all, and then says which."""
    caches = ("", "int4,group=64", "gear")
    points = [replace(point, key=f"{point.key}-{place}", kv=kv)
              for point in made_points(6) for place, kv in enumerate(caches)]  # fmt: skip
    page.open(write_report(tmp_path, points, RUN)["report.html"].as_uri())
    offered = page.value('[...document.getElementById("setting").options].map((option) => [option.value, option.text])')
    assert [text.partition("cache ")[2] for _, text in offered[:3]] == ["", "gear", "int4,group=64"]
    shown = {"": "the device's own"}
    for value, text in offered[:3]:
        choose(page, "setting", value)
        cache = text.partition("cache ")[2]
        assert set(column(page, "kv")) == {shown.get(cache, cache)}
        assert count(page) == f"{6 * 6} of {3 * 6 * 6}"
        titles = page.value(
            """[...document.querySelectorAll('#panels canvas[role="img"]')].map((one) => one.ariaLabel)"""
        )
        assert len(titles) == 2
        assert all((f"cache {cache}" in title) if cache else ("cache" not in title) for title in titles)
    assert offered[3] == ["", "all (table only)"]
    choose(page, "setting", "")
    assert set(column(page, "kv")) == {"the device's own", *caches[1:]}
    assert page.value('document.querySelectorAll("#panels .panel").length') == 0
    assert page.errors == []


def test_the_front_that_is_drawn_is_the_front(page: Page, url: str) -> None:
    page.open(url)
    page.value('document.querySelector("#front-only").click()')
    expected = sorted(
        point.recipe
        for key, front in fronts(made_points(RECIPES)).items()
        for point in front
        if key[1:3] == ("u280", "prefill")
    )
    choose(page, "phase", "prefill")
    for chip in (2, 3):
        page.click_on(f"#targets button:nth-child({chip})")
    assert sorted(column(page, "recipe")) == expected


def test_a_link_leads_to_its_point(page: Page, url: str) -> None:
    slowest = max((point for point in made_points(RECIPES) if point.latency_s), key=lambda p: p.latency_s.value)  # type: ignore[union-attr]
    page.open(f"{url}#point={slowest.key}")
    assert page.value('document.getElementById("details").hidden') is False
    assert page.value('document.querySelector("#details h2").textContent') == slowest.recipe
    assert page.value('document.querySelector("#table tr.selected").dataset.key') == slowest.key
    terms = page.value('document.getElementById("terms").textContent')
    assert "compute36.0 ms" in terms
    assert "memory54.0 ms" in terms
    page.open(f"{url}#point=nonsense")
    assert page.value('document.getElementById("details").hidden') is True
    assert page.errors == []


def test_dark_and_light_differ_in_paper_and_ink(page: Page, url: str) -> None:
    def look() -> Any:
        return page.value("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")

    page.open(url)
    light = look()
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    dark = look()
    page.send("Emulation.setEmulatedMedia", features=[])
    assert light[0] != dark[0]
    assert light[1] != dark[1]


def test_ten_thousand_points_open_in_two_seconds(page: Page, tmp_path: Path) -> None:
    """The bound is the user's; the points are copies, so that making them takes no time."""
    some = made_points(100)
    points = [replace(point, key=f"{point.key}-{copy}") for copy in range(17) for point in some]
    url = write_report(tmp_path, points, RUN)["report.html"].as_uri()
    ready_ms = []
    for _ in range(2):  # the better of two: the machine has other work
        page.open(url)
        ready_ms.append(int(page.value("document.documentElement.dataset.readyMs")))
    assert count(page) == "10,200 of 10,200"
    assert min(ready_ms) < 2000
    assert page.value('document.querySelectorAll("#table tbody tr").length') == 50
