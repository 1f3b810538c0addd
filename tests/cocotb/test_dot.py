"""The block dot product's emitted Verilog, in the simulators that are there."""

from pathlib import Path

import pytest

from sparsefab.hw.minifloat.dot import DotArch, dot_verilog
from sparsefab.sim.dot import verify_dot
from sparsefab.sim.run import SimulatorName, simulators

pytestmark = pytest.mark.cocotb

BUILD = Path(__file__).parents[2] / "build" / "sim"


@pytest.mark.parametrize(
    ("simulator", "arch"),
    [
        ("verilator", DotArch(a="mxfp4", b="mxfp4")),
        ("icarus", DotArch(a="mxint8-b16", b="mxfp6_e2m3-b16", blocks=64)),
    ],
)
def test_sums_with_every_stall(simulator: SimulatorName, arch: DotArch) -> None:
    if reason := simulators(BUILD)[simulator]:
        pytest.skip(reason)
    report = verify_dot(arch, build_dir=BUILD, simulator=simulator, seed=2, sums=40)
    assert report.mismatches == 0, [run for run in report.runs if run.mismatches]
    assert len(report.runs) == 4
    assert report.runs[0].utilisation >= 0.99


def test_a_planted_bug_is_caught() -> None:
    if reason := simulators(BUILD)["icarus"]:
        pytest.skip(reason)
    arch = DotArch(a="mxfp4-b16", b="mxfp4-b16", blocks=16)
    modules = dot_verilog(arch, primitives="behavioural")
    most = f"7'h{arch.fraction_bits + 63:02x}"
    assert most in modules["top"]
    modules["top"] = modules["top"].replace(most, "7'h0f")  # shifts end at 15 places
    report = verify_dot(arch, build_dir=BUILD, simulator="icarus", seed=2, sums=40, modules=modules)
    assert report.mismatches > 0
