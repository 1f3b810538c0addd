"""Figures fit for a paper: loss of accuracy against latency, for all targets together and for each alone."""

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from sparsefab.reports.pareto import Standing
from sparsefab.reports.points import Interval, Phase
from sparsefab.reports.render.palette import DEVICE_NAMES, Look, look
from sparsefab.reports.render.quantities import tick
from sparsefab.reports.render.view import Setting, View

__all__ = ["STYLE", "pareto_figure", "to_png", "to_svg"]

STYLE = {
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.5,
    "legend.fontsize": 7.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.family": "sans-serif",
    "svg.fonttype": "path",
    "svg.hashsalt": "sparsefab",
    "axes.axisbelow": True,
    "path.simplify": True,
}
_RASTER_ABOVE = 2000  # points; a vector file of more is slow to open everywhere
_MOST_BARS = 40  # of a target
_LABEL_WIDTH, _LABEL_HEIGHT = 60.0, 11.0  # pixels at 100 dots an inch


def pareto_figure(view: View, setting: Setting, target: str | None = None) -> Figure:
    """Draw one panel a phase, with the fronts as lines and bounds as error bars.

    Parameters
    ----------
    view : View                  What to draw.
    setting : Setting            Batch, context and cache that all panels share.
    target : str | None          One target only, with the recipes on its front named; None draws all.
    """
    phases = [phase for phase in view.phases if view.at(setting, phase, target)] or list(view.phases[:1])
    with matplotlib.rc_context(STYLE):
        width = 3.5 * len(phases) if len(phases) > 1 else 4.5
        figure = Figure(figsize=(width, 3.1), layout="constrained")
        grid = figure.subplots(1, max(1, len(phases)), squeeze=False, sharey=True)[0]
        for axes, phase in zip(grid, phases, strict=False):
            _draw_panel(axes, view, setting, phase, target)
        grid[0].set_ylabel(view.y_label)
        _draw_legend(figure, view, setting, target, 2 * len(phases))
    return figure


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG; equal points give equal bytes."""
    return _save(figure, format="svg", metadata={"Date": None, "Creator": "SparseFab"})


def to_png(figure: Figure) -> bytes:
    """The figure as PNG at 300 dots an inch."""
    return _save(figure, format="png", dpi=300, metadata={"Software": "SparseFab"})


def _save(figure: Figure, **options: Any) -> bytes:
    sink = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(sink, **options)
    figure.set_layout_engine("none")  # laid out once is enough for every format
    return sink.getvalue()


def _draw_panel(axes: Any, view: View, setting: Setting, phase: Phase, target: str | None) -> None:
    shown = [target] if target else view.targets
    for name in shown:
        members = view.at(setting, phase, name)
        if members:
            _draw_target(axes, view, members, look(view.targets.index(name), view.device(name)))
    if view.across_is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=_subs(axes.get_xlim())))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(*_loss_limits(view, setting, target))
    if view.loss_scale.linear_width is not None:
        axes.set_yscale("asinh", linear_width=view.loss_scale.linear_width)
        axes.yaxis.set_major_locator(FixedLocator(_asinh_ticks(axes.get_ylim(), view.loss_scale.linear_width)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.axhline(0.0, color="#808080", linewidth=0.6, zorder=0.5)
    axes.grid(True, which="major", color="#e4e4e4", linewidth=0.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, view.x.unit)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, view.y.unit)))
    axes.set_xlabel(view.x_label(phase))
    axes.set_title(f"{view.phase_label(phase)} ({view.setting_label(setting)})")
    if target:
        _name_front(axes, view, view.at(setting, phase, target))


def _loss_limits(view: View, setting: Setting, target: str | None) -> tuple[float, float]:
    """Zero, every loss and the bounds of the fronts, with a margin as the eye sees it."""
    intervals = [(view.xy(s)[1], s.on_front) for phase in view.phases for s in view.at(setting, phase, target)]
    ends = [0.0]
    for upwards, on_front in intervals:
        ends += [upwards.low, upwards.high] if on_front else [upwards.value]
    width = view.loss_scale.linear_width
    low, high = (end if width is None else math.asinh(end / width) for end in (min(ends), max(ends)))
    margin = 0.05 * (high - low) or 1.0
    low, high = low - margin, high + margin
    return (low, high) if width is None else (width * math.sinh(low), width * math.sinh(high))


def _subs(limits: tuple[float, float]) -> tuple[float, ...]:
    """Steps within a decade that get a tick: the more, the shorter the axis."""
    ratio = limits[1] / limits[0]
    return (1.0, 2.0, 3.0, 5.0, 7.0) if ratio < 8.0 else (1.0, 2.0, 5.0) if ratio < 100.0 else (1.0,)


def _asinh_ticks(limits: tuple[float, float], linear_width: float) -> list[float]:
    """Round values that stand well apart on an asinh axis: zero first, then powers of ten, then their 5 and 2 fold."""
    low, high = limits
    apart = (math.asinh(high / linear_width) - math.asinh(low / linear_width)) / 10.0
    decades = range(math.floor(math.log10(linear_width)) - 1, math.ceil(math.log10(max(-low, high))) + 1)
    ticks = [0.0]
    for step in (1.0, 5.0, 2.0):
        for value in (sign * step * 10.0**decade for decade in reversed(decades) for sign in (1, -1)):
            distances = [abs(math.asinh(value / linear_width) - math.asinh(other / linear_width)) for other in ticks]
            if low <= value <= high and min(distances) >= apart:
                ticks.append(value)
    return sorted(ticks)


def _draw_target(axes: Any, view: View, members: Sequence[Standing], style: Look) -> None:
    rest = [s for s in members if not s.on_front]
    front = sorted((s for s in members if s.on_front), key=lambda s: _xy(view, s))
    if rest:
        x, y = zip(*(_xy(view, s) for s in rest), strict=True)
        alpha = 0.45 if len(rest) < 300 else 0.2
        axes.plot(
            x,
            y,
            linestyle="none",
            marker=style.mark,
            markersize=3.0,
            markerfacecolor="none",
            markeredgecolor=style.light,
            markeredgewidth=0.6,
            alpha=alpha,
            zorder=2,
            rasterized=len(rest) > _RASTER_ABOVE,
        )
    if front:
        x, y = zip(*(_xy(view, s) for s in front), strict=True)
        steps = "steps-pre" if view.x.larger else "steps-post"
        line = axes.plot(x, y, color=style.light, linewidth=1.1, drawstyle=steps, zorder=3)[0]
        if style.dashes:
            line.set_dashes(style.dashes)
        every = -(-len(front) // _MOST_BARS)
        size, edge = (4.0, 0.5) if every == 1 else (2.5, 0.0)
        axes.errorbar(
            x,
            y,
            xerr=_spread([view.xy(s)[0] for s in front]),
            yerr=_spread([view.xy(s)[1] for s in front]),
            fmt=style.mark,
            color=style.light,
            ecolor=to_rgba(style.light, 0.45),
            markersize=size,
            markeredgecolor="white",
            markeredgewidth=edge,
            elinewidth=0.6,
            capsize=1.2,
            capthick=0.5,
            errorevery=every,
            zorder=4,
        )


def _xy(view: View, standing: Standing) -> tuple[float, float]:
    across, upwards = view.xy(standing)
    return across.value, upwards.value


def _spread(intervals: Sequence[Interval]) -> list[list[float]]:
    return [[one.value - one.low for one in intervals], [one.high - one.value for one in intervals]]


def _name_front(axes: Any, view: View, members: Sequence[Standing]) -> None:
    """Name the recipes on the front whose names find room; the most accurate and the fastest come first."""
    front = sorted((s for s in members if s.on_front), key=lambda s: _xy(view, s))
    taken: list[tuple[float, float]] = []
    for standing in [*front[-1:], *front[:-1]]:
        x, y = axes.transData.transform(_xy(view, standing))
        if all(abs(x - other_x) > _LABEL_WIDTH or abs(y - other_y) > _LABEL_HEIGHT for other_x, other_y in taken):
            taken.append((x, y))
            axes.annotate(
                standing.point.recipe,
                _xy(view, standing),
                xytext=(4, 5),
                textcoords="offset points",
                fontsize=6.5,
                color="#303030",
                zorder=5,
            )


def _draw_legend(figure: Figure, view: View, setting: Setting, target: str | None, columns: int) -> None:
    handles = []
    for index, name in enumerate(view.targets):
        members = [s for phase in view.phases for s in view.at(setting, phase, name)]
        if not members or target not in (None, name):
            continue
        device = view.device(name)
        style = look(index, device)
        origin = ", ".join(sorted({s.point.provenance for s in members}))
        line = Line2D(
            [],
            [],
            color=style.light,
            marker=style.mark,
            markersize=4.0,
            markeredgecolor="white",
            linewidth=1.1,
            label=f"{name} ({DEVICE_NAMES[device]}, {origin})",
        )
        if style.dashes:
            line.set_dashes(style.dashes)
        handles.append(line)
    handles.append(
        Line2D(
            [],
            [],
            linestyle="none",
            marker="o",
            markersize=3.0,
            markerfacecolor="none",
            markeredgecolor="#606060",
            markeredgewidth=0.6,
            label="not on the front",
        )
    )
    # two to a row and no more: a legend wider than the figure is cut off
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, 2, len(handles)), frameon=False)
