"""Two explorations side by side: one page with the points of both, and what changed in words and tables."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sparsefab.errors import ConfigError
from sparsefab.reports.objectives import Objective, objectives_of
from sparsefab.reports.pareto import standings
from sparsefab.reports.points import Interval, Point
from sparsefab.reports.render.figures import pareto_figure, to_png, to_svg
from sparsefab.reports.render.page import page
from sparsefab.reports.render.quantities import number, with_bounds
from sparsefab.reports.render.recommend import recommend
from sparsefab.reports.render.run_info import RunInfo
from sparsefab.reports.render.view import View
from sparsefab.storage import make_folder, write_atomic

__all__ = ["Change", "changes", "write_comparison"]

_MOST_ROWS = 60  # of the table in words; compare.csv has all


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A recipe in a case of both runs.

    apart : objectives           Those whose intervals do not overlap: a change that can be told from chance.
    """

    before: Point
    after: Point
    on_front: tuple[bool, bool]
    apart: tuple[str, ...]


def changes(before: Sequence[Point], after: Sequence[Point], objectives: Sequence[str]) -> list[Change]:
    """Pairs of points with one recipe, target, accelerator, phase, batch and context, in the order of the first run."""
    chosen = objectives_of(objectives)
    other = {_place(s.point): s for s in standings(after, objectives)}
    found = []
    for standing in standings(before, objectives):
        match = other.get(_place(standing.point))
        if match is not None:
            apart = tuple(one.name for one in chosen if _apart(one.of(standing.point), one.of(match.point)))
            fronts = (standing.on_front, match.on_front)
            found.append(Change(before=standing.point, after=match.point, on_front=fronts, apart=apart))
    return found


def write_comparison(
    folder: Path, runs: tuple[tuple[Sequence[Point], RunInfo], tuple[Sequence[Point], RunInfo]], names: tuple[str, str]
) -> dict[str, Path]:
    """Write compare.html, compare.md, compare.csv, compare.svg and compare.png.

    Parameters
    ----------
    folder : Path                Created when absent.
    runs                         Points and information of the first and the second run, of one model.
    names                        What the runs are called.

    Raises
    ------
    ConfigError                  If the runs are of different models or metrics.
    StorageError                 If a file cannot be written.
    """
    (before, first), (after, second) = runs
    for what, one, two in (
        ("models", {first.model}, {second.model}),
        ("metrics", {p.metric for p in before if p.metric}, {p.metric for p in after if p.metric}),
    ):
        if one != two:
            raise ConfigError(f"two runs compare only with equal {what}, not {_words(one)} and {_words(two)}")
    labels = names if names[0] != names[1] else (f"{names[0]} (1)", f"{names[1]} (2)")
    joined = [_marked(point, labels[0]) for point in before] + [_marked(point, labels[1]) for point in after]
    run = replace(first, command=("sparsefab", "report", "--compare", *names), verilog={}, created=second.created)
    view = View.of(joined, run.objectives, run.limits)
    found = changes(before, after, run.objectives)
    contents = {
        "compare.html": page(view, run, recommend(view, run)).encode(),
        "compare.md": _summary(view, found, runs, labels).encode(),
        "compare.csv": _csv(found, objectives_of(run.objectives)).encode(),
    }
    if view.settings:
        figure = pareto_figure(view, view.settings[0])
        contents |= {"compare.svg": to_svg(figure), "compare.png": to_png(figure)}
    make_folder(folder)
    paths = {}
    for name, content in contents.items():
        paths[name] = folder / name
        write_atomic(paths[name], content)
    return paths


def _summary(
    view: View,
    found: Sequence[Change],
    runs: tuple[tuple[Sequence[Point], RunInfo], tuple[Sequence[Point], RunInfo]],
    labels: tuple[str, str],
) -> str:
    (before, first), (after, second) = runs
    lines = [f"# {first.model}: {labels[0]} and {labels[1]}", ""]
    for label, points, run in ((labels[0], before, first), (labels[1], after, second)):
        made = ", ".join(f"{name} {version}" for name, version in run.versions.items())
        lines.append(f"- {label}: {len(points)} points, seed {run.seed}, {run.created}, {made}")
    differing = [name for name in {**first.settings, **second.settings}
                 if first.settings.get(name) != second.settings.get(name)]  # fmt: skip
    lines += [f"- {name}: {first.settings.get(name, '-')} and {second.settings.get(name, '-')}" for name in differing]
    told = [change for change in found if change.apart]
    own = [{_place(point)[:3] for point in points} for points in (before, after)]
    lines += [
        "",
        f"{len(found)} points are in both; {len(told)} of them changed beyond their intervals in "
        f"{' or '.join(one.name for one in view.objectives)}. "
        f"{len(own[0] - own[1])} designs are only in {labels[0]}, {len(own[1] - own[0])} only in {labels[1]}.",
    ]
    shown = [change for change in (told or found) if any(change.on_front)][:_MOST_ROWS]
    if shown:
        heads = " | ".join(f"{one.label}, {label}" for one in view.objectives for label in labels)
        which = "Changed beyond the intervals" if told else "Not to be told apart"
        lines += ["", f"## {which}, on a front of either run", "", f"| target | phase | recipe | {heads} | front |"]
        lines.append("|---|---|---|" + "--:|" * (2 * len(view.objectives)) + "---|")
        lines += [_row(change, view.objectives, labels) for change in shown]
    return "\n".join(lines) + "\n"


def _row(change: Change, objectives: Sequence[Objective], labels: tuple[str, str]) -> str:
    cells = [change.before.target, _where(change.before), f"`{change.before.recipe}`"]
    for one in objectives:
        for point in (change.before, change.after):
            figure = one.of(point)
            cells.append("-" if figure is None else with_bounds(figure, one.unit))
    both = [label for label, on in zip(labels, change.on_front, strict=True) if on]
    cells.append("both" if len(both) == 2 else both[0] if both else "-")
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _csv(found: Sequence[Change], objectives: Sequence[Objective]) -> str:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    figures = [f"{one.name}_{when}" for one in objectives for when in ("before", "after")]
    writer.writerow(
        ["target", "phase", "batch", "context", "kv", "recipe", *figures, "front_before", "front_after", "apart"]
    )
    for change in found:
        point = change.before
        values = [one.of(side) for one in objectives for side in (change.before, change.after)]
        writer.writerow(
            [point.target, point.phase, point.batch, point.context, point.kv, point.recipe]
            + ["" if value is None else number(value.value) if value.value == 0.0 else value.value for value in values]
            + [*change.on_front, " ".join(change.apart)]
        )
    return sink.getvalue()


def _place(point: Point) -> tuple[str, str, str, str, int, int, str]:
    return point.recipe_text, point.target, point.arch, point.phase, point.batch, point.context, point.kv


def _where(point: Point) -> str:
    return f"{point.phase}, batch {point.batch}" + (f", cache {point.kv}" if point.kv else "")


def _apart(one: Interval | None, other: Interval | None) -> bool:
    return one is not None and other is not None and not one.overlaps(other)


def _marked(point: Point, label: str) -> Point:
    return replace(point, key=f"{label}-{point.key}", target=f"{label}: {point.target}")


def _words(names: set[str] | set[str | None]) -> str:
    return ", ".join(sorted(str(name) for name in names)) or "none"
