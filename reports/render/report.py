"""Write a report into a folder, and write it again from its own files."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from sparsefab import config
from sparsefab.errors import StorageError
from sparsefab.reports.points import LayerError, Point
from sparsefab.reports.render.charts import (
    breakdown_figure,
    hypervolume_figure,
    roofline_figure,
    sensitivity_figure,
)
from sparsefab.reports.render.compare import write_comparison
from sparsefab.reports.render.figures import pareto_figure, to_png, to_svg
from sparsefab.reports.render.page import page
from sparsefab.reports.render.recommend import recommend
from sparsefab.reports.render.run_info import RunInfo
from sparsefab.reports.render.summary import summary
from sparsefab.reports.render.view import View
from sparsefab.reports.schema import POINT_COLUMNS, decode_points, encode_points, row
from sparsefab.storage import make_folder, write_atomic

__all__ = ["compare_reports", "rebuild_report", "write_report"]

_LAYER_COLUMNS = ("recipe", "layer", "relative_error", "bits_per_weight")
_TITLES = {
    "roofline": "Rooflines",
    "breakdown": "What the costs are made of",
    "sensitivity": "Errors of the layers",
    "hypervolume": "Hypervolume over evaluations",
}


def write_report(
    folder: Path, points: Sequence[Point], run: RunInfo, layers: Sequence[LayerError] = ()
) -> dict[str, Path]:
    """Write every file of a report; each appears whole or not at all.

    Parameters
    ----------
    folder : Path                Created when absent; files of an earlier report are replaced.
    points                       Points of one model and one metric, as `explore` returns them.
    run : RunInfo                How they were made.
    layers                       Errors of the layers under the recipes, if known.

    Returns
    -------
    dict[str, Path]              points.parquet, points.csv, layers.csv, run.toml, summary.md, report.html, and by name
                                 pareto, roofline, breakdown, sensitivity and hypervolume as .svg and .png, and
                                 pareto-TARGET.svg.

    Raises
    ------
    StorageError                 If a file cannot be written.
    """
    view = View.of(points, run.objectives, run.limits)
    recommendations = recommend(view, run)
    figures = _figures(view, layers)
    pictures = {_TITLES[name]: to_svg(figure) for name, figure in figures.items() if name in _TITLES}
    contents = {
        "points.parquet": encode_points(points),
        "points.csv": _csv(points).encode(),
        "run.toml": config.dumps(run).encode(),
        "summary.md": summary(view, run, recommendations).encode(),
        "report.html": page(view, run, recommendations, pictures).encode(),
    }
    if layers:
        contents["layers.csv"] = _layers_csv(layers).encode()
    for name, figure in figures.items():
        contents[f"{name}.svg"] = pictures[_TITLES[name]] if name in _TITLES else to_svg(figure)
        if not name.startswith("pareto-"):
            contents[f"{name}.png"] = to_png(figure)
    make_folder(folder)
    paths = {}
    for name, content in contents.items():
        paths[name] = folder / name
        write_atomic(paths[name], content)
    return paths


def rebuild_report(folder: Path) -> dict[str, Path]:
    """Write the report of a folder again, from its points.parquet and run.toml.

    Raises
    ------
    StorageError                 If points.parquet is missing, damaged or of another version.
    ConfigError                  If run.toml is missing or not one of ours.
    """
    points, run = _read(folder)
    return write_report(folder, points, run, _read_layers(folder / "layers.csv"))


def compare_reports(first: Path, second: Path, out: Path | None = None) -> dict[str, Path]:
    """Put the runs of two folders side by side; raises as `rebuild_report` does, and if they do not compare.

    out : Path | None            None: A-B beside B.
    """
    one, two = first.resolve(), second.resolve()
    names = (one.name, two.name) if one.name != two.name else (f"{one.parent.name}-{one.name}",
                                                              f"{two.parent.name}-{two.name}")  # fmt: skip
    folder = out or second.parent / f"{names[0]}-{names[1]}"
    return write_comparison(folder, (_read(first), _read(second)), names)


def _read(folder: Path) -> tuple[list[Point], RunInfo]:
    source = folder / "points.parquet"
    try:
        content = source.read_bytes()
    except OSError as error:
        raise StorageError(
            f"cannot read {source}: {error.strerror}; name a folder that `sparsefab explore` wrote"
        ) from error
    return decode_points(content, str(source)), config.load(folder / "run.toml", RunInfo)


def _figures(view: View, layers: Sequence[LayerError]) -> dict[str, Figure]:
    figures: dict[str, Figure | None] = {"sensitivity": sensitivity_figure(layers)}
    if view.settings:
        setting = view.settings[0]
        figures["pareto"] = pareto_figure(view, setting)
        for target in view.targets:
            if any(view.at(setting, phase, target) for phase in view.phases):
                figures[f"pareto-{re.sub(r'[^A-Za-z0-9._-]', '_', target)}"] = pareto_figure(view, setting, target)
        figures["roofline"] = roofline_figure(view, setting)
        figures["breakdown"] = breakdown_figure(view, setting)
        figures["hypervolume"] = hypervolume_figure(view, setting)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _layers_csv(layers: Sequence[LayerError]) -> str:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(_LAYER_COLUMNS)
    writer.writerows([getattr(error, name) for name in _LAYER_COLUMNS] for error in layers)
    return sink.getvalue()


def _read_layers(path: Path) -> list[LayerError]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return [
                LayerError(
                    recipe=row["recipe"],
                    layer=row["layer"],
                    relative_error=float(row["relative_error"]),
                    bits_per_weight=float(row["bits_per_weight"]),
                )
                for row in csv.DictReader(stream)
            ]
    except (KeyError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise StorageError(f"{path} is damaged; remove it, and the report is written without it") from error


def _csv(points: Sequence[Point]) -> str:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, POINT_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for point in points:
        values = row(point)
        writer.writerow(values | {"float_layers": " ".join(values["float_layers"])})
    return sink.getvalue()
