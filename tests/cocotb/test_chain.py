"""The chain's emitted Verilog against the reference, in the simulators that are there."""

import re
from pathlib import Path

import numpy as np
import pytest

from sparsefab.arch import LANE_OFFSET, ChainArch
from sparsefab.errors import MissingToolError
from sparsefab.formats import NM, BlockN, Chain, ChainRows, IntFormat, QuantTensor, pack
from sparsefab.hw.emit import chain_verilog
from sparsefab.hw.primitives import PRIMITIVES
from sparsefab.sim.run import SimulatorName, simulators, verify_chain
from sparsefab.sim.stimuli import OTHER_SLOTS

pytestmark = pytest.mark.cocotb

BUILD = Path(__file__).parents[2] / "build" / "sim"


def _need(simulator: SimulatorName) -> None:
    if reason := simulators(BUILD)[simulator]:
        pytest.skip(reason)


def test_tokens_alone() -> None:
    """Every N in the chain that has no vector mode."""
    _need("icarus")
    arch = ChainArch(dsps=8, matrix_vector=False)
    report = verify_chain(arch, build_dir=BUILD, simulator="icarus", seeds=(2,), beats=150)
    assert report.mismatches == 0, [run for run in report.runs if run.mismatches]
    assert not report.missing
    assert len(report.required) == 6


@pytest.mark.parametrize(("simulator", "dsps", "beats"), [("verilator", 16, 400), ("icarus", 8, 250)])
def test_random_beats_with_every_stall(simulator: SimulatorName, dsps: int, beats: int) -> None:
    _need(simulator)
    report = verify_chain(ChainArch(dsps=dsps), build_dir=BUILD, simulator=simulator, seeds=(1,), beats=beats)
    assert report.mismatches == 0, [run for run in report.runs if run.mismatches]
    assert not report.missing
    assert len(report.required) == 12
    assert any(kind.endswith(f"{n}:16") for kind in report.coverage for n in OTHER_SLOTS)
    assert len(report.runs) == 5
    assert report.utilisation is not None
    assert report.utilisation >= 0.99


@pytest.mark.parametrize(
    ("simulator", "dsps", "matrix_vector", "beats"),
    [
        ("verilator", 24, True, 300),
        ("icarus", 8, False, 150),
        pytest.param("icarus", 40, True, 150, marks=pytest.mark.slow),
        pytest.param("verilator", 64, True, 2000, marks=pytest.mark.slow),
    ],
)
def test_rows_that_end_in_beats(simulator: SimulatorName, dsps: int, matrix_vector: bool, beats: int) -> None:
    _need(simulator)
    arch = ChainArch(dsps=dsps, matrix_vector=matrix_vector, ends=True)
    report = verify_chain(arch, build_dir=BUILD, simulator=simulator, seeds=(1,), beats=beats)
    assert report.mismatches == 0, [run for run in report.runs if run.mismatches]
    assert not report.missing
    assert report.utilisation is not None
    assert report.utilisation >= 0.99


@pytest.mark.parametrize(
    ("module", "right", "wrong"),
    [
        # the DSP that starts anew, what the first one adds to a sum that is cut, and the carry into the adders
        ("sparsefab_chain_restart", "s1_goes_on <= s0_goes_on", "s1_goes_on <= 1'h1"),
        ("sparsefab_chain_first", "dsp__CARRYIN <= s0_split", "dsp__CARRYIN <= 1'h0"),
        pytest.param("sparsefab_dsp48e2", f"48'h{LANE_OFFSET:012x}", "48'h000000000000", marks=pytest.mark.slow),
    ],
)
def test_a_planted_bug_where_rows_end_is_caught(module: str, right: str, wrong: str) -> None:
    _need("icarus")
    arch = ChainArch(dsps=8, ends=True)
    modules = chain_verilog(arch, primitives="behavioural")
    assert right in modules[module]
    modules[module] = modules[module].replace(right, wrong)
    assert verify_chain(arch, build_dir=BUILD, simulator="icarus", beats=40, modules=modules).mismatches > 0


@pytest.mark.parametrize(
    "layout", [Chain(dsps=16), pytest.param(ChainRows(dsps=16, blocks=2), marks=pytest.mark.slow)], ids=lambda x: x.name
)
def test_blocks_of_their_own_n(layout: Chain | ChainRows) -> None:
    """Per-block N, in beats that are ready for 16 of 16 and in rows back to back."""
    _need("icarus")
    random = np.random.default_rng(3)
    n = random.choice([0, 2, 4, 8, 16], (2, 3)).repeat(16, axis=0).repeat(16, axis=1)
    mask = random.permuted(np.tile(np.arange(16), (32 * 3, 1)), axis=1).reshape(32, 48) < n
    tensor = QuantTensor(
        codes=(random.integers(-127, 128, mask.shape) * mask).astype(np.int16),
        format=IntFormat(bits=8),
        row_scales=np.ones(32, np.float32),
        group_size=48,
        pattern=BlockN(),
        mask=mask,
        group_multipliers=None,
        zero_points=None,
    )
    report = verify_chain(
        ChainArch(dsps=16, ends=isinstance(layout, ChainRows)),
        build_dir=BUILD,
        simulator="icarus",
        packed=pack(tensor, layout),
        activations=random.integers(-128, 128, (2, 48)),
    )
    assert report.mismatches == 0, [run for run in report.runs if run.mismatches]


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


