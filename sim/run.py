"""Verify emitted Verilog in a simulator: build, run the bench, collect what it measured."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sparsefab.arch import ArrayArch, ChainArch
from sparsefab.formats import PackedTensor
from sparsefab.formats.requantize import Requantizer, requantize
from sparsefab.hw.axis import AXIS_TOP
from sparsefab.hw.emit import TOP, accumulate_verilog, array_verilog, chain_verilog, requantize_verilog
from sparsefab.hw.requantize import RequantizeArch
from sparsefab.sim.products import Product, accumulate_streams, array_streams
from sparsefab.sim.simulator import GSR_CYCLES, SimulatorName, build, run_bench, simulators
from sparsefab.sim.stimuli import (
    ChainStimuli,
    chain_kinds,
    packed_stimuli,
    random_stimuli,
    requantize_stimuli,
    steady_stimuli,
)

__all__ = [
    "MODES",
    "RunReport",
    "SimulatorName",
    "VerifyReport",
    "simulators",
    "verify_accumulate",
    "verify_array",
    "verify_chain",
    "verify_requantize",
]

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
    """One pass of one stimulus file through the design; `utilisation` is weight beats a cycle, first to last.

    `coverage` counts the results that were compared, by what they exercise.
    """

    name: str
    seed: int
    beats: int
    cycles: int
    utilisation: float
    mismatches: int
    first: dict[str, int | None] | None
    coverage: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """All runs of one design in one simulator; `required` is what they must have exercised."""

    block: str
    simulator: str
    runs: tuple[RunReport, ...]
    required: tuple[str, ...] = ()

    @property
    def coverage(self) -> dict[str, int]:
        """Results compared in all runs, by what they exercise."""
        total = dict.fromkeys(self.required, 0)
        for run in self.runs:
            for kind, count in run.coverage.items():
                total[kind] = total.get(kind, 0) + count
        return total

    @property
    def missing(self) -> tuple[str, ...]:
        """What was never exercised."""
        return tuple(kind for kind, count in self.coverage.items() if not count)

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
    axis: bool = False,
    unisim: Path | None = None,
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
    modules : {module: text} | None  Verilog under test; None emits the chain of `arch`.
    axis : bool                      Go through the AXI4-Stream ports of `axis_top`.
    unisim : Path | None             A copy of AMD's simulation library: simulate the vendor's primitives, in Icarus.

    Returns
    -------
    VerifyReport                     No `mismatches` and nothing `missing` is success; neither raises.

    Raises
    ------
    MissingToolError                 If the simulator is not installed; names the remedy.
    VerificationError                If the simulator does not finish; names the log.
    """
    if beats < 1:
        raise ValueError(f"beats must be positive, not {beats}")
    if (packed is None) != (activations is None):
        raise ValueError("packed and activations must be given together")
    primitives = "behavioural" if unisim is None else "vendor"
    texts = modules if modules is not None else chain_verilog(arch, primitives=primitives, axis=axis)
    sets: list[tuple[str, int, ChainStimuli]] = []
    required: tuple[str, ...] = ()
    if packed is not None and activations is not None:
        sets += [("packed", seed, packed_stimuli(arch, packed, activations, max_beats=max_beats)) for seed in seeds]
    else:
        required = chain_kinds(arch, SLOTS)
        sets += [("random", seed, random_stimuli(arch, beats=beats, slots=SLOTS, seed=seed)) for seed in seeds]
    steady = steady_stimuli(arch, tiles=4, seed=seeds[0])
    built = build(texts, build_dir, simulator, top=AXIS_TOP if axis else TOP, unisim=unisim)
    plan, arrays = _plan(arch, sets, steady)
    plan |= {"axis": axis, "reset_cycles": 4 if unisim is None else GSR_CYCLES}
    runs = tuple(RunReport(**run) for run in run_bench(built, "bench_chain", plan, arrays))
    return VerifyReport(block="chain", simulator=simulator, runs=runs, required=required)


