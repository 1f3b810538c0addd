"""The dequantizer's emitted Verilog against the packer, in the simulators that are there."""

from pathlib import Path

import pytest

from sparsefab.hw.dequantize.arch import DequantizeArch
from sparsefab.hw.emit import dequantize_verilog
from sparsefab.sim.dequantize import verify_dequantize
from sparsefab.sim.run import SimulatorName, simulators

pytestmark = pytest.mark.cocotb

BUILD = Path(__file__).parents[2] / "build" / "sim"
SOME = [
    DequantizeArch(dsps=12, slots=4, format="e2m1", positions="bitmap", beat_bits=128),
    DequantizeArch(dsps=16, pairs=True, format="uint4", zero_unit=16, beat_bits=256),
]
MORE = [
    DequantizeArch(dsps=16, format="int3", beat_bits=64),
    DequantizeArch(dsps=16, format="int8", beat_bits=128),
    DequantizeArch(dsps=16, format="uint2", beat_bits=32),
    DequantizeArch(dsps=32, format="int5", beat_bits=512),
    DequantizeArch(dsps=16, format="int6sym", beat_bits=512),
    DequantizeArch(dsps=20, slots=10, format="uint8", zero_unit=32, positions="bitmap", beat_bits=512),
    DequantizeArch(dsps=16, slots=8, format="e2m3", positions="index", m=4, beat_bits=128),
    DequantizeArch(dsps=15, slots=3, format="int4", positions="index", pairs=True, beat_bits=256),
    DequantizeArch(dsps=64, slots=8, format="int4", positions="bitmap", beat_bits=512),
]


@pytest.mark.parametrize("arch", SOME, ids=lambda arch: arch.format)
def test_equals_the_packer(arch: DequantizeArch) -> None:
    _check(arch, "icarus", rows=4)


@pytest.mark.slow
@pytest.mark.parametrize("arch", MORE, ids=lambda arch: f"{arch.format}-{arch.positions}")
def test_more_formats(arch: DequantizeArch) -> None:
    _check(arch, "icarus", rows=40)


@pytest.mark.slow
@pytest.mark.parametrize("arch", SOME, ids=lambda arch: arch.format)
def test_in_verilator(arch: DequantizeArch) -> None:
    _check(arch, "verilator", rows=300)


def _check(arch: DequantizeArch, simulator: SimulatorName, rows: int) -> None:
    if reason := simulators(BUILD)[simulator]:
        pytest.skip(reason)
    report = verify_dequantize(arch, build_dir=BUILD, simulator=simulator, rows=rows, seed=5)
    assert report.mismatches == 0, [run for run in report.runs if run.mismatches]
    plain = report.runs[0]
    assert plain.beats - plain.utilisation * plain.beats <= 4, "a bubble inside a tensor"


def test_a_planted_bug_is_caught() -> None:
    """A zero point added instead of subtracted."""
    if reason := simulators(BUILD)["icarus"]:
        pytest.skip(reason)
    arch = DequantizeArch(dsps=16, format="uint4", zero_unit=16, beat_bits=128)
    modules = dequantize_verilog(arch, primitives="behavioural")
    assert modules["sparsefab_code_decoder"].count(" - ") == 1
    modules["sparsefab_code_decoder"] = modules["sparsefab_code_decoder"].replace(" - ", " + ")
    report = verify_dequantize(arch, build_dir=BUILD, simulator="icarus", rows=4, modules=modules)
    assert report.mismatches > 0
