"""The requantizer's emitted Verilog against its definition, in the simulators that are there."""

from pathlib import Path

import pytest

from sparsefab.hw.emit import requantize_verilog
from sparsefab.sim.requantize import verify_requantize
from sparsefab.sim.run import SimulatorName, simulators

pytestmark = pytest.mark.cocotb

BUILD = Path(__file__).parents[2] / "build" / "sim"


@pytest.mark.parametrize(
    ("simulator", "zero_point", "low", "high"), [("verilator", 0, -128, 127), ("icarus", 117, 0, 255)]
)
def test_equals_the_definition(simulator: SimulatorName, zero_point: int, low: int, high: int) -> None:
    if reason := simulators(BUILD)[simulator]:
        pytest.skip(reason)
    report = verify_requantize(
        build_dir=BUILD, zero_point=zero_point, code_min=low, code_max=high, simulator=simulator, beats=500, seed=3
    )
    assert report.mismatches == 0, [run for run in report.runs if run.mismatches]
    plain = report.runs[0]
    assert plain.utilisation >= 0.99


def test_a_planted_bug_is_caught() -> None:
    if reason := simulators(BUILD)["icarus"]:
        pytest.skip(reason)
    modules = requantize_verilog(accumulator_bits=32, primitives="behavioural")
    constant, wrong = "22'h104000", "22'h100000"  # 2^14 + 2^20: without the first half the product is not rounded
    assert modules["top"].count(constant) == 1
    modules["top"] = modules["top"].replace(constant, wrong)
    report = verify_requantize(build_dir=BUILD, simulator="icarus", beats=1000, seed=3, modules=modules)
    assert report.mismatches > 0
