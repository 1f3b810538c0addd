"""Resource counts by open synthesis (Yosys, synth_xilinx -family xcup)."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from sparsefab.errors import MissingToolError, VerificationError
from sparsefab.hw.depth import LogicDepth, logic_depth

__all__ = ["Resources", "synthesize"]

# LUT sites of one cell (UG574): a RAM32M16 takes a whole slice's eight LUTs
_LUT_CELLS: Final = {"INV": 1, "LUT6_2": 1} | {f"LUT{inputs}": 1 for inputs in range(1, 7)}
_LUTRAM_CELLS: Final = {
    "RAM32M16": 8,
    "RAM32M": 4,
    "RAM64M8": 8,
    "RAM64M": 4,
    "RAM32X1D": 2,
    "RAM64X1D": 2,
    "RAM128X1D": 4,
}
_SHIFT_CELLS: Final = {"SRL16E": 1, "SRLC32E": 1}

# modules that are placed many times and are mapped by themselves
_BLOCKS: Final = ("*_segment", "*_chain", "*_chain.*", "*_lanes", "*_unit", "*_unit.*")

_CHILD: Final = """
import sys
from pyosys import libyosys
design = libyosys.Design()
for step in sys.stdin.read().splitlines():
    design.run_pass("tee -q " + step)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Cells after mapping. Upper bounds: Vivado packs better; no placement, no timing.

    `lut` counts LUT sites: logic, shift registers and distributed RAM. `carry4` halves into CARRY8.
    """

    logic_lut: int
    shift_lut: int
    ram_lut: int
    ff: int
    carry4: int
    dsp: int
    bram36: float
    uram: int
    depth: LogicDepth
    tool: str

    @property
    def lut(self) -> int:
        """All LUT sites."""
        return self.logic_lut + self.shift_lut + self.ram_lut

    @property
    def lut_per_dsp(self) -> float:
        """LUT sites of a DSP's share."""
        return self.lut / self.dsp if self.dsp else float("nan")


def synthesize(modules: Mapping[str, str], *, top: str = "top", shift_registers: bool = True) -> Resources:
    """Map Verilog onto UltraScale+ cells and count them.

    Parameters
    ----------
    modules : {module: text}   As from `chain_verilog(..., primitives="vendor")`.
    top : str                  Module to map, with everything below it.
    shift_registers : bool     False: registers in a row stay flip-flops instead of moving into LUTs.

    Raises
    ------
    MissingToolError           If pyosys is not installed.
    VerificationError          If Yosys fails; gives its last line.
    """
    if find_spec("pyosys") is None:
        raise MissingToolError("pyosys is needed for resource counts: pip install pyosys==0.70")
    with tempfile.TemporaryDirectory() as folder:
        source, report, netlist = (Path(folder) / name for name in ("top.v", "stat.json", "netlist.json"))
        source.write_text("\n".join(modules.values()))
        _run_yosys(
            [
                f"read_verilog -sv {source}",
                f"hierarchy -top {top}",  # may read modules again, without attributes set before
                # blocks are mapped one by one, so that a deep one does not excuse slow logic in another
                *(f"setattr -mod -set keep_hierarchy 1 {blocks}" for blocks in (f"{top}.*", *_BLOCKS)),
                "proc",
                "flatten",
                "opt_clean",
                "rename -hide w:*",  # public names of several modules collide in Yosys 0.70's abc9
                f"synth_xilinx -family xcup -top {top} -flatten -noiopad -noclkbuf"
                + ("" if shift_registers else " -nosrl"),
                "setattr -mod -unset keep_hierarchy *",
                "flatten",
                "opt_clean -purge",
                f"tee -q -o {report} stat -json",
                f"write_json {netlist}",
            ]
        )
        text = report.read_text()
        depth = logic_depth(json.loads(netlist.read_text()), top)
    cells = json.loads(text[text.index("{") :])["design"]["num_cells_by_type"]
    return _count(cells, depth, f"pyosys {version('pyosys')}")


def _run_yosys(steps: list[str]) -> None:
    """Run passes in a process of their own: an error inside Yosys ends the process it happens in."""
    child = subprocess.run(
        [sys.executable, "-c", _CHILD], input="\n".join(steps), capture_output=True, text=True, check=False
    )
    if child.returncode:
        lines = (child.stdout + child.stderr).strip().splitlines()
        raise VerificationError(f"Yosys cannot map the design: {lines[-1] if lines else child.returncode}")


def _count(cells: Mapping[str, int], depth: LogicDepth, tool: str) -> Resources:
    def total(table: Mapping[str, int]) -> int:
        return sum(sites * cells.get(cell, 0) for cell, sites in table.items())

    return Resources(
        logic_lut=total(_LUT_CELLS),
        shift_lut=total(_SHIFT_CELLS),
        ram_lut=total(_LUTRAM_CELLS),
        ff=sum(count for cell, count in cells.items() if cell.startswith("FD")),
        carry4=cells.get("CARRY4", 0),
        dsp=cells.get("DSP48E2", 0),
        bram36=cells.get("RAMB36E2", 0) + cells.get("RAMB18E2", 0) / 2,
        uram=cells.get("URAM288", 0),
        depth=depth,
        tool=tool,
    )
