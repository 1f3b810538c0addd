"""Write a report into a folder, and write it again from its own files."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from sparsefab import config
from sparsefab.errors import StorageError
from sparsefab.reports.points import Point
from sparsefab.reports.render.figures import pareto_figure, to_png, to_svg
from sparsefab.reports.render.page import page
from sparsefab.reports.render.recommend import recommend
from sparsefab.reports.render.run_info import RunInfo
from sparsefab.reports.render.summary import summary
from sparsefab.reports.render.view import View
from sparsefab.reports.schema import POINT_COLUMNS, decode_points, encode_points, row
from sparsefab.storage import make_folder, write_atomic

__all__ = ["rebuild_report", "write_report"]


def write_report(folder: Path, points: Sequence[Point], run: RunInfo) -> dict[str, Path]:
    """Write every file of a report; each appears whole or not at all.

    Parameters
    ----------
    folder : Path                Created when absent; files of an earlier report are replaced.
    points                       Points of one model and one metric, as `explore` returns them.
    run : RunInfo                How they were made.

    Returns
    -------
    dict[str, Path]              points.parquet, points.csv, run.toml, summary.md, report.html, pareto.svg, pareto.png
                                 and pareto-TARGET.svg by name.

    Raises
    ------
    StorageError                 If a file cannot be written.
    """
    view = View.of(points)
    recommendations = recommend(view, run)
    contents = {
        "points.parquet": encode_points(points),
        "points.csv": _csv(points).encode(),
        "run.toml": config.dumps(run).encode(),
        "summary.md": summary(view, run, recommendations).encode(),
        "report.html": page(view, run, recommendations).encode(),
    }
    if view.settings:
        chart = pareto_figure(view, view.settings[0])
        contents |= {"pareto.svg": to_svg(chart), "pareto.png": to_png(chart)}
        for target in view.targets:
            if any(view.at(view.settings[0], phase, target) for phase in view.phases):
                name = re.sub(r"[^A-Za-z0-9._-]", "_", target)
                contents[f"pareto-{name}.svg"] = to_svg(pareto_figure(view, view.settings[0], target))
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
    source = folder / "points.parquet"
    try:
        content = source.read_bytes()
    except OSError as error:
        raise StorageError(
            f"cannot read {source}: {error.strerror}; name a folder that `sparsefab explore` wrote"
        ) from error
    return write_report(folder, decode_points(content, str(source)), config.load(folder / "run.toml", RunInfo))


def _csv(points: Sequence[Point]) -> str:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, POINT_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for point in points:
        values = row(point)
        writer.writerow(values | {"float_layers": " ".join(values["float_layers"])})
    return sink.getvalue()
