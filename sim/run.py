"""Verify emitted Verilog in a simulator: build, run the bench, collect what it measured."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import Icarus, Runner
from numpy.typing import NDArray

from sparsefab.arch import ChainArch
from sparsefab.errors import MissingToolError, VerificationError
from sparsefab.formats import PackedTensor
from sparsefab.hw.emit import TOP, chain_verilog
from sparsefab.sim.stimuli import ChainStimuli, packed_stimuli, random_stimuli, steady_stimuli
from sparsefab.sim.verilator import CONFIGURATION, FastVerilator, verilator_command, verilator_version

__all__ = ["MODES", "RunReport", "SimulatorName", "VerifyReport", "simulators", "verify_chain"]

SimulatorName = Literal["verilator", "icarus"]

# name -> (probability that a source idles, probability that the sink stalls)
MODES: Final[dict[str, tuple[float, float]]] = {
    "plain": (0.0, 0.0),
    "idles": (0.4, 0.0),
    "back-pressure": (0.0, 0.4),
    "both": (0.3, 0.3),
}
SLOTS: Final = (0, 1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """One pass of one stimulus file through the design; `utilisation` is weight beats a cycle, first to last."""

    name: str
    seed: int
    beats: int
    cycles: int
    utilisation: float
    mismatches: int
    first: dict[str, int | None] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """All runs of one design in one simulator."""

    block: str
    simulator: str
    runs: tuple[RunReport, ...]

    @property
    def checks(self) -> int:
        """Beats compared."""
        return sum(run.beats for run in self.runs)

    @property
    def mismatches(self) -> int:
        """Beats that differ, are missing or are too many."""
        return sum(run.mismatches for run in self.runs)

    @property
    def cycles(self) -> int:
        """Clock cycles simulated."""
        return sum(run.cycles for run in self.runs)

    @property
    def utilisation(self) -> float | None:
        """Weight beats a cycle in the steady run, None when there was none."""
        return next((run.utilisation for run in self.runs if run.name == "steady"), None)


def simulators(cache_dir: Path) -> dict[SimulatorName, str | None]:
    """Say what is missing for each simulator; None = it can be used."""
    found: dict[SimulatorName, str | None] = {"verilator": None, "icarus": None}
    try:
        verilator_command(cache_dir)
    except MissingToolError as error:
        found["verilator"] = str(error)
    if shutil.which("iverilog") is None:
        found["icarus"] = "Icarus Verilog is not on PATH: apt-get install iverilog"
    return found


def verify_chain(
    arch: ChainArch,
    *,
    build_dir: Path,
    simulator: SimulatorName = "verilator",
    seeds: Sequence[int] = (0,),
    beats: int = 1000,
    packed: PackedTensor | None = None,
    activations: NDArray[np.integer[Any]] | None = None,
    max_beats: int | None = None,
    modules: dict[str, str] | None = None,
) -> VerifyReport:
    """Hold the chain's Verilog to the reference: plain, with idles, with back-pressure, with both.

    Parameters
    ----------
    arch : ChainArch
    build_dir : Path                 Simulator builds are kept here, keyed by content.
    simulator : 'verilator' | 'icarus'
    seeds : ints                     One set of random stimuli each; N of N:16 is drawn from 0, 1, 2, 4, 8, 16.
    beats : int                      Weight beats of a random set (and seed).
    packed, activations              Real weights in the Chain layout and int codes [tokens, in]; they take the place of
                                     the random stimuli.
    max_beats : int | None           Limit for real weights.
    modules : {module: text} | None  Verilog under test; None emits the behavioural chain of `arch`.

    Returns
    -------
    VerifyReport                     `mismatches` == 0 is success; a mismatch does not raise.

    Raises
    ------
    MissingToolError                 If the simulator is not installed; names the remedy.
    VerificationError                If the simulator does not finish; names the log.
    """
    if beats < 1:
        raise ValueError(f"beats must be positive, not {beats}")
    if (packed is None) != (activations is None):
        raise ValueError("packed and activations must be given together")
    texts = modules if modules is not None else chain_verilog(arch, primitives="behavioural")
    sets: list[tuple[str, int, ChainStimuli]] = []
    if packed is not None and activations is not None:
        sets += [("packed", seed, packed_stimuli(arch, packed, activations, max_beats=max_beats)) for seed in seeds]
    else:
        sets += [("random", seed, random_stimuli(arch, beats=beats, slots=SLOTS, seed=seed)) for seed in seeds]
    steady = steady_stimuli(arch, tiles=max(2, -(-beats // (2 * arch.fill_beats()))), seed=seeds[0])
    runner, build = _build(texts, build_dir.resolve(), simulator)
    # runs of one design may overlap: each has a folder of its own beside the build
    content = (array.tobytes() for *_, stimuli in sets for array in (stimuli.weights, stimuli.indices, stimuli.banks))
    work = build / f"run-{_digest(str(list(seeds)), str(beats), *content)}"
    work.mkdir(parents=True, exist_ok=True)
    plan = _plan(arch, sets, steady, work)
    (work / "plan.json").write_text(json.dumps(plan))
    return VerifyReport(block="chain", simulator=simulator, runs=_simulate(runner, build, work))


def _plan(
    arch: ChainArch, sets: list[tuple[str, int, ChainStimuli]], steady: ChainStimuli, work: Path
) -> dict[str, Any]:
    steady.save(work / "steady.npz")
    runs: list[dict[str, Any]] = [{"name": "steady", "seed": 0, "stimuli": "steady.npz", "idle": 0.0, "stall": 0.0}]
    for kind, seed, stimuli in sets:
        file = f"{kind}-{seed}.npz"
        stimuli.save(work / file)
        runs += [
            {"name": f"{kind}, {mode}", "seed": seed, "stimuli": file, "idle": idle, "stall": stall}
            for mode, (idle, stall) in MODES.items()
        ]
    return {"arch": asdict(arch), "runs": runs}


def _build(texts: dict[str, str], build_dir: Path, simulator: SimulatorName) -> tuple[Runner, Path]:
    source = "\n".join(texts.values())
    runner: Runner
    if simulator == "verilator":
        runner = FastVerilator(verilator_command(build_dir))
        arguments, extra, tool = ["-Wno-fatal", "-O3"], {"top.vlt": CONFIGURATION}, verilator_version()
    elif simulator == "icarus":
        if shutil.which("iverilog") is None:
            raise MissingToolError("Icarus Verilog is not on PATH: apt-get install iverilog")
        runner, arguments, extra, tool = Icarus(), [], {}, "icarus"
    else:
        raise ValueError(f"simulator must be 'verilator' or 'icarus', not {simulator!r}")
    build = build_dir / f"{simulator}-{_digest(source, tool, *arguments, *extra.values())}"
    if not (build / "built").exists():
        build.mkdir(parents=True, exist_ok=True)
        files = extra | {"top.v": source}
        for name, text in files.items():
            (build / name).write_text(text)
        try:
            runner.build(
                sources=[build / name for name in files],
                hdl_toplevel=TOP,
                build_dir=build,
                always=True,
                build_args=arguments,
                timescale=("1ns", "1ps"),
                log_file=build / "build.log",
            )
        except (SystemExit, RuntimeError, OSError) as error:
            raise VerificationError(f"{simulator} cannot build the design, see {build / 'build.log'}") from error
        (build / "built").touch()
    else:
        # what build() would have left in the runner
        runner.build_dir, runner.hdl_toplevel, runner.waves = build, TOP, False
    return runner, build


def _simulate(runner: Runner, build: Path, work: Path) -> tuple[RunReport, ...]:
    results_xml, results = work / "results.xml", work / "results.json"
    results_xml.unlink(missing_ok=True)
    results.unlink(missing_ok=True)
    try:
        runner.test(
            test_module="sparsefab.sim.benches.bench_chain",
            hdl_toplevel=TOP,
            hdl_toplevel_lang="verilog",
            build_dir=build,
            test_dir=work,
            results_xml=str(results_xml),
            plusargs=[f"+bench={work / 'plan.json'}"],
            log_file=work / "test.log",
            timescale=("1ns", "1ps"),
        )
    except (SystemExit, RuntimeError) as error:  # inside pytest the runner raises what get_results counts outside
        if not results.is_file():
            raise VerificationError(f"the simulation did not finish, see {work / 'test.log'}") from error
    tests, failed = get_results(results_xml) if results_xml.is_file() else (0, 0)
    if tests == 0 or not results.is_file():
        raise VerificationError(f"the simulation did not finish, see {work / 'test.log'}")
    runs = tuple(RunReport(**run) for run in json.loads(results.read_text()))
    if failed and not any(run.mismatches for run in runs):
        raise VerificationError(f"the bench failed, see {work / 'test.log'}")
    return runs


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:12]
