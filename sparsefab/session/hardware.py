"""Verilog of a chain, and the same Verilog against the reference: `Session.emit`, `Session.verify*`."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparsefab.arch import ChainArch
from sparsefab.errors import VerificationError
from sparsefab.models.compress import Recipe
from sparsefab.models.evaluate import Slice, calibrate, task_for

if TYPE_CHECKING:
    from sparsefab.hw.emit import EmitManifest
    from sparsefab.hw.requantize import RequantizeArch
    from sparsefab.session.session import Session
    from sparsefab.sim.checks import CheckResult
    from sparsefab.sim.run import SimulatorName, VerifyReport

__all__ = ["emit", "verify", "verify_chain", "verify_model", "verify_requantizer"]


def emit(
    self: "Session",
    out: Path,
    parameters: object = None,
    primitives: str = "vendor",
    *,
    block: str = "chain",
    axis: bool = False,
    part: str | None = None,
    clock_hz: float = 225e6,
    testbench: bool = True,
    command: Sequence[str] | None = None,
) -> "EmitManifest":
    """Write the Verilog of a block, a testbench and its manifest under `out`.

    Parameters
    ----------
    parameters : dataclass      Of the block's kind (a ChainArch for the chain); None takes its defaults.
    block : str                 A name of `hw.blocks.BLOCKS`.
    axis : bool                 AXI4-Stream ports.
    part, clock_hz              Also write Tcl and XDC for out-of-context synthesis in Vivado.
    testbench : bool            Also write a self-checking testbench and its vectors, where the block has any.
    """
    from functools import partial

    from sparsefab.hw.blocks import BLOCKS
    from sparsefab.hw.emit import emit
    from sparsefab.sim.testbench import block_testbench

    found = BLOCKS.get(block)
    given = found.default if parameters is None else parameters
    return emit(
        found,
        given,
        out,
        primitives=primitives,
        axis=axis,
        part=part,
        clock_hz=clock_hz,
        beside=partial(block_testbench, block, given, axis=axis, seed=self.seed) if testbench else None,
        seed=self.seed,
        command=command,
    )


def verify(
    self: "Session", block: str | None = None, *, progress: Callable[[int, int, str], None] | None = None
) -> "tuple[CheckResult, ...]":
    """Run the checks of a block or primitive, or of all of them.

    Parameters
    ----------
    block : str | None          A name of `sim.checks.subjects()`; None takes all.
    progress : (done, total, check) -> None
    """
    from sparsefab.sim.checks import run_checks, subjects

    return run_checks(
        subjects() if block is None else (block,),
        build_dir=self.cache_dir / "sim",
        seed=self.seed,
        progress=progress,
    )


def verify_chain(
    self: "Session",
    arch: ChainArch | None = None,
    *,
    simulator: "SimulatorName" = "verilator",
    beats: int = 500,
    verilog: Path | None = None,
    axis: bool = False,
    unisim: Path | None = None,
) -> "VerifyReport":
    """Run random beats that reach the corners, every N of N:16, through a chain's Verilog.

    unisim : a copy of AMD's simulation library: the vendor's primitives are simulated, in Icarus.
    """
    from sparsefab.sim.run import verify_chain

    return verify_chain(
        arch or ChainArch(dsps=64),
        build_dir=self.cache_dir / "sim",
        simulator=simulator,
        seeds=(self.seed,),
        beats=beats,
        modules=_modules(verilog),
        axis=axis,
        unisim=unisim,
    )


def verify_requantizer(
    self: "Session",
    arch: "RequantizeArch | None" = None,
    *,
    simulator: "SimulatorName" = "verilator",
    beats: int = 500,
) -> "VerifyReport":
    """Run random accumulators and constants through the requantizer's Verilog."""
    from sparsefab.sim.requantize import verify_requantize

    return verify_requantize(arch, build_dir=self.cache_dir / "sim", simulator=simulator, seed=self.seed, beats=beats)


def verify_model(
    self: "Session",
    model: str,
    recipe: str | Recipe,
    arch: ChainArch | None = None,
    *,
    simulator: "SimulatorName" = "verilator",
    layers: int = 2,
    beats: int = 256,
    verilog: Path | None = None,
    data: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> "dict[str, VerifyReport]":
    """Run a model's own packed weights and activations through the chain's Verilog, layer by layer.

    Parameters
    ----------
    layers : int                The first and the last so many layers that fit the chain, evenly spread.
    beats : int                 Weight beats of each.
    verilog : Path | None       Verilog under test; None emits it.

    Raises
    ------
    TargetError                 If no layer's format runs on the chain.
    """
    from sparsefab.sim.layers import chain_layers
    from sparsefab.sim.run import verify_chain

    chain = arch or ChainArch(dsps=64)
    source = self.source(model)
    loaded = source.load()
    task = task_for(source, loaded, self.cache_dir, Slice(), data)
    compressed = calibrate(self.compress(loaded, recipe), task.calibration_feeds())
    chosen = chain_layers(compressed, task.check_feed(), chain, count=layers)
    reports = {}
    for name, (packed, codes) in chosen.items():
        if progress is not None:
            progress(name)
        reports[name] = verify_chain(
            chain,
            build_dir=self.cache_dir / "sim",
            simulator=simulator,
            packed=packed,
            activations=codes,
            max_beats=beats,
            seeds=(self.seed,),
            modules=_modules(verilog),
        )
    return reports


def _modules(verilog: Path | None) -> dict[str, str] | None:
    """The Verilog under test by file, as the simulator's runner takes it."""
    if verilog is None:
        return None
    text = verilog.read_text()
    if re.search(r"^\s*DSP48E2\s*#", text, re.MULTILINE) and not re.search(
        r"^\s*module\s+DSP48E2\b", text, re.MULTILINE
    ):
        raise VerificationError(
            f"{verilog} instantiates the vendor's DSP48E2, which open simulators do not have; "
            "verify the twin that `sparsefab emit --behavioural` writes, all other modules are the same text"
        )
    return {"top": text}
