"""The recommendation: on each target the fastest recipe within the limits, and why."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparsefab.reports.pareto import Standing
from sparsefab.reports.points import Interval, Phase, Point
from sparsefab.reports.render.quantities import number, quantity, with_bounds
from sparsefab.reports.render.run_info import RunInfo
from sparsefab.reports.render.view import Setting, View

__all__ = ["Recommendation", "limits_in_words", "recommend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """A recipe for a target in a phase, or None with the reason why there is none."""

    target: str
    phase: Phase
    setting: Setting
    point: Point | None
    reasons: tuple[str, ...]


def limits_in_words(run: RunInfo) -> str:
    """The limits that a recommendation keeps to."""
    text = f"a loss of at most {100 * run.max_loss_fraction:g} % of the baseline"
    if run.max_latency_s is not None:
        text += f" and a latency of at most {quantity(run.max_latency_s, 's')}"
    others = {name: limit for name, limit in run.limits.at_most.items() if name not in ("loss_fraction", "latency_s")}
    rest = replace(run.limits, at_most=others)
    return f"{text}, {rest.text}" if rest else text


def recommend(view: View, run: RunInfo) -> list[Recommendation]:
    """One recommendation a phase and target at the first setting, the fastest target of a phase first."""
    if not view.settings:
        return []
    setting = view.settings[0]
    found = []
    for phase in view.phases[::-1]:
        for target in view.targets:
            candidates = [s for s in view.at(setting, phase, target) if s.point.loss and s.point.latency_s]
            if candidates:
                found.append(_for_target(target, phase, setting, candidates, run))
    return sorted(
        found,
        key=lambda made: (
            made.phase != "decode",
            made.point is None,
            _value(made.point.latency_s) if made.point else 0.0,
        ),
    )


def _for_target(
    target: str, phase: Phase, setting: Setting, candidates: Sequence[Standing], run: RunInfo
) -> Recommendation:
    finest = "full" if any(s.point.fidelity == "full" for s in candidates) else "screen"
    compared = sorted((s for s in candidates if s.point.fidelity == finest), key=_speed)
    within = [s for s in compared if not s.broken and _allowed(s.point, run)]
    if not within:
        closest = min(compared, key=lambda s: _value(s.point.loss))
        text = (
            f"none of {len(compared)} recipes keeps {limits_in_words(run)}; the closest is {closest.point.recipe} "
            f"with {with_bounds(_known(closest.point.loss), signed=True)} at "
            f"{with_bounds(_known(closest.point.latency_s), 's')}"
        )
        return Recommendation(target=target, phase=phase, setting=setting, point=None, reasons=(text,))
    best = within[0]
    reasons = [
        f"the fastest of {len(within)} recipes, out of {len(compared)}, that keep {limits_in_words(run)}",
        _margin(best.point, run),
    ]
    reference = next((s.point for s in compared if s.point.recipe == run.reference), None)
    if reference is not None and reference.key != best.point.key:
        speedup = _value(reference.latency_s) / _value(best.point.latency_s)
        reasons.append(f"{number(speedup)} times as fast as {reference.recipe} on the same target")
    tied = [s.point.recipe for s in within[1:] if _overlap(s.point, best.point)]
    if tied:
        more = f" and {len(tied) - 3} more" if len(tied) > 3 else ""
        reasons.append(f"not to be told apart within the bounds: {', '.join(tied[:3])}{more}")
    return Recommendation(target=target, phase=phase, setting=setting, point=best.point, reasons=tuple(reasons))


def _margin(point: Point, run: RunInfo) -> str:
    loss, limit = _known(point.loss), _max_loss(point, run)
    text = f"its loss is {with_bounds(loss, signed=True)}"
    if loss.high <= limit:
        return f"{text}, so its upper bound too stays within {number(limit)}"
    return f"{text}, and its upper bound is beyond {number(limit)}: evaluate it on more data before relying on it"


def _allowed(point: Point, run: RunInfo) -> bool:
    fast = run.max_latency_s is None or _value(point.latency_s) <= run.max_latency_s
    return fast and _value(point.loss) <= _max_loss(point, run)


def _max_loss(point: Point, run: RunInfo) -> float:
    return run.max_loss_fraction * abs(point.baseline or 0.0)


def _overlap(one: Point, other: Point) -> bool:
    return _known(one.loss).overlaps(_known(other.loss)) and _known(one.latency_s).overlaps(_known(other.latency_s))


def _speed(standing: Standing) -> tuple[float, float]:
    return _value(standing.point.latency_s), _value(standing.point.loss)


def _known(interval: Interval | None) -> Interval:
    if interval is None:
        raise ValueError("a point that is compared must have a loss and a latency")
    return interval


def _value(interval: Interval | None) -> float:
    return _known(interval).value
