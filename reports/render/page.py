"""The page: one HTML file that holds its data, style and script, and asks no network for anything.

The data is embedded as JSON, one array a column, with recipes stored once. A content security policy in the page keeps
the browser from fetching whatever the data may contain.
"""

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsefab.reports.pareto import Standing
from sparsefab.reports.points import Interval
from sparsefab.reports.render.palette import DEVICE_NAMES, look
from sparsefab.reports.render.quantities import with_bounds
from sparsefab.reports.render.recommend import Recommendation, limits_in_words
from sparsefab.reports.render.run_info import RunInfo
from sparsefab.reports.render.summary import PROVENANCE_MEANING
from sparsefab.reports.render.view import View

__all__ = ["page"]

_TEMPLATES = Path(__file__).parents[1] / "templates"
_SCRIPTS = ("format.js", "scales.js", "chart.js", "table.js", "details.js", "report.js")
_PLAIN = (
    "key",
    "phase",
    "batch",
    "context",
    "kv",
    "status",
    "reason",
    "fidelity",
    "item",
    "weight_bytes",
    "bits_per_weight",
    "support",
    "provenance",
)
_INTERVALS = (
    "accuracy",
    "loss",
    "latency_s",
    "throughput_tokens_per_s",
    "energy_per_token_j",
    "power_w",
    "price_per_million_tokens_usd",
    "memory_bytes",
    "lut",
    "ff",
    "dsp",
    "bram18",
    "uram",
)
_MOST_TIES = 8  # named for a point; the rest is in what overlaps on the chart


def page(
    view: View,
    run: RunInfo,
    recommendations: Sequence[Recommendation],
    pictures: Mapping[str, bytes] | None = None,
) -> str:
    """Write `report.html`; `pictures` are SVG by title."""
    text = (_TEMPLATES / "report.html").read_text(encoding="utf-8")
    parts = {
        "/* style */": (_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        "/* data */": _embed(_data(view, run, recommendations, pictures or {})),
        "/* script */": "\n".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in _SCRIPTS),
    }
    for marker, content in parts.items():
        head, found, tail = text.partition(marker)
        if not found:
            raise ValueError(f"report.html must contain the marker {marker}")
        text = head + content + tail
    return text


