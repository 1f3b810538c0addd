"""Results to stdout, as tables or JSON; progress to stderr."""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

__all__ = ["bar", "figure_text", "print_json", "print_table", "si"]

_PREFIXES = {-12: "p", -9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}


def print_json(value: object) -> None:
    """Print one JSON document; figures are {value, low, high}."""
    print(json.dumps(value, indent=2, allow_nan=False, default=str))


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()
) -> None:
    """Print a table; columns named in `right` are aligned to the right. A pipe gets full width."""
    console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else 200)
    table = Table(title=title, title_justify="left", show_lines=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console.print(table)


@contextlib.contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr; yields the function to call with (done, total)."""
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def si(value: float | None, unit: str = "") -> str:
    """Write a number with three digits and an SI prefix: 0.0123 s -> 12.3 ms."""
    if value is None:
        return "-"
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}".rstrip()
    power = _power(value)
    return f"{value / 10**power:.3g} {_PREFIXES[power]}{unit}".rstrip()


def figure_text(figure: Mapping[str, float] | None, unit: str = "") -> str:
    """Write {value, low, high} with one prefix: 17.4 [15.8, 19.4] ms."""
    if figure is None:
        return "-"
    value, low, high = (float(figure[part]) for part in ("value", "low", "high"))
    power = _power(value) if value and math.isfinite(value) else 0
    suffix = f" {_PREFIXES[power]}{unit}".rstrip()
    first, *bounds = (f"{number / 10**power:.3g}" for number in (value, low, high))
    return f"{first}{suffix}" if low == value == high else f"{first} [{', '.join(bounds)}]{suffix}"


def _power(value: float) -> int:
    """Power of ten of the SI prefix that leaves one to three digits before the point."""
    return min(max(3 * math.floor(math.log10(abs(value)) / 3), -12), 12)
