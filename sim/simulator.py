"""Build Verilog in a simulator and run a bench on it: builds are kept by content, results are counted."""

import hashlib
import json
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import Icarus, Runner

from sparsefab.errors import MissingToolError, VerificationError
from sparsefab.sim.locking import locked
from sparsefab.sim.verilator import CONFIGURATION, FastVerilator, verilator_command, verilator_version

__all__ = ["GSR_CYCLES", "Build", "SimulatorName", "build", "digest", "run_bench", "simulators"]

SimulatorName = Literal["verilator", "icarus"]

GSR_CYCLES: Final = 80  # at 2 ns: longer than the 100 ns for which the vendor's glbl.v holds all registers

_NO_ICARUS: Final = "Icarus Verilog is not on PATH: apt-get install iverilog"


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A compiled design; `path` holds it."""

    runner: Runner
    path: Path
    top: str


def simulators(cache_dir: Path) -> dict[SimulatorName, str | None]:
    """Say what is missing for each simulator; None = it can be used."""
    found: dict[SimulatorName, str | None] = {"verilator": None, "icarus": None}
    try:
        verilator_command(cache_dir)
    except MissingToolError as error:
        found["verilator"] = str(error)
    if shutil.which("iverilog") is None:
        found["icarus"] = _NO_ICARUS
    return found


def build(
    texts: Mapping[str, str], build_dir: Path, simulator: SimulatorName, *, top: str, unisim: Path | None = None
) -> Build:
    """Compile a design, unless the same was compiled before.

    Parameters
    ----------
    texts : {module: text}
    build_dir : Path                 One folder below it for each distinct design.
    simulator : 'verilator' | 'icarus'
    top : str                        Module that the bench sees.
    unisim : Path | None             The user's copy of AMD's simulation library: a folder with DSP48E2.v and so on,
                                     glbl.v in it or above. Icarus only.

    Raises
    ------
    MissingToolError                 If the simulator or a library file is not there.
    VerificationError                If the design does not compile; names the log.
    """
    source = "\n".join(texts.values())
    files = {"top.v": source}
    libraries: list[Path] = []
    runner: Runner
    if simulator == "verilator":
        if unisim is not None:
            raise ValueError("unisim works with simulator 'icarus': the library's models do not compile in Verilator")
        runner = FastVerilator(verilator_command(build_dir))
        arguments, tool = ["-Wno-fatal", "-O3"], verilator_version()
        files = {"top.vlt": CONFIGURATION.format(top=top)} | files
    elif simulator == "icarus":
        if shutil.which("iverilog") is None:
            raise MissingToolError(_NO_ICARUS)
        runner, arguments, tool = Icarus(), [], "icarus"
        if unisim is not None:
            libraries = [_find_glbl(unisim)]
            arguments = ["-y", str(unisim.resolve()), "-Y", ".v", "-s", "glbl"]
    else:
        raise ValueError(f"simulator must be 'verilator' or 'icarus', not {simulator!r}")
    path = build_dir.resolve() / f"{simulator}-{digest(tool, top, *arguments, *files.values())}"
    runner.log.setLevel(logging.getLogger(__name__).getEffectiveLevel())  # the runner tells every command otherwise
    # what runner.build() would leave behind when the build is there already
    runner.build_dir, runner.hdl_toplevel, runner.waves = path, top, False
    with locked(path):
        if not (path / "built").exists():
            _compile(runner, path, top, files, libraries, arguments)
    return Build(runner=runner, path=path, top=top)


def _compile(
    runner: Runner, path: Path, top: str, files: Mapping[str, str], libraries: list[Path], arguments: list[str]
) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name).write_text(text)
    try:
        runner.build(
            sources=[*(path / name for name in files), *libraries],
            hdl_toplevel=top,
            build_dir=path,
            always=True,
            build_args=arguments,
            timescale=("1ns", "1ps"),
            log_file=path / "build.log",
        )
    except (SystemExit, RuntimeError, OSError, subprocess.CalledProcessError) as error:
        raise VerificationError(f"the simulator cannot build the design, see {path / 'build.log'}") from error
    (path / "built").touch()


def run_bench(
    built: Build, bench: str, plan: Mapping[str, Any], arrays: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Run a bench on a plan and return what it wrote.

    Parameters
    ----------
    built : Build
    bench : str                      Module in sparsefab.sim.benches.
    plan : mapping                   What the bench reads as JSON.
    arrays : {file: {name: array}}   Archives that the plan refers to by file name.

    Raises
    ------
    VerificationError                If the simulation does not finish, or fails without a counted mismatch; the folder
                                     that the message names is kept.
    """
    work = Path(tempfile.mkdtemp(prefix="run-", dir=built.path))
    (work / "plan.json").write_text(json.dumps(plan))
    for file, content in (arrays or {}).items():
        np.savez(work / file, **content)
    results_xml, results, log = work / "results.xml", work / "results.json", work / "test.log"
    unfinished = f"the simulation did not finish, see {log}"
    try:
        built.runner.test(
            test_module=f"sparsefab.sim.benches.{bench}",
            hdl_toplevel=built.top,
            hdl_toplevel_lang="verilog",
            build_dir=built.path,
            test_dir=work,
            results_xml=str(results_xml),
            plusargs=[f"+bench={work / 'plan.json'}"],
            log_file=log,
            timescale=("1ns", "1ps"),
        )
    except (SystemExit, RuntimeError) as error:  # inside pytest the runner raises what get_results counts outside
        if not results.is_file():
            raise VerificationError(unfinished) from error
    tests, failed = get_results(results_xml) if results_xml.is_file() else (0, 0)
    if tests == 0 or not results.is_file():
        raise VerificationError(unfinished)
    runs: list[dict[str, Any]] = json.loads(results.read_text())
    if failed and not any(run["mismatches"] for run in runs):
        raise VerificationError(f"the bench failed, see {log}")
    shutil.rmtree(work, ignore_errors=True)
    return runs


def digest(*parts: str | bytes) -> str:
    """Name content by twelve hexadecimal digits."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part.encode() if isinstance(part, str) else part)
        state.update(b"\0")
    return state.hexdigest()[:12]


def _find_glbl(unisim: Path) -> Path:
    if not (unisim / "DSP48E2.v").is_file():
        raise MissingToolError(f"{unisim}: no DSP48E2.v there; point to the folder of the simulation library's models")
    for folder in (unisim, *list(unisim.resolve().parents)[:3]):
        if (folder / "glbl.v").is_file():
            return folder / "glbl.v"
    raise MissingToolError(f"{unisim}: no glbl.v there nor above; it belongs to the simulation library")