def verify_requantize(
    arch: RequantizeArch | None = None,
    *,
    build_dir: Path,
    zero_point: int = 0,
    code_min: int = -128,
    code_max: int = 127,
    simulator: SimulatorName = "verilator",
    seed: int = 0,
    beats: int = 1000,
    modules: dict[str, str] | None = None,
) -> VerifyReport:
    """Hold the requantizer's Verilog to `formats.requantize`: plain, with idles, with back-pressure, with both.

    Parameters
    ----------
    arch : RequantizeArch | None
    zero_point, code_min, code_max : int
                                     Of the output codes, -256 to 255.
    build_dir, simulator, modules    As for `verify_chain`.
    """
    arch = RequantizeArch() if arch is None else arch
    accumulator_bits, lanes = arch.accumulator_bits, arch.lanes
    texts = modules
    if texts is None:
        texts = requantize_verilog(accumulator_bits=accumulator_bits, lanes=lanes, primitives="behavioural")
    stimuli = requantize_stimuli(accumulator_bits=accumulator_bits, lanes=lanes, beats=beats, seed=seed)
    constants = Requantizer(
        multipliers=stimuli.multipliers.astype(np.int32),
        shifts=stimuli.shifts.astype(np.int32),
        zero_point=zero_point,
        code_min=code_min,
        code_max=code_max,
    )
    codes = requantize(np.ascontiguousarray(stimuli.accumulators.T), constants).T.astype(np.int64) & 0x1FF
    runs = [{"name": mode, "seed": seed, "idle": idle, "stall": stall} for mode, (idle, stall) in MODES.items()]
    plan = {
        "i": [f"{payload:x}" for payload in stimuli.payloads(accumulator_bits)],
        "o": [f"{sum(int(code) << 9 * lane for lane, code in enumerate(row)):x}" for row in codes],
        "constants": {"zero_point": zero_point & 0x1FF, "code_min": code_min & 0x1FF, "code_max": code_max & 0x1FF},
        "runs": runs,
    }
    built = build(texts, build_dir, simulator, top=TOP)
    reports = tuple(RunReport(**run) for run in run_bench(built, "bench_stream", plan))
    return VerifyReport(block="requantize", simulator=simulator, runs=reports)


def verify_accumulate(
    arch: ArrayArch,
    product: Product,
    *,
    build_dir: Path,
    simulator: SimulatorName = "verilator",
    seed: int = 0,
    modules: dict[str, str] | None = None,
) -> VerifyReport:
    """Hold the accumulators' Verilog to `sim.reference.accumulate`, on the sums of a packed product.

    Parameters
    ----------
    arch : ArrayArch                 `chains` wide.
    build_dir, simulator, modules    As for `verify_chain`.
    """
    texts = modules if modules is not None else accumulate_verilog(arch, primitives="behavioural")
    streams = accumulate_streams(arch, product)
    return _verify_streams("accumulate", "sums", texts, streams, build_dir, simulator, seed, tuple(MODES))


def verify_array(
    arch: ArrayArch,
    product: Product,
    *,
    build_dir: Path,
    simulator: SimulatorName = "verilator",
    seed: int = 0,
    modes: Sequence[str] = tuple(MODES),
    modules: dict[str, str] | None = None,
) -> VerifyReport:
    """Hold an array's Verilog to `sim.reference.accumulate`, on packed weights and activation codes.

    Parameters
    ----------
    modes : names of MODES           Runs; the cycles of 'plain' are those of the cost model.
    build_dir, simulator, modules    As for `verify_chain`.
    """
    texts = modules if modules is not None else array_verilog(arch, primitives="behavioural")
    streams = array_streams(arch, product)
    return _verify_streams("array", "weights", texts, streams, build_dir, simulator, seed, modes)


def _verify_streams(
    block: str,
    measured: str,
    texts: dict[str, str],
    streams: tuple[dict[str, list[int]], list[int]],
    build_dir: Path,
    simulator: SimulatorName,
    seed: int,
    modes: Sequence[str],
) -> VerifyReport:
    """Run the bench of streams; `measured` is the input whose utilisation is reported."""
    inputs, expected = streams
    plan = {
        "inputs": {name: [f"{payload:x}" for payload in payloads] for name, payloads in inputs.items()},
        "output": ["results", [f"{payload:x}" for payload in expected]],
        "measured": measured,
        "runs": [{"name": mode, "seed": seed, "idle": MODES[mode][0], "stall": MODES[mode][1]} for mode in modes],
    }
    built = build(texts, build_dir, simulator, top=TOP)
    reports = tuple(RunReport(**run) for run in run_bench(built, "bench_streams", plan))
    return VerifyReport(block=block, simulator=simulator, runs=reports)


def _plan(
    arch: ChainArch, sets: list[tuple[str, int, ChainStimuli]], steady: ChainStimuli
) -> tuple[dict[str, Any], dict[str, dict[str, NDArray[np.int64]]]]:
    """What the bench does, and the archives of stimuli that it reads."""
    arrays = {"steady.npz": steady.arrays()}
    runs: list[dict[str, Any]] = [{"name": "steady", "seed": 0, "stimuli": "steady.npz", "idle": 0.0, "stall": 0.0}]
    for kind, seed, stimuli in sets:
        file = f"{kind}-{seed}.npz"
        arrays[file] = stimuli.arrays()
        runs += [
            {"name": f"{kind}, {mode}", "seed": seed, "stimuli": file, "idle": idle, "stall": stall}
            for mode, (idle, stall) in MODES.items()
        ]
    return {"arch": asdict(arch), "runs": runs}, arrays
