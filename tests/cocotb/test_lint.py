"""Verilator's lint on emitted Verilog: every warning but those that come from the emitter's style."""

import subprocess
from pathlib import Path

import pytest

from sparsefab.arch import ChainArch
from sparsefab.errors import MissingToolError
from sparsefab.hw.emit import chain_verilog, requantize_verilog
from sparsefab.sim.verilator import verilator_command

pytestmark = pytest.mark.cocotb

BUILD = Path(__file__).parents[2] / "build" / "sim"
WAIVED = ("PROCASSINIT", "UNUSEDSIGNAL", "WIDTHEXPAND", "DECLFILENAME")


@pytest.mark.parametrize("design", ["chain", "axis", "requantize"])
def test_no_warnings(design: str, tmp_path: Path) -> None:
    try:
        command = verilator_command(BUILD)
    except MissingToolError as error:
        pytest.skip(str(error))
    if design == "requantize":
        modules = requantize_verilog(accumulator_bits=32, primitives="behavioural")
    else:
        modules = chain_verilog(ChainArch(dsps=16), primitives="behavioural", axis=design == "axis")
    source = tmp_path / "top.v"
    source.write_text("\n".join(modules.values()))
    top = "axis_top" if design == "axis" else "top"
    waivers = [f"-Wno-{name}" for name in WAIVED]
    child = subprocess.run(
        [command, "--lint-only", "-Wall", *waivers, "--top-module", top, source],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    assert "%Warning" not in child.stderr
