"""Read what Vivado says of a placed design: report_utilization, flat or by hierarchy, and report_timing_summary.

Source of the forms: AMD UG906 (design analysis), UG835 (report commands); tables are found by their headings, so that
the order of sections and columns added by a version do not matter.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final

from sparsefab.errors import StorageError

__all__ = ["RESOURCES", "Clock", "VivadoReport", "read_reports"]

RESOURCES: Final = ("lut", "lut_logic", "lut_memory", "ff", "carry8", "dsp", "bram36", "uram")

# site type in the flat form -> resource; families name the same thing differently (7 series, UltraScale+, Versal)
_SITES: Final[Mapping[str, str]] = {
    "CLB LUTs": "lut",
    "Slice LUTs": "lut",
    "LUT as Logic": "lut_logic",
    "LUT as Memory": "lut_memory",
    "CLB Registers": "ff",
    "Slice Registers": "ff",
    "Registers": "ff",
    "CARRY8": "carry8",
    "LOOKAHEAD8": "carry8",
    "DSPs": "dsp",
    "DSP Slices": "dsp",
    "Block RAM Tile": "bram36",
    "URAM": "uram",
}
# column of the form by hierarchy -> resource and what one of it counts
_COLUMNS: Final[Mapping[str, tuple[str, float]]] = {
    "Total LUTs": ("lut", 1.0),
    "Logic LUTs": ("lut_logic", 1.0),
    "LUTRAMs": ("lut_memory", 1.0),
    "SRLs": ("lut_memory", 1.0),
    "FFs": ("ff", 1.0),
    "RAMB36": ("bram36", 1.0),
    "RAMB18": ("bram36", 0.5),
    "URAM": ("uram", 1.0),
    "DSP Blocks": ("dsp", 1.0),
    "DSP48 Blocks": ("dsp", 1.0),
    "DSP Slices": ("dsp", 1.0),
}
_WANTED: Final = "report_utilization (flat or -hierarchical) or report_timing_summary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A clock; `wns_ns` is the worst setup slack between its own registers, None where it has no such paths."""

    name: str
    period_ns: float
    wns_ns: float | None

    @property
    def fmax_hz(self) -> float | None:
        """Frequency at which its worst path would just be met."""
        return None if self.wns_ns is None else 1e9 / (self.period_ns - self.wns_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class VivadoReport:
    """What one or several reports of a design say; None where none of them does.

    lut is all LUT sites, of which lut_memory are distributed RAM and shift registers; bram36 counts halves.
    wns_ns is the design's, over all clocks.
    """

    design: str
    part: str
    state: str
    tool: str
    lut: float | None = None
    lut_logic: float | None = None
    lut_memory: float | None = None
    ff: float | None = None
    carry8: float | None = None
    dsp: float | None = None
    bram36: float | None = None
    uram: float | None = None
    wns_ns: float | None = None
    clocks: tuple[Clock, ...] = field(default=())

    @property
    def slowest(self) -> Clock | None:
        """The clock with the least slack, whose frequency is the design's."""
        timed = [clock for clock in self.clocks if clock.wns_ns is not None]
        return min(timed, key=lambda clock: clock.wns_ns or 0.0, default=None)


def read_reports(paths: Sequence[Path]) -> VivadoReport:
    """Read reports of one design in any order; what two of them say, the flat utilization says best.

    Raises
    ------
    StorageError               If a file cannot be read, is no such report, or is about another design or device.
    """
    if not paths:
        raise StorageError(f"no report given; {_WANTED} is wanted")
    found = [_read(path) for path in paths]
    for path, report in zip(paths[1:], found[1:], strict=True):
        if report.design != found[0].design or not _same_part(report.part, found[0].part):
            raise StorageError(
                f"{path}: is about {report.design} on {report.part}, {paths[0]} about {found[0].design} "
                f"on {found[0].part}"
            )
    whole, *rest = sorted(found, key=lambda report: report.carry8 is None)
    for report in rest:
        said = {item.name: getattr(report, item.name) for item in fields(VivadoReport)}
        whole = replace(
            whole, **{name: value for name, value in said.items() if getattr(whole, name) in (None, "", ())}
        )
    return whole


def _same_part(a: str, b: str) -> bool:
    """A device is xcu280-fsvh2892-2L-e in one report and u280-fsvh2892 in another, 7z020clg484-1 and 7z020-clg484."""
    short, long = sorted((name.removeprefix("xc").split("-")[0] for name in (a, b)), key=len)
    return long.startswith(short)


def _read(path: Path) -> VivadoReport:
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not re.search(r"^\|\s*Tool Version\s*:\s*Vivado", text, re.MULTILINE):
        raise StorageError(f"{path}: is no report of Vivado; {_WANTED} is wanted")
    used = _utilization(path, text)
    wns, clocks = _timing(path, text)
    if not used and wns is None and not clocks:
        command = _head(text, "Command").split(" ")[0] or "another report"
        raise StorageError(f"{path}: is Vivado's {command}; {_WANTED} is wanted")
    return VivadoReport(
        design=_head(text, "Design"),
        part=_head(text, "Device"),
        state=_head(text, "Design State"),
        tool=_head(text, "Tool Version").split(" (")[0],
        wns_ns=wns,
        clocks=clocks,
        **used,
    )


def _head(text: str, name: str) -> str:
    found = re.search(rf"^\|\s*{name}\s*:\s*(.*?)\s*\|?$", text, re.MULTILINE)
    return found[1] if found else ""


def _utilization(path: Path, text: str) -> dict[str, float]:
    """Resources of the whole design, of either form."""
    used: dict[str, float] = {}
    for header, rows in _tables(text):
        if header[0] == "Instance" and "Total LUTs" in header and rows:
            top: dict[str, float] = {}  # the first row is the design itself
            for column, cell in zip(header, rows[0], strict=False):
                if column in _COLUMNS:
                    resource, each = _COLUMNS[column]
                    top[resource] = top.get(resource, 0.0) + each * _number(path, column, cell)
            used = top | used
        elif header[0] == "Site Type" and "Used" in header:
            for row in rows:
                site = row[0].rstrip("*")
                if site in _SITES:
                    used[_SITES[site]] = _number(path, site, row[header.index("Used")])
    return used


def _tables(text: str) -> Iterable[tuple[list[str], list[list[str]]]]:
    """Tables drawn with + - |: header and rows; cells stripped."""
    header: list[str] | None = None
    rows: list[list[str]] = []
    ruled = False
    for line in (*map(str.strip, text.splitlines()), ""):
        if line.startswith("+-"):
            ruled = True
        elif line.startswith("|") and ruled:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if header is None:
                header = cells
            else:
                rows.append(cells)
        else:
            if header is not None:
                yield header, rows
            header, rows, ruled = None, [], False


def _number(path: Path, what: str, cell: str) -> float:
    """A cell such as 1825, 4.5, or 1825(0.14%) with -hierarchical_percentage."""
    try:
        return float(cell.split("(")[0].replace(",", ""))
    except ValueError:
        raise StorageError(f"{path}: {what} must be a number, not {cell!r}") from None


def _timing(path: Path, text: str) -> tuple[float | None, tuple[Clock, ...]]:
    """The design's worst slack, and clocks with their own."""
    design = [_slack(path, header, row) for header, row in _rows(text, "Design Timing Summary", "WNS(ns)")]
    wns = design[0] if design else None
    within = {row.split()[0]: _slack(path, header, row) for header, row in _rows(text, "Intra Clock Table", "Clock")}
    periods = {
        row.split()[0]: _number(path, "Period(ns)", row.split()[-2])
        for _, row in _rows(text, "Clock Summary", "Clock")
        if len(row.split()) > 2
    }
    # a report of one clock need not have the table of clocks
    alone = wns if len(periods) == 1 else None
    clocks = (Clock(name=name, period_ns=period, wns_ns=within.get(name, alone)) for name, period in periods.items())
    return wns, tuple(clocks)


def _rows(text: str, title: str, first: str) -> list[tuple[str, str]]:
    """(heading, row) of a table that is ruled by dashes alone, below a boxed title."""
    section = re.search(rf"^\|\s*{re.escape(title)}\s*$(.*?)(?=^\|\s*\w|\Z)", text, re.MULTILINE | re.DOTALL)
    header, rows = "", []
    for line in section[1].splitlines() if section else ():
        if not header:
            header = line if line.split()[:1] == [first] else ""
        elif line.strip() and not set(line) <= set("- "):
            rows.append((header, line))
        elif rows:
            break
    return rows


def _slack(path: Path, header: str, row: str) -> float | None:
    """What stands right-aligned below WNS(ns); nothing, NA or inf where there is no path."""
    end = header.index("WNS(ns)") + len("WNS(ns)")
    if row[end - 1 : end].strip() == "":
        return None
    cell = row[:end].split()[-1]
    return None if cell.upper() in ("NA", "INF") else _number(path, "WNS(ns)", cell)