@pytest.mark.parametrize(
    ("module", "right", "wrong"),
    [
        # the constant that keeps the lower lane from borrowing
        ("sparsefab_dsp48e2", f"48'h{LANE_OFFSET:012x}", "48'h000000000000"),
        # what makes up for a negative weight below another
        ("sparsefab_chain_next", "s1_counts <= s0_counts", "s1_counts <= 1'h0"),
        # the multiplexer of the second operand: the upper of its two bits picks the wrong way round
        pytest.param("sparsefab_lut6_2", "64'hff00f0f0ccccaaaa", "64'hf0f0ff00ccccaaaa", marks=pytest.mark.slow),
        # the delay of a late DSP's weights
        pytest.param("sparsefab_skew_weight", ".ADDRA(read_address1)", ".ADDRA(read_address2)", marks=pytest.mark.slow),
    ],
)
def test_a_planted_bug_is_caught(module: str, right: str, wrong: str) -> None:
    _need("icarus")
    arch = ChainArch(dsps=8)
    modules = chain_verilog(arch, primitives="behavioural")
    assert right in modules[module]
    modules[module] = modules[module].replace(right, wrong)
    report = verify_chain(arch, build_dir=BUILD, simulator="icarus", beats=40, modules=modules)
    assert report.mismatches > 0


@pytest.mark.parametrize(("simulator", "dsps"), [("icarus", 8), ("verilator", 16)])
def test_axi_stream_ports(simulator: SimulatorName, dsps: int) -> None:
    _need(simulator)
    report = verify_chain(ChainArch(dsps=dsps), build_dir=BUILD, simulator=simulator, beats=100, axis=True)
    assert report.mismatches == 0, [run for run in report.runs if run.mismatches]


def _library(folder: Path) -> Path:
    """Stand-ins for AMD's models: the twins under the vendor's names, parameters accepted, registers held by GSR."""
    folder.mkdir(parents=True, exist_ok=True)
    arch = ChainArch(dsps=8)
    vendor, twin = (chain_verilog(arch, primitives=body) for body in ("vendor", "behavioural"))
    for primitive in PRIMITIVES:
        wrapper = f"sparsefab_{primitive.lower()}"
        names = re.findall(r"\.(\w+)\(\d+'", vendor[wrapper]) + re.findall(r'\.(\w+)\("', vendor[wrapper])
        clock = "CLK" if primitive == "DSP48E2" else "WCLK"
        text = twin[wrapper].replace(f"module {wrapper}(", f"module {primitive}(").replace("clk", clock)
        text = re.sub(r"\brst, |, rst\b", "", text, count=1).replace("input rst;", "").replace("wire rst;", "")
        header, body = text.split(";", 1)
        declared = "".join(f"  parameter {name} = 0;\n" for name in names)
        (folder / f"{primitive}.v").write_text(f"{header};\n{declared}{body}")
    (folder / "glbl.v").write_text("module glbl(); reg GSR = 1; initial #100 GSR = 0; endmodule\n")
    return folder


def test_vendor_primitives_with_a_simulation_library(tmp_path: Path) -> None:
    _need("icarus")
    library = _library(tmp_path / "unisims")
    report = verify_chain(ChainArch(dsps=8), build_dir=tmp_path, simulator="icarus", beats=40, unisim=library)
    assert report.mismatches == 0
    (library / "glbl.v").unlink()
    with pytest.raises(MissingToolError, match=r"no glbl\.v"):
        verify_chain(ChainArch(dsps=8), build_dir=tmp_path, simulator="icarus", beats=40, unisim=library)
    with pytest.raises(MissingToolError, match=r"no DSP48E2\.v"):
        verify_chain(ChainArch(dsps=8), build_dir=tmp_path, simulator="icarus", unisim=tmp_path)
    with pytest.raises(ValueError, match="unisim works with simulator 'icarus'"):
        verify_chain(ChainArch(dsps=8), build_dir=tmp_path, simulator="verilator", unisim=library)


def test_missing_simulator_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sparsefab.sim.simulator.shutil.which", lambda name: None)
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
