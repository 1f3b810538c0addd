"""The chain's emitted Verilog against the reference, in the simulators that are there."""

from pathlib import Path

import numpy as np
import pytest

from sparsefab.arch import ChainArch
from sparsefab.errors import MissingToolError
from sparsefab.formats import NM, Chain, IntFormat, QuantTensor, pack
from sparsefab.hw.emit import chain_verilog
from sparsefab.sim.run import SimulatorName, simulators, verify_chain

pytestmark = pytest.mark.cocotb

BUILD = Path(__file__).parents[2] / "build" / "sim"


def _need(simulator: SimulatorName) -> None:
    if reason := simulators(BUILD)[simulator]:
        pytest.skip(reason)


@pytest.mark.parametrize(("simulator", "dsps", "beats"), [("verilator", 16, 400), ("icarus", 8, 250)])
def test_random_beats_with_every_stall(simulator: SimulatorName, dsps: int, beats: int) -> None:
    _need(simulator)
    report = verify_chain(ChainArch(dsps=dsps), build_dir=BUILD, simulator=simulator, seeds=(1,), beats=beats)
    assert report.mismatches == 0, [run for run in report.runs if run.mismatches]
    assert len(report.runs) == 5
    assert report.utilisation is not None
    assert report.utilisation >= 0.99


def test_packed_weights() -> None:
    _need("icarus")
    random = np.random.default_rng(0)
    mask = random.permuted(np.tile(np.arange(16) < 4, (30 * 6, 1)), axis=1).reshape(30, 96)
    tensor = QuantTensor(
        codes=(random.integers(-127, 128, mask.shape) * mask).astype(np.int16),
        format=IntFormat(bits=8),
        row_scales=np.ones(30, np.float32),
        group_size=96,
        pattern=NM(4, 16),
        mask=mask,
        group_multipliers=None,
        zero_points=None,
    )
    report = verify_chain(
        ChainArch(dsps=8),
        build_dir=BUILD,
        simulator="icarus",
        packed=pack(tensor, Chain(dsps=8, slots=4)),
        activations=random.integers(-128, 128, (2, 96)),
    )
    assert report.mismatches == 0
    assert [run.beats for run in report.runs if run.name != "steady"] == [90] * 4


def test_a_planted_bug_is_caught() -> None:
    """Without the constant that keeps the lower lane from borrowing, the sums are wrong."""
    _need("icarus")
    arch = ChainArch(dsps=8)
    modules = chain_verilog(arch, primitives="behavioural")
    constant = f"48'h{arch.lane_offset:012x}"
    assert modules["sparsefab_dsp48e2"].count(constant) == 1
    modules["sparsefab_dsp48e2"] = modules["sparsefab_dsp48e2"].replace(constant, "48'h000000000000")
    report = verify_chain(arch, build_dir=BUILD, simulator="icarus", beats=40, modules=modules)
    assert report.mismatches > 0


def test_missing_simulator_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sparsefab.sim.run.shutil.which", lambda name: None)
    with pytest.raises(MissingToolError, match="apt-get install iverilog"):
        verify_chain(ChainArch(dsps=8), build_dir=tmp_path, simulator="icarus")


@pytest.mark.slow
@pytest.mark.parametrize(("simulator", "beats"), [("verilator", 10_000), ("icarus", 1_000)])
def test_chain_of_64(simulator: SimulatorName, beats: int) -> None:
    _need(simulator)
    report = verify_chain(ChainArch(dsps=64), build_dir=BUILD, simulator=simulator, seeds=(0,), beats=beats)
    assert report.mismatches == 0, [run for run in report.runs if run.mismatches]
    assert report.utilisation is not None
    assert report.utilisation >= 0.99
