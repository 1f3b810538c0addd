"""Blocks behind AXI4-Stream ports, driven by cocotbext-axi: tdata, tlast and tkeep, with idles and back-pressure."""

from pathlib import Path
from typing import Any

import pytest

from sparsefab.arch import ChainArch
from sparsefab.hw.axis import AXIS_TOP
from sparsefab.hw.blocks import CHAIN
from sparsefab.hw.dequantize.arch import DequantizeArch
from sparsefab.hw.minifloat.mac import MacArch
from sparsefab.hw.requantize import RequantizeArch
from sparsefab.sim.axis import verify_axis
from sparsefab.sim.run import SimulatorName, simulators

pytestmark = pytest.mark.cocotb

BUILD = Path(__file__).parents[2] / "build" / "sim"


def _need(simulator: SimulatorName) -> None:
    if reason := simulators(BUILD)[simulator]:
        pytest.skip(reason)


@pytest.mark.parametrize(
    ("simulator", "block", "parameters"),
    [
        ("icarus", "chain", ChainArch(dsps=8)),
        pytest.param("verilator", "chain", ChainArch(dsps=16), marks=pytest.mark.slow),
        ("verilator", "mac", MacArch(a="e2m1", b="e3m2", result="e4m3fn")),
        ("icarus", "requantize", RequantizeArch(lanes=1)),
        pytest.param("icarus", "dequantize", DequantizeArch(dsps=16, beat_bits=128), marks=pytest.mark.slow),
    ],
)
def test_equals_the_reference(simulator: SimulatorName, block: str, parameters: Any) -> None:
    _need(simulator)
    report = verify_axis(block, parameters, build_dir=BUILD, simulator=simulator, seed=2)
    assert report.mismatches == 0, [run for run in report.runs if run.mismatches]
    assert [run.name for run in report.runs] == ["plain", "idles", "back-pressure", "both"]
    assert all(run.beats for run in report.runs)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (" & s_axis_weights_tkeep[0]", ""),  # null beats enter
        ("m_axis_sums_tlast = sums", "m_axis_sums_tlast = ~sums"),
        pytest.param(
            "assign m_axis_sums_tkeep = {8{1'b1}}", "assign m_axis_sums_tkeep = 8'h7f", marks=pytest.mark.slow
        ),
        # no bank is ever complete
        pytest.param("{s_axis_acts_tlast, ", "{1'b0, ", marks=pytest.mark.slow),
    ],
)
def test_a_planted_bug_is_caught(right: str, wrong: str) -> None:
    _need("icarus")
    arch = ChainArch(dsps=8)
    modules = CHAIN.modules(arch, primitives="behavioural", axis=True)
    assert right in modules[AXIS_TOP]
    modules[AXIS_TOP] = modules[AXIS_TOP].replace(right, wrong)
    assert verify_axis("chain", arch, build_dir=BUILD, simulator="icarus", modules=modules).mismatches > 0


def test_unknown_block() -> None:
    with pytest.raises(ValueError, match="unknown block 'chian'"):
        verify_axis("chian", build_dir=BUILD)
