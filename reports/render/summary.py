"""The summary in words and tables, as Markdown."""

import shlex
from collections import Counter
from collections.abc import Sequence

from sparsefab.reports.pareto import Standing
from sparsefab.reports.points import Interval
from sparsefab.reports.render.palette import DEVICE_NAMES
from sparsefab.reports.render.quantities import number, quantity, with_bounds
from sparsefab.reports.render.recommend import Recommendation, limits_in_words
from sparsefab.reports.render.run_info import RunInfo
from sparsefab.reports.render.view import View

__all__ = ["PROVENANCE_MEANING", "summary"]

PROVENANCE_MEANING = {
    "measured here": "timed on this machine",
    "measured elsewhere": "timed by others, source given",
    "calibrated": "a model fitted to measurements of this device",
    "modelled": "computed from the architecture and data sheets, not checked against a measurement of this device",
    "assumed": "rests on an assumption that nobody measured",
}


_MOST_ROWS = 40  # of a front's table


def summary(view: View, run: RunInfo, recommendations: Sequence[Recommendation]) -> str:
    """Write `summary.md`."""
    recipes = len({standing.point.recipe_text for standing in view.standings})
    parts = [
        f"# {run.model}: {recipes} recipes on {len(view.targets)} targets",
        _recommendation(view, recommendations, run),
        _baseline(view),
        _fronts(view),
        _float_layers(view),
        _provenance(view),
        _without_figures(view),
        _repeat(run),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _recommendation(view: View, recommendations: Sequence[Recommendation], run: RunInfo) -> str:
    lines = ["## Recommendation", f"Limits: {limits_in_words(run)}."]
    for made in recommendations:
        where = f"{made.target}, {view.phase_label(made.phase)} ({view.setting_label(made.setting)})"
        if made.point is None:
            lines.append(f"- **{where}: nothing to recommend**: {'; '.join(made.reasons)}.")
        else:
            latency = with_bounds(_known(made.point.latency_s), "s")
            lines.append(
                f"- **{where}: `{made.point.recipe}`**, {latency} ({made.point.provenance}), because it is "
                f"{'; '.join(made.reasons)}."
            )
    if not recommendations:
        shapes = "The model is known by shape alone: no accuracy was judged, so nothing is recommended."
        lines.append(
            shapes
            if view.settings and not view.baselines
            else "No point has both a loss and a latency, so there is nothing to compare."
        )
    return "\n".join([lines[0], "", lines[1], "", *lines[2:]])


def _baseline(view: View) -> str:
    if not view.baselines:
        return ""
    way = "lower is better" if view.better == "lower" else "higher is better"
    lines = [
        "## Accuracy",
        "",
        f"Metric: {view.metric} ({way}). Deltas are against the uncompressed model on the same "
        "data, with their paired-bootstrap intervals.",
        "",
    ]
    lines += [
        f"- baseline {number(baseline)}: {protocol} (data {data_hash})"
        for (protocol, data_hash), baseline in sorted(view.baselines.items())
    ]
    return "\n".join(lines)


def _fronts(view: View) -> str:
    lines = ["## Pareto fronts", ""]
    for setting in view.settings:
        for phase in view.phases:
            for target in view.targets:
                members = view.at(setting, phase, target)
                front = sorted((s for s in members if s.on_front), key=lambda s: view.xy(s)[0].value)
                if front:
                    listed = front[:: -(-len(front) // _MOST_ROWS)]
                    tied = sum(s.rank == "indistinguishable" for s in members)
                    lines += [
                        f"### {target} ({DEVICE_NAMES[view.device(target)]}), {view.phase_label(phase)}, "
                        f"{view.setting_label(setting)}",
                        "",
                        *_front_table(view, listed),
                        "",
                        f"{len(members)} points, {len(front)} on the front, {tied} more not to be told apart "
                        "from one on the front." + _left_out(len(front)),
                        "",
                    ]
    return "\n".join(lines).rstrip() if len(lines) > 2 else ""


def _left_out(count: int) -> str:
    step = -(-count // _MOST_ROWS)
    return "" if step == 1 else f" Every {step}th point of the front is listed; all are in `points.csv`."


def _front_table(view: View, front: Sequence[Standing]) -> list[str]:
    rows = [
        f"| recipe | bits/weight | {view.metric} | delta | latency | throughput | energy | origin |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for standing in front:
        point = standing.point
        cells = [
            f"`{point.recipe}`",
            _or_dash(point.bits_per_weight),
            _bounds(point.accuracy),
            _bounds(point.delta, signed=True),
            _bounds(point.latency_s, "s"),
            _bounds(point.throughput_tokens_per_s, f"{point.item}s/s"),
            _bounds(point.energy_per_token_j, "J"),
            point.provenance,
        ]
        rows.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return rows


def _float_layers(view: View) -> str:
    layers = Counter(
        name
        for recipe in {s.point.recipe_text: s.point for s in view.standings}.values()
        for name in recipe.float_layers
    )
    if not layers:
        return ""
    recipes = len({s.point.recipe_text for s in view.standings})
    lines = ["## What stays in float", ""]
    lines += [
        f"- {name}" + ("" if count == recipes else f" (in {count} of {recipes} recipes)")
        for name, count in layers.items()
    ]
    return "\n".join(lines)


def _provenance(view: View) -> str:
    tiers = Counter((s.point.target, s.point.provenance) for s in view.standings if s.rank != "none")
    lines = [
        "## Where the figures come from",
        "",
        "Accuracy is measured here, on the compressed weights themselves. Costs:",
        "",
    ]
    lines += [
        f"- {target}: {count} points {tier} ({PROVENANCE_MEANING[tier]})"
        for (target, tier), count in sorted(tiers.items())
    ]
    return "\n".join(lines) if tiers else ""


def _without_figures(view: View) -> str:
    points = [standing.point for standing in view.standings if standing.point.status != "ok"]
    reasons = Counter((point.status, point.target, point.reason) for point in points)
    if not reasons:
        return ""
    lines = ["## Points without figures", ""]
    lines += [
        f"- {status} on {target}, {count} points: {reason}"
        for (status, target, reason), count in sorted(reasons.items())
    ]
    return "\n".join(lines)


def _repeat(run: RunInfo) -> str:
    return "\n".join(
        [
            "## To repeat it",
            "",
            "```",
            shlex.join(run.command),
            "```",
            "",
            f"Seed {run.seed}, {run.created}"
            + (f", commit {run.commit}" if run.commit else "")
            + ". Versions, settings and recipes are in `run.toml`.",
        ]
    )


def _bounds(interval: Interval | None, unit: str = "", *, signed: bool = False) -> str:
    return "-" if interval is None else with_bounds(interval, unit, signed=signed)


def _or_dash(value: float | None) -> str:
    return "-" if value is None else quantity(value, "")


def _known(interval: Interval | None) -> Interval:
    if interval is None:
        raise ValueError("a point on a front must have a latency")
    return interval
