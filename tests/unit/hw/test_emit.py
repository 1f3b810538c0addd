"""Emission: reproducible, atomic, and the same netlist with either kind of primitive."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsefab.arch import ArrayArch, ChainArch
from sparsefab.errors import StorageError
from sparsefab.hw import emit as module
from sparsefab.hw.blocks import BLOCKS, CHAIN
from sparsefab.hw.emit import array_verilog, chain_verilog, emit
from sparsefab.hw.primitives import is_wrapper


@pytest.mark.parametrize("name", list(BLOCKS))
def test_only_the_wrappers_differ(name: str) -> None:
    block = BLOCKS.get(name)
    vendor, twin = (block.modules(block.default, primitives=body) for body in ("vendor", "behavioural"))
    assert list(vendor) == list(twin)
    wrappers = {part for part in vendor if is_wrapper(part)}
    assert {part for part in vendor if vendor[part] != twin[part]} == wrappers
    for part in wrappers:
        assert vendor[part].split(";")[0] == twin[part].split(";")[0], "the wrapper's ports differ"
    assert "src =" not in "".join(vendor.values())


def test_the_primitive_is_emitted_once() -> None:
    assert "".join(chain_verilog(ChainArch(dsps=16)).values()).count("DSP48E2 #(") == 1


def test_manifest_and_text_are_reproducible(tmp_path: Path) -> None:
    arch = ChainArch(dsps=8)
    first, second = (emit(CHAIN, arch, tmp_path / name, command=["emit", "chain"], seed=7) for name in "ab")
    assert first.sha256 == second.sha256
    assert first.path.name == second.path.name
    assert first.verilog.read_bytes() == second.verilog.read_bytes()
    record = json.loads((first.path / "manifest.json").read_text())
    assert record["config"]["dsps"] == 8
    assert record["command"] == ["emit", "chain"]
    assert record["seed"] == 7
    assert {"amaranth", "python", "sparsefab"} <= set(record["versions"])
    emit(CHAIN, arch, tmp_path / "a", command=["again"])
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [first.path.name]


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "replace", full)
    with pytest.raises(StorageError, match="No space left"):
        emit(CHAIN, ChainArch(dsps=8), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_blocks_parameters() -> None:
    with pytest.raises(TypeError, match="block 'requantize' takes RequantizeArch, not ChainArch"):
        BLOCKS.get("requantize").modules(ChainArch(dsps=8))
    with pytest.raises(ValueError, match="unknown block 'chian'; did you mean chain"):
        BLOCKS.get("chian")


def test_names_wrong_primitives() -> None:
    with pytest.raises(ValueError, match="primitives must be one of"):
        chain_verilog(ChainArch(dsps=8), primitives="xilinx")


def test_axi_stream_wrapper_and_scripts(tmp_path: Path) -> None:
    manifest = emit(CHAIN, ChainArch(dsps=8), tmp_path, axis=True, part="xcu280-fsvh2892-2L-e", clock_hz=250e6)
    text = manifest.verilog.read_text()
    for port in ("tdata", "tvalid", "tready", "tlast"):
        for stream in ("s_axis_weights", "s_axis_acts", "m_axis_sums"):
            assert f'"xilinx.com:interface:axis:1.0 {stream} {port.upper()}"' in text
    assert "input wire [159:0] s_axis_weights_tdata" in text  # 8 pairs of weights, 8 indices
    assert (
        "synth_design -mode out_of_context -top axis_top -part xcu280-fsvh2892-2L-e"
        in (manifest.path / "synth.tcl").read_text()
    )
    assert "create_clock -name aclk -period 4.000" in (manifest.path / "clock.xdc").read_text()


def test_a_thousand_dsps_are_less_than_a_megabyte(record_property: Callable[[str, object], None]) -> None:
    started = time.process_time()
    text = "".join(chain_verilog(ChainArch(dsps=1024)).values())
    record_property("cpu_s", round(time.process_time() - started, 1))  # goal 10 s, shown; 3 s seen
    assert text.count("sparsefab_chain_segment segment") == 128
    assert len(text) <= 1_000_000
    arch = ArrayArch(chains=16, chain=ChainArch(dsps=64, accumulator_bits=36, matrix_vector=False))
    text = "".join(array_verilog(arch).values())
    assert text.count("sparsefab_chain chain") == 16
    assert len(text) <= 1_000_000
