"""The MAC's emitted Verilog against exact sums, in the simulators that are there."""

from pathlib import Path

import pytest

from sparsefab.hw.minifloat.mac import MacArch, mac_verilog
from sparsefab.sim.mac import verify_mac
from sparsefab.sim.run import SimulatorName, simulators

pytestmark = pytest.mark.cocotb

BUILD = Path(__file__).parents[2] / "build" / "sim"


@pytest.mark.parametrize(
    ("simulator", "arch"),
    [
        ("verilator", MacArch()),
        ("icarus", MacArch(a="e5m2i", b="e5m2i", result="e4m3fn")),
        ("icarus", MacArch(a="e3m4", b="int8", multiplier="dsp")),
    ],
)
def test_sums_with_every_stall(simulator: SimulatorName, arch: MacArch) -> None:
    if reason := simulators(BUILD)[simulator]:
        pytest.skip(reason)
    report = verify_mac(arch, build_dir=BUILD, simulator=simulator, seed=2, sums=60)
    assert report.mismatches == 0, [run for run in report.runs if run.mismatches]
    assert len(report.runs) == 4
    assert report.runs[0].utilisation >= 0.99


def test_a_planted_bug_is_caught() -> None:
    if reason := simulators(BUILD)["icarus"]:
        pytest.skip(reason)
    arch = MacArch(a="e2m1", b="e2m1")
    modules = mac_verilog(arch, primitives="behavioural")
    right = "64'h"  # one of the multiplier's tables
    start = modules["top"].index(right) + len(right)
    digit = modules["top"][start + 15]
    wrong = modules["top"][: start + 15] + f"{int(digit, 16) ^ 8:x}" + modules["top"][start + 16 :]
    modules["top"] = wrong
    report = verify_mac(arch, build_dir=BUILD, simulator="icarus", seed=2, sums=100, modules=modules)
    assert report.mismatches > 0
