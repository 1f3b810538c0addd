"""Figures beside the fronts: rooflines, the terms of costs, the errors of layers, hypervolume over evaluations."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from sparsefab.reports.pareto import Standing, hypervolume
from sparsefab.reports.points import LayerError, Point
from sparsefab.reports.render.figures import STYLE
from sparsefab.reports.render.palette import look
from sparsefab.reports.render.quantities import number, tick
from sparsefab.reports.render.view import Setting, View

__all__ = ["breakdown_figure", "hypervolume_figure", "roofline_figure", "sensitivity_figure"]

_MOST_BARS = 6  # recipes of a target
_MOST_CELLS = 4000  # a finer heat map shows no more
_STEPS = 120  # of a hypervolume's course
_TERM_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#6b6b6b")
_WORST = 1.05  # of the box that the hypervolume is measured in: a point at its edge counts too


def roofline_figure(view: View, setting: Setting) -> Figure | None:
    """One panel a target: operations a second over operations a byte moved, under the peaks of the device."""
    members = {target: _with_terms(view, setting, target, "operations", "traffic_bytes") for target in view.targets}
    shown = [target for target in view.targets if members[target]]
    if not shown:
        return None
    with matplotlib.rc_context(STYLE):
        figure, grid = _panels(len(shown), 2.6)
        for axes, target in zip(grid, shown, strict=True):
            _draw_roofline(axes, view, target, members[target])
        grid[0].set_ylabel("dense operations a second")
    return figure


def _draw_roofline(axes: Any, view: View, target: str, members: Sequence[Standing]) -> None:
    style = look(view.targets.index(target), view.device(target))
    first = members[0].point.terms
    bandwidth, peaks = _number(first, "bandwidth_bytes_per_s"), first.get("peak_op_per_s")
    peaks = {name: float(value) for name, value in peaks.items()} if isinstance(peaks, dict) else {}
    places = {}
    for phase in view.phases:
        face = style.light if phase == view.phases[-1] else "none"
        at = [s.point for s in members if s.point.phase == phase and s.point.latency_s is not None]
        if at:
            x = [_number(p.terms, "operations") / _number(p.terms, "traffic_bytes") for p in at]
            y = [_number(p.terms, "operations") / p.latency_s.value for p in at if p.latency_s is not None]
            axes.plot(x, y, style.mark, markersize=3.5, markerfacecolor=face, markeredgecolor=style.light,
                      markeredgewidth=0.6, label=view.phase_label(phase), zorder=3,
                      rasterized=len(at) > 500)  # fmt: skip
            places[phase] = (x, y)
    across = [value for x, _ in places.values() for value in x]
    knees = [peak / bandwidth for peak in peaks.values()]
    low, high = min([*across, *knees]) / 3, max([*across, *knees]) * 3
    for place, (name, peak) in enumerate(sorted(peaks.items(), key=lambda item: item[1])):
        roof = np.geomspace(low, high, 200)
        axes.plot(roof, np.minimum(peak, roof * bandwidth), color="#707070", linewidth=0.8, dashes=(3, 1 + 2 * place))
        # the lower roof's label hangs below it, so that near roofs keep theirs apart
        below = place == 0 and len(peaks) > 1
        axes.annotate(f"{name} {number(peak / 1e12)} Tops/s", (high, peak), xytext=(0, -2 if below else 2),
                      textcoords="offset points", fontsize=6, ha="right", va="top" if below else "bottom", zorder=5,
                      path_effects=[withStroke(linewidth=2.0, foreground="white")])  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom / 2, top * 3)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high / low < 30.0 else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("operations a byte moved")
    axes.set_title(f"{target}, {number(bandwidth / 1e9)} GB/s")
    axes.grid(True, which="major", color="#e4e4e4", linewidth=0.5)
    axes.legend(loc="upper left", frameon=False)


def breakdown_figure(view: View, setting: Setting) -> Figure | None:
    """One panel a target: the terms of front points' latencies side by side, for they overlap, the latency as a mark.

    Of a long front, points evenly spread from end to end.
    """
    phase = "decode" if "decode" in view.phases else view.phases[0] if view.phases else None
    members = {}
    for target in view.targets:
        front = [s for s in _with_terms(view, setting, target, "operations") if s.on_front and s.point.phase == phase]
        front.sort(key=lambda standing: view.xy(standing)[0].value)
        places = np.unique(np.linspace(0, len(front) - 1, min(len(front), _MOST_BARS)).round().astype(int))
        members[target] = [front[place].point for place in places]
    shown = [target for target in view.targets if members[target]]
    if not shown or phase is None:
        return None
    terms = sorted({name for points in members.values() for point in points for name in _terms(point)})
    with matplotlib.rc_context(STYLE):
        figure, grid = _panels(len(shown), 0.9 + 0.42 * max(map(len, members.values())), width=3.4)
        for axes, target in zip(grid, shown, strict=True):
            _draw_terms(axes, members[target], terms)
            axes.set_title(f"{target}, {view.phase_label(phase)}")
        handles, labels = grid[0].get_legend_handles_labels()
        known = dict(zip(labels, handles, strict=True))
        for axes in grid[1:]:
            known |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=7, frameon=False)
    return figure


def _draw_terms(axes: Any, points: Sequence[Point], terms: Sequence[str]) -> None:
    own = [name for name in terms if any(_terms(point).get(name) for point in points)]
    height = 0.8 / max(1, len(own))
    for place, name in enumerate(own):
        values = [_terms(point).get(name, 0.0) for point in points]
        rows = np.arange(len(points)) - 0.4 + (place + 0.5) * height
        colour = _TERM_COLOURS[terms.index(name) % len(_TERM_COLOURS)]
        axes.barh(rows, values, height=height, color=colour, label=name)
    for row, point in enumerate(points):
        if point.latency_s is not None:
            latency = point.latency_s
            axes.plot([latency.value] * 2, [row - 0.42, row + 0.42], color="#202020", linewidth=1.2,
                      label="latency" if row == 0 else None)  # fmt: skip
            axes.plot([latency.low, latency.high], [row, row], color="#202020", linewidth=0.5)
    axes.set_yticks(range(len(points)), [_cut(point.recipe) for point in points], fontsize=6.5)
    axes.invert_yaxis()
    axes.set_xlim(left=0.0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, "s")))


def sensitivity_figure(layers: Sequence[LayerError]) -> Figure | None:
    """Relative error of the weights, a row a layer and a column a recipe, the recipes by falling mean error."""
    names = list(dict.fromkeys(error.layer for error in layers))
    recipes = list(dict.fromkeys(error.recipe for error in layers))
    if not names:
        return None
    values = np.full((len(names), len(recipes)), np.nan)
    rows = {name: place for place, name in enumerate(names)}
    columns = {name: place for place, name in enumerate(recipes)}
    for error in layers:
        values[rows[error.layer], columns[error.recipe]] = error.relative_error or np.nan
    known = ~np.isnan(values).all(axis=0)
    if not known.any():
        return None
    values, recipes = values[:, known], [name for name, keep in zip(recipes, known, strict=True) if keep]
    order = np.argsort(-np.nanmean(values, axis=0), kind="stable")[: max(1, _MOST_CELLS // len(names))]
    with matplotlib.rc_context(STYLE | {"axes.spines.top": True, "axes.spines.right": True}):
        size = (min(10.0, 2.6 + 0.16 * len(order)), min(11.0, 1.4 + 0.13 * len(names)))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        shown = values[:, order]
        low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
        image = axes.imshow(shown, aspect="auto", cmap="viridis", norm=LogNorm(low, max(high, low * 1.01)),
                            interpolation="nearest")  # fmt: skip
        axes.set_xticks(range(len(order)), [_cut(recipes[place]) for place in order], rotation=90, fontsize=6)
        every = -(-len(names) // 70)
        axes.set_yticks(range(0, len(names), every), names[::every], fontsize=5.5)
        bar = figure.colorbar(image, ax=axes, label="relative error of the weights")
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
        bar.ax.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    return figure


def hypervolume_figure(view: View, setting: Setting) -> Figure | None:
    """The part of the box between best and worst figures that the front dominates, as evaluations come in."""
    phase = "decode" if "decode" in view.phases else view.phases[0] if view.phases else None
    shown = [target for target in view.targets if phase and view.at(setting, phase, target)]
    if not shown or phase is None:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.5, 2.8), layout="constrained")
        axes = figure.subplots()
        for target in shown:
            style = look(view.targets.index(target), view.device(target))
            counts, volumes = course(view, setting, phase, target)
            axes.plot(counts, volumes, color=style.light, linewidth=1.2, drawstyle="steps-post", label=target)
        axes.set_xlabel("designs evaluated")
        axes.set_ylabel("hypervolume, part of the box")
        axes.set_ylim(0.0, 1.02)
        axes.set_title(f"{view.phase_label(phase)} ({view.setting_label(setting)})")
        axes.grid(True, color="#e4e4e4", linewidth=0.5)
        axes.legend(loc="lower right", frameon=False)
    return figure


def course(view: View, setting: Setting, phase: str, target: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Designs evaluated, and the hypervolume after them: 1 is all of the box from the best to the worst figures.

    An axis whose figures are positive and reach over a decade counts in logarithms.
    """
    everything = [s for s in view.standings if s.point.target == target and s.point.phase == phase
                  and Setting.of(s.point) == setting]  # fmt: skip
    rows = []
    for standing in everything:
        costs = [objective.cost_of(standing.point) for objective in view.objectives]
        usable = standing.rank not in ("none", "outside")
        rows.append([cost.value if cost is not None and usable else np.nan for cost in costs])
    values = np.array(rows, np.float64)
    for column in values.T if not np.isnan(values).all() else ():
        low, high = np.nanmin(column), np.nanmax(column)
        if low > 0.0 and high > 10.0 * low:
            column[:] = np.log(column)
            low, high = np.log(low), np.log(high)
        column[:] = (column - low) / ((high - low) or 1.0)
    counts = np.unique(np.linspace(1, len(values), min(len(values), _STEPS)).round().astype(np.int64))
    reference = np.full(values.shape[1], _WORST)
    volumes = [hypervolume(values[:count], reference.tolist()) / _WORST ** values.shape[1] for count in counts]
    return counts, np.array(volumes)


def _panels(count: int, height: float, width: float = 2.9) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(width * count if count > 1 else 4.5, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _with_terms(view: View, setting: Setting, target: str, *names: str) -> list[Standing]:
    members = [s for phase in view.phases for s in view.at(setting, phase, target)]
    return [s for s in members if all(_number(s.point.terms, name) > 0.0 for name in names)]


def _number(terms: Any, name: str) -> float:
    value = terms.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _terms(point: Point) -> dict[str, float]:
    found = point.terms.get("terms_s")
    return {name: float(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _cut(name: str) -> str:
    return name if len(name) <= 26 else name[:25] + "…"
