"""Verify emitted Verilog in a simulator: build, run the bench, collect what it measured."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.arch import ArrayArch, ChainArch
from sparsefab.formats import PackedTensor
from sparsefab.hw.axis import AXIS_TOP
from sparsefab.hw.emit import TOP, accumulate_verilog, array_verilog, chain_verilog
from sparsefab.sim.array_streams import accumulate_streams, array_streams
from sparsefab.sim.products import Product
from sparsefab.sim.report import MODES, RunReport, VerifyReport
from sparsefab.sim.simulator import GSR_CYCLES, SimulatorName, build, run_bench, simulators
from sparsefab.sim.stimuli import (
    OTHER_SLOTS,
    SLOTS,
    ChainStimuli,
    chain_kinds,
    packed_stimuli,
    random_stimuli,
    steady_stimuli,
)
from sparsefab.sim.streams import verify_streams

__all__ = [
    "MODES",
    "RunReport",
    "SimulatorName",
    "VerifyReport",
    "simulators",
    "verify_accumulate",
    "verify_array",
    "verify_chain",
]


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
    seeds : ints                     One set of random stimuli each; N of N:16 is each of 0, 1, 2, 4, 8, 16, then any.
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
        sets += [
            ("random", seed, random_stimuli(arch, beats=beats, slots=SLOTS, others=OTHER_SLOTS, seed=seed))
            for seed in seeds
        ]
    steady = steady_stimuli(arch, tiles=4, seed=seeds[0])
    built = build(texts, build_dir, simulator, top=AXIS_TOP if axis else TOP, unisim=unisim)
    plan, arrays = _plan(arch, sets, steady)
    plan |= {"axis": axis, "reset_cycles": 4 if unisim is None else GSR_CYCLES}
    runs = tuple(RunReport(**run) for run in run_bench(built, "bench_chain", plan, arrays))
    return VerifyReport(block="chain", simulator=simulator, runs=runs, required=required)


def verify_accumulate(
    arch: ArrayArch,
    *products: Product,
    build_dir: Path,
    simulator: SimulatorName = "verilator",
    seed: int = 0,
    modules: dict[str, str] | None = None,
) -> VerifyReport:
    """Hold the accumulators' Verilog to `sim.reference.accumulate`, on the sums of packed products.

    Parameters
    ----------
    arch : ArrayArch                 `chains` wide.
    products : Product               One after the other.
    build_dir, simulator, modules    As for `verify_chain`.
    """
    texts = modules if modules is not None else accumulate_verilog(arch, primitives="behavioural")
    vectors = accumulate_streams(arch, *products)
    return verify_streams("accumulate", texts, vectors, build_dir=build_dir, simulator=simulator, seed=seed)


def verify_array(
    arch: ArrayArch,
    *products: Product,
    build_dir: Path,
    simulator: SimulatorName = "verilator",
    seed: int = 0,
    modes: Sequence[str] = tuple(MODES),
    modules: dict[str, str] | None = None,
) -> VerifyReport:
    """Hold an array's Verilog to `sim.reference.accumulate`, on packed weights and activation codes.

    Parameters
    ----------
    products : Product               One after the other; their modes may differ where arch.chain has both.
    modes : names of MODES           Runs; the cycles of 'plain' are those of the cost model.
    build_dir, simulator, modules    As for `verify_chain`.
    """
    texts = modules if modules is not None else array_verilog(arch, primitives="behavioural")
    vectors = array_streams(arch, *products)
    return verify_streams("array", texts, vectors, build_dir=build_dir, simulator=simulator, seed=seed, modes=modes)


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
