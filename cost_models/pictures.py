"""Pictures of a validation: how errors are spread, predictions over measurements, coverage, and errors over goals."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from sparsefab.cost_models.validate_rows import Row
from sparsefab.storage import make_folder, write_atomic

__all__ = ["PICTURES", "draw", "write_pictures"]

_STYLE = {
    "font.size": 8.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.family": "sans-serif",
    "svg.fonttype": "path",
    "svg.hashsalt": "sparsefab",
    "axes.axisbelow": True,
}
_INK, _SHADE, _GOOD, _BAD = "#0072b2", "#c9ddec", "#0072b2", "#d55e00"
_COLUMNS, _PANEL_WIDTH, _PANEL_HEIGHT = 4, 1.9, 1.55
_TITLE_LETTERS = 34  # of a line over a panel
_NOMINAL = 0.90
_BINS = np.linspace(-0.5, 0.5, 41)
_MARKS = np.array([0.5, 0.8, 1.0, 1.25, 2.0])


def draw(rows: Sequence[Row]) -> dict[str, Figure]:
    """Draw what the rows hold; a picture without any data is left out.

    Returns
    -------
    errors : a histogram of predicted over measured for each set of measurements
    predicted : predicted over measured times with their intervals, one panel a set
    coverage : share of the measurements inside the 90 % interval, a bar a set
    goals : every error as a share of the goal that it is held to
    """
    sets = [row for row in rows if row.compared is not None and row.name != "all"]
    judged = [row for row in rows if row.goal and row.value is not None and row.at_most]
    covered = [row for row in rows if row.metric == "coverage" and row.value is not None]
    figures = {}
    with matplotlib.rc_context(_STYLE):
        if sets:
            figures["errors"] = _panels(sets, _histogram, "predicted / measured", "share of samples")
            figures["predicted"] = _panels(sets, _scatter, "measured, s", "predicted, s")
        if covered:
            figures["coverage"] = _bars(covered, [float(row.value or 0.0) for row in covered], _NOMINAL,
                                        "share inside the 90 % interval; line: 90 %")  # fmt: skip
        if judged:
            shares = [float(row.value or 0.0) / float(row.goal or 1.0) for row in judged]
            figures["goals"] = _bars(judged, shares, 1.0, "figure / goal; left of the line: met")
    return figures


PICTURES = ("errors", "predicted", "coverage", "goals")


def write_pictures(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write each picture as SVG and PNG; equal rows give equal files."""
    make_folder(folder)
    paths = []
    for name, figure in draw(rows).items():
        for suffix, options in (
            ("svg", {"format": "svg", "metadata": {"Date": None, "Creator": "SparseFab"}}),
            ("png", {"format": "png", "dpi": 200, "metadata": {"Software": "SparseFab"}}),
        ):
            sink = io.BytesIO()
            with matplotlib.rc_context(_STYLE):
                figure.savefig(sink, **options)
            figure.set_layout_engine("none")
            path = folder / f"{name}.{suffix}"
            write_atomic(path, sink.getvalue())
            paths.append(path)
    return paths


def _panels(rows: Sequence[Row], panel: Any, x_label: str, y_label: str) -> Figure:
    columns = min(_COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(max(3.0, _PANEL_WIDTH * columns), _PANEL_HEIGHT * lines + 0.4), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, row in zip(grid, rows, strict=False):
        panel(axes, row)
        name = row.name if row.part == "products" else f"{row.part}: {row.name}"
        axes.set_title(textwrap.fill(f"{name}  {row.value:.1%}", _TITLE_LETTERS), fontsize=6.5)
        axes.tick_params(labelsize=6.0, width=0.5)
    for axes in grid[len(rows) :]:
        axes.set_axis_off()
    figure.supxlabel(x_label, fontsize=8.0)
    figure.supylabel(y_label, fontsize=8.0)
    return figure


def _histogram(axes: Any, row: Row) -> None:
    assert row.compared is not None  # only such rows are drawn
    predicted, _, _, measured = row.compared
    logs = np.clip(np.log2(predicted / measured), _BINS[0], _BINS[-1])
    axes.hist(logs, bins=_BINS, weights=np.full(len(logs), 1.0 / len(logs)), color=_INK)
    axes.axvline(0.0, color="black", linewidth=0.6)
    shown = _MARKS[np.abs(np.log2(_MARKS)) <= _BINS[-1]]
    axes.set_xticks(np.log2(shown), [f"{mark:g}" for mark in shown])


def _scatter(axes: Any, row: Row) -> None:
    assert row.compared is not None  # only such rows are drawn
    predicted, low, high, measured = row.compared
    axes.vlines(measured, low, high, color=_SHADE, linewidth=0.7)
    axes.plot(measured, predicted, ".", color=_INK, markersize=1.6)
    ends = [min(measured.min(), predicted.min()), max(measured.max(), predicted.max())]
    axes.plot(ends, ends, color="black", linewidth=0.5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.minorticks_off()


def _bars(rows: Sequence[Row], values: Sequence[float], line: float, label: str) -> Figure:
    figure = Figure(figsize=(5.2, 0.16 * len(rows) + 0.7), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    axes.barh(places, values, color=[_GOOD if row.passed else _BAD for row in rows], height=0.7)
    axes.axvline(line, color="black", linewidth=0.8)
    metrics = {row.metric for row in rows}
    names = [f"{row.part}: {row.name}" + (f", {row.metric}" if len(metrics) > 1 else "") for row in rows]
    axes.set_yticks(places, names, fontsize=6.0)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=6.5)
    axes.set_xlabel(label, fontsize=7.5)
    return figure
