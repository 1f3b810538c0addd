"""Figures as people write them: three significant digits, a prefix that fits, bounds in brackets."""

import math
from decimal import ROUND_HALF_UP, Decimal

from sparsefab.reports.points import Interval

__all__ = ["number", "quantity", "tick", "with_bounds"]

_STEPS = {"s": 1000.0, "J": 1000.0, "B": 1024.0}
_PREFIXES = {1000.0: ("", "m", "µ", "n", "p"), 1024.0: ("", "Ki", "Mi", "Gi", "Ti")}


def number(value: float) -> str:
    """Three significant digits, more of a whole number; thousands apart; no exponent between 0.001 and a million."""
    if value == 0.0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        return f"{value:.2e}"
    digits = max(0, 2 - math.floor(math.log10(size)))
    return f"{Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):,}"  # as a browser rounds


def quantity(value: float, unit: str) -> str:
    """A value with its unit: seconds and joules with the prefixes of 1000, bytes with those of 1024."""
    factor, prefix = _prefix_of(value, unit)
    return f"{number(value * factor)} {prefix}{unit}".strip()


def tick(value: float, unit: str = "") -> str:
    """A round value on an axis: as `quantity`, without the zeros that say nothing."""
    text, _, rest = quantity(value, unit).partition(" ")
    if "." in text and "e" not in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text} {rest}".strip()


def with_bounds(interval: Interval, unit: str = "", *, signed: bool = False) -> str:
    """'3.20 ms [2.90, 3.50]': the bounds in the unit of the value."""
    factor, prefix = _prefix_of(interval.value, unit)
    sign = "+" if signed and interval.value > 0 else ""
    value = f"{sign}{number(interval.value * factor)} {prefix}{unit}".strip()
    if interval.low == interval.value == interval.high:
        return value
    return f"{value} [{number(interval.low * factor)}, {number(interval.high * factor)}]"


def _prefix_of(value: float, unit: str) -> tuple[float, str]:
    """The factor and prefix that bring a value near one."""
    if unit not in _STEPS or value == 0.0:
        return 1.0, ""
    step = _STEPS[unit]
    prefixes = _PREFIXES[step]
    if step == 1024.0:
        power = min(len(prefixes) - 1, max(0, math.floor(math.log(abs(value), step))))
        return step**-power, prefixes[power]
    power = min(len(prefixes) - 1, max(0, math.ceil(-math.log10(abs(value)) / 3)))
    return step**power, prefixes[power]
