"""Synthesize one MAC for every format of the catalogue: the table behind the formats' LUT costs.

A row is one `MacCore`: both factors in the same format, sums of 4,608 products (ResNet-18's longest, arXiv 2311.12359),
the multiplier in LUTs or in a DSP48E2, the sum left in fixed point or rounded back to the format. Registers stay
flip-flops (`-nosrl`), so that FF counts the pipeline. Counts are Yosys', an upper bound; nothing is placed.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from sparsefab.errors import StorageError
from sparsefab.formats import CATALOG, FloatFormat, IntFormat
from sparsefab.hw.minifloat.mac import MacArch, mac_verilog
from sparsefab.hw.synthesize import Resources, synthesize
from sparsefab.storage import write_atomic

__all__ = ["MAC_TERMS", "MacRow", "make_table", "read_table", "table_archs", "table_formats"]

MAC_TERMS: Final = 4608


@dataclass(frozen=True, slots=True, kw_only=True)
class MacRow:
    """One synthesized MAC.

    multiplier           'fabric' or 'dsp'
    converted            The sum is rounded back to the format.
    lut, ff, carry4, dsp Cells; lut_levels is the longest run of LUTs between registers, carry chains apart.
    netlist              First digits of the Verilog's SHA-256: a row is kept as long as they stay.
    """

    format: str
    multiplier: str
    converted: bool
    accumulator_bits: int
    lut: int
    ff: int
    carry4: int
    dsp: int
    lut_levels: int
    carry_chains: int
    netlist: str
    tool: str

    @property
    def key(self) -> tuple[str, str, bool]:
        """What the row is about."""
        return self.format, self.multiplier, self.converted


def table_formats() -> tuple[str, ...]:
    """Number formats of the catalogue, each once (several names may mean the same); scales without a zero left out."""
    numbers = [
        fmt for fmt in CATALOG.values() if isinstance(fmt, IntFormat) or (isinstance(fmt, FloatFormat) and fmt.zero)
    ]
    return tuple(dict.fromkeys(fmt.name for fmt in numbers))


def table_archs(formats: Iterable[str]) -> list[MacArch]:
    """The four MACs of each format."""
    return [
        MacArch(a=name, b=name, terms=MAC_TERMS, multiplier=multiplier, result=result)
        for name in formats
        for multiplier in ("fabric", "dsp")
        for result in ("", name)
    ]


def make_table(
    archs: Sequence[MacArch],
    *,
    path: Path | None = None,
    jobs: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[MacRow, ...]:
    """Synthesize MACs, `jobs` at a time.

    Parameters
    ----------
    archs : sequence of MacArch
    path : Path | None         CSV that is written after each row and read back by the next run: only rows whose Verilog
                               has changed are synthesized again. Rows of other MACs are dropped.
    progress : callable(done, total) | None

    Returns
    -------
    tuple of MacRow            In the order of `archs`.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs}")
    old = {row.key: row for row in read_table(path)} if path is not None and path.exists() else {}
    rows: dict[tuple[str, str, bool], MacRow] = {}
    running: dict[Future[Resources], tuple[MacArch, str]] = {}

    def settle(least: int) -> None:
        while len(running) > least:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                arch, netlist = running.pop(future)
                keep(_row(arch, netlist, future.result()))

    def keep(row: MacRow) -> None:
        rows[row.key] = row
        if path is not None:
            known = old | rows  # a row that was not reached again stays for the next run
            write_atomic(path, _text([known[key] for key in map(_key, archs) if key in known]).encode())
        if progress is not None:
            progress(len(rows), len(archs))

    # elaboration stays in this thread, Yosys runs in processes of its own
    with ThreadPoolExecutor(jobs) as pool:
        for arch in archs:
            modules = mac_verilog(arch, core=True)
            netlist = hashlib.sha256("\n".join(modules.values()).encode()).hexdigest()[:12]
            found = old.get(_key(arch))
            if found is not None and found.netlist == netlist:
                keep(found)
                continue
            settle(jobs - 1)
            running[pool.submit(synthesize, modules, shift_registers=False)] = (arch, netlist)
        settle(0)
    return tuple(rows[_key(arch)] for arch in archs)


def read_table(path: Path) -> tuple[MacRow, ...]:
    """Read a table back.

    Raises
    ------
    StorageError               If the file is no such table.
    """
    try:
        lines = list(csv.DictReader(io.StringIO(path.read_text())))
        return tuple(_parse(line) for line in lines)
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path}: is no table of MACs ({error}); remove it") from error


def _key(arch: MacArch) -> tuple[str, str, bool]:
    return arch.a, arch.multiplier, bool(arch.result)


def _row(arch: MacArch, netlist: str, found: Resources) -> MacRow:
    return MacRow(
        format=arch.a,
        multiplier=arch.multiplier,
        converted=bool(arch.result),
        accumulator_bits=arch.total.bits,
        lut=found.lut,
        ff=found.ff,
        carry4=found.carry4,
        dsp=found.dsp,
        lut_levels=found.depth.lut_levels,
        carry_chains=found.depth.carry_chains,
        netlist=netlist,
        tool=found.tool,
    )


def _parse(line: dict[str, str]) -> MacRow:
    kinds: dict[str, Callable[[str], object]] = {"str": str, "int": int, "bool": lambda text: text == "yes"}
    values = {
        field.name: kinds[getattr(field.type, "__name__", str(field.type))](line[field.name])
        for field in fields(MacRow)
    }
    return MacRow(**values)  # type: ignore[arg-type]


def _text(rows: Iterable[MacRow]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, [field.name for field in fields(MacRow)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(asdict(row) | {"converted": "yes" if row.converted else "no"})
    return out.getvalue()