def _embed(data: dict[str, Any]) -> str:
    """JSON that may stand within a script element: no tag or comment can begin in it."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _picture(content: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(content).decode()


def _sentence(upwards: str, across: str) -> str:
    return f"{upwards[:1].upper()}{upwards[1:]} against {across}"


def _data(
    view: View, run: RunInfo, recommendations: Sequence[Recommendation], pictures: Mapping[str, bytes]
) -> dict[str, Any]:
    texts: dict[tuple[str, str], int] = {}
    archs: dict[str, int] = {}
    protocols: dict[tuple[str, str, float | None, tuple[str, ...]], int] = {}
    for standing in view.standings:
        point = standing.point
        texts.setdefault((point.recipe, point.recipe_text), len(texts))
        protocols.setdefault(_evaluation(standing), len(protocols))
        archs.setdefault(point.arch, len(archs))
    terms = [_split(s.point.terms) for s in view.standings]
    shared: dict[str, int] = {}
    places = {s.point.key: place for place, s in enumerate(view.standings)}
    columns: dict[str, list[Any]] = {name: [getattr(s.point, name) for s in view.standings] for name in _PLAIN}
    for name in _INTERVALS:
        columns |= _bounds(name, [getattr(s.point, name) for s in view.standings])
    for axis, objective in (("x", view.x), ("y", view.y)):
        columns |= _bounds(axis, [objective.of(s.point) for s in view.standings])
    columns |= {
        "recipe": [texts[s.point.recipe, s.point.recipe_text] for s in view.standings],
        "target": [view.targets.index(s.point.target) for s in view.standings],
        "evaluation": [protocols[_evaluation(s)] for s in view.standings],
        "rank": [s.rank for s in view.standings],
        "tied_with": [[places[key] for key in s.tied_with[:_MOST_TIES]] for s in view.standings],
        "broken": [s.broken for s in view.standings],
        "arch": [archs[s.point.arch] for s in view.standings],
        "terms": [_json(own) for own, _ in terms],
        "shared": [shared.setdefault(_json(rest), len(shared)) for _, rest in terms],
    }
    return {
        "model": run.model,
        "command": shlex.join(run.command),
        "seed": run.seed,
        "created": run.created,
        "commit": run.commit,
        "versions": run.versions,
        "settings_given": run.settings,
        "metric": view.metric,
        "better": view.better,
        "loss_label": view.loss_label,
        "axes": {
            "x": {"unit": view.x.unit, "log": view.across_is_log, "larger": view.x.larger},
            "y": {"unit": view.y.unit, "label": view.y_label},
        },
        "x_labels": {phase: view.x_label(phase) for phase in view.phases},
        "title": _sentence(view.y_label if view.y.name != "loss" else "loss of accuracy", view.x.label),
        "verilog": [run.verilog.get(text) for text in archs],
        "archs": list(archs),
        "shared_terms": list(shared),
        "figures": [[name, _picture(content)] for name, content in pictures.items()],
        "linear_width": view.loss_scale.linear_width,
        "limits": limits_in_words(run),
        "phases": view.phases,
        "phase_labels": {phase: view.phase_label(phase) for phase in view.phases},
        "settings": [[s.batch, s.context, s.kv, view.setting_label(s)] for s in view.settings],
        "targets": [_target(view, index) for index in range(len(view.targets))],
        "recipes": [{"name": name, "text": text} for name, text in texts],
        "evaluations": [
            {"protocol": protocol, "data_hash": data_hash, "baseline": baseline, "float_layers": layers}
            for protocol, data_hash, baseline, layers in protocols
        ],
        "provenance_meaning": PROVENANCE_MEANING,
        "recommendations": [_recommendation(made) for made in recommendations],
        "columns": columns,
    }


def _json(terms: Mapping[str, object]) -> str:
    return json.dumps(terms, allow_nan=False, sort_keys=True)


def _split(terms: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Terms with a point's own numbers, and those that many points share."""
    own: dict[str, object] = {}
    rest: dict[str, object] = {}
    for name, value in terms.items():
        if isinstance(value, int | float):
            own[name] = _short(value)
        elif (
            isinstance(value, dict) and name.endswith("_s") and all(isinstance(v, int | float) for v in value.values())
        ):
            own[name] = {part: _short(number) for part, number in value.items()}
        else:
            rest[name] = value
    return own, rest


def _target(view: View, index: int) -> dict[str, Any]:
    device = view.device(view.targets[index])
    style = look(index, device)
    return {
        "name": view.targets[index],
        "device": DEVICE_NAMES[device],
        "light": style.light,
        "dark": style.dark,
        "mark": style.mark,
        "dashes": style.dashes,
    }


def _evaluation(standing: Standing) -> tuple[str, str, float | None, tuple[str, ...]]:
    point = standing.point
    return point.protocol or "", point.data_hash, point.baseline, point.float_layers


def _bounds(name: str, intervals: Sequence[Interval | None]) -> dict[str, list[Any]]:
    """Three columns, or none when nothing is known of any point."""
    if all(interval is None for interval in intervals):
        return {}
    return {
        name: [interval and _short(interval.value) for interval in intervals],
        f"{name}_low": [interval and _short(interval.low) for interval in intervals],
        f"{name}_high": [interval and _short(interval.high) for interval in intervals],
    }


def _short(value: float) -> float:
    """Nine significant digits are more than a page shows; the Parquet file has them all."""
    return float(f"{value:.9g}")


def _recommendation(made: Recommendation) -> dict[str, Any]:
    point = made.point
    latency = with_bounds(point.latency_s, "s") if point and point.latency_s else ""
    loss = with_bounds(point.loss, signed=True) if point and point.loss else ""
    return {
        "target": made.target,
        "phase": made.phase,
        "key": point.key if point else None,
        "recipe": point.recipe if point else None,
        "latency": latency,
        "loss": loss,
        "provenance": point.provenance if point else None,
        "reasons": list(made.reasons),
    }
