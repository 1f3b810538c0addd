"""Four int4 products a DSP: the emitted Verilog against integer sums, in the simulators that are there."""

from pathlib import Path

import pytest

from sparsefab.hw.pack4 import NibbleArch, nibble_verilog
from sparsefab.sim.pack4 import verify_pack4
from sparsefab.sim.simulator import SimulatorName, simulators

pytestmark = pytest.mark.cocotb

BUILD = Path(__file__).parents[2] / "build" / "sim"


def _need(simulator: SimulatorName) -> None:
    if reason := simulators(BUILD)[simulator]:
        pytest.skip(reason)


@pytest.mark.parametrize(("simulator", "dsps"), [("icarus", 3), ("verilator", 16)])
def test_four_products_a_dsp_and_cycle(simulator: SimulatorName, dsps: int) -> None:
    _need(simulator)
    arch = NibbleArch(dsps=dsps)
    report = verify_pack4(arch, build_dir=BUILD, simulator=simulator, beats=200)
    assert report.mismatches == 0, [run for run in report.runs if run.mismatches]
    plain = next(run for run in report.runs if run.name == "plain")
    assert arch.macs_per_cycle * plain.utilisation >= 0.99 * 4 * dsps


@pytest.mark.parametrize(
    ("module", "right", "wrong"),
    [
        # the constants that keep lanes from borrowing, and their way out
        ("sparsefab_dsp48e2_nibbles", f"48'h{sum(1023 << 11 * k for k in range(3)):012x}", "48'h000000000000"),
        ("top", "10'h3ff", "10'h3fe"),
    ],
)
def test_a_planted_bug_is_caught(module: str, right: str, wrong: str) -> None:
    _need("icarus")
    arch = NibbleArch(dsps=3)
    modules = nibble_verilog(arch, primitives="behavioural")
    assert right in modules[module]
    modules[module] = modules[module].replace(right, wrong)
    assert verify_pack4(arch, build_dir=BUILD, simulator="icarus", beats=20, modules=modules).mismatches
