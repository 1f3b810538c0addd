"""What `sparsefab verify` runs: the checks of each block and primitive, and their summary.

Every block of `hw.blocks` has some checks for nothing: lint, that its vendor and behavioural netlists differ in the
primitives' wrappers alone, and the proofs that `hw.proofs` claims of it. Its own checks are an entry of `CHECKS`.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from sparsefab.arch import AccumulatorArch, ArrayArch, ChainArch
from sparsefab.errors import MissingToolError
from sparsefab.hw.axis import AXIS_TOP
from sparsefab.hw.blocks import BLOCKS
from sparsefab.hw.claim import Claim, verify_claim
from sparsefab.hw.dequantize.arch import DequantizeArch
from sparsefab.hw.minifloat.dot import DotArch
from sparsefab.hw.minifloat.mac import MacArch
from sparsefab.hw.pack4 import NibbleArch
from sparsefab.hw.primitives import is_wrapper
from sparsefab.hw.proofs import CLAIMS
from sparsefab.sim.axis import verify_axis
from sparsefab.sim.dequantize import verify_dequantize
from sparsefab.sim.dot import verify_dot
from sparsefab.sim.lint import lint
from sparsefab.sim.mac import verify_mac
from sparsefab.sim.pack4 import verify_pack4
from sparsefab.sim.primitives import check_dsp48e2, check_dsp58
from sparsefab.sim.products import random_product
from sparsefab.sim.requantize import verify_requantize
from sparsefab.sim.run import (
    SimulatorName,
    VerifyReport,
    verify_accumulate,
    verify_array,
    verify_chain,
)
from sparsefab.sim.tally import Tally

__all__ = ["CHECKS", "Check", "CheckResult", "Tally", "checks_of", "run_checks", "subjects"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check; `run` takes the folder of simulator builds and a seed."""

    name: str
    run: Callable[[Path, int], Tally]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The outcome of one check; `skipped` names the tool that is missing, `coverage` counts what it exercised."""

    block: str
    check: str
    cases: int
    failures: int
    first: str
    skipped: str
    seconds: float
    coverage: dict[str, int] = field(default_factory=dict)

    @property
    def covered(self) -> str:
        """How many of the opcodes and patterns that a check knows of it exercised."""
        return f"{sum(map(bool, self.coverage.values()))} of {len(self.coverage)}" if self.coverage else ""

    @property
    def result(self) -> str:
        """passed, FAILED or skipped."""
        return "skipped" if self.skipped else "FAILED" if self.failures else "passed"


def subjects() -> tuple[str, ...]:
    """Every block and primitive that has checks."""
    return (*(name for name in CHECKS if name not in BLOCKS), *BLOCKS)


def checks_of(name: str) -> tuple[Check, ...]:
    """The checks of a block or primitive.

    Raises
    ------
    ValueError                 If there is none of that name.
    """
    if name in BLOCKS:
        common = (Check(name="lint", run=partial(_lint, name)), Check(name="netlists", run=partial(_netlists, name)))
        proofs = [
            Check(name=f"proof: {claim.name}", run=partial(_claim, claim)) for claim in CLAIMS if claim.block == name
        ]
        return common + CHECKS.get(name, ()) + tuple(proofs)
    if name not in CHECKS:
        raise ValueError(f"unknown block {name!r}; known: {', '.join(subjects())}")
    return CHECKS[name]


def run_checks(
    names: Iterable[str],
    *,
    build_dir: Path,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[CheckResult, ...]:
    """Run all checks of some blocks, one after the other.

    Parameters
    ----------
    names : str                Blocks and primitives.
    build_dir : Path           Simulator builds are kept here.
    progress : (done, total, check) -> None
                               Called before each.
    """
    todo = [(name, check) for name in names for check in checks_of(name)]
    results: list[CheckResult] = []
    for name, check in todo:
        if progress is not None:
            progress(len(results), len(todo), f"{name}: {check.name}")
        start, skipped, tally = time.perf_counter(), "", Tally(cases=0, failures=0)
        try:
            tally = check.run(build_dir, seed)
        except MissingToolError as error:
            skipped = str(error)
        results.append(
            CheckResult(
                block=name,
                check=check.name,
                cases=tally.cases,
                failures=tally.failures,
                first=tally.first,
                skipped=skipped,
                seconds=time.perf_counter() - start,
                coverage=tally.coverage,
            )
        )
    return tuple(results)


# checks that every block has


def _lint(name: str, build_dir: Path, seed: int) -> Tally:
    block = BLOCKS.get(name)
    # the wrapper instantiates the block, so both are linted
    texts = [(AXIS_TOP, block.modules(block.default, primitives="behavioural", axis=True))]
    found = [line for top, modules in texts for line in lint(modules, top=top, cache_dir=build_dir)]
    return Tally(cases=sum(len(modules) for _, modules in texts), failures=len(found), first=found[0] if found else "")


def _netlists(name: str, build_dir: Path, seed: int) -> Tally:
    block = BLOCKS.get(name)
    vendor, twin = (block.modules(block.default, primitives=body) for body in ("vendor", "behavioural"))
    differ = [
        module
        for module in {**vendor, **twin}
        if (is_wrapper(module) and vendor[module].split(";")[0] != twin[module].split(";")[0])
        or (not is_wrapper(module) and vendor.get(module) != twin.get(module))
    ]
    first = f"module {differ[0]} is not the same text" if differ else ""
    return Tally(cases=len(vendor), failures=len(differ), first=first)


def _claim(claim: Claim, build_dir: Path, seed: int) -> Tally:
    """The proof, and the faults, most of which must refute it."""
    verdict = verify_claim(claim)
    if not verdict.proof.proved:
        found = verdict.proof.counterexample
        first = f"counterexample {found}" if found else f"undecided after {verdict.proof.seconds:.0f} s"
    elif 2 * verdict.caught <= verdict.injected:
        first = f"{verdict.injected - verdict.caught} of {verdict.injected} injected faults were not caught"
    else:
        first = ""
    return Tally(cases=1 + verdict.injected, failures=int(bool(first)), first=first)


# checks of their own


def _chain(simulator: SimulatorName, arch: ChainArch, beats: int, build_dir: Path, seed: int) -> Tally:
    return Tally.of(verify_chain(arch, build_dir=build_dir, simulator=simulator, seeds=(seed,), beats=beats))


def _axis(simulator: SimulatorName, block: str, parameters: object, build_dir: Path, seed: int) -> Tally:
    return Tally.of(verify_axis(block, parameters, build_dir=build_dir, simulator=simulator, seed=seed))


def _products(verify: Callable[..., VerifyReport], simulator: SimulatorName, build_dir: Path, seed: int) -> Tally:
    """Products of every kind on two chains, modes in turn: short tiles, rows beyond the accumulators', group scales."""
    arch = ArrayArch(
        chains=2,
        chain=ChainArch(dsps=16, accumulator_bits=36),
        accumulators=AccumulatorArch(rows=16, multiplier_bits=8),
    )
    shapes = (
        (40, 96, 8, 3, 32, False),
        (70, 96, 8, 1, 32, True),
        (1, 192, 4, 2, 64, False),
        (5, 64, 16, 4, 16, False),
        (2, 64, 4, 3, 64, True),
        (5, 64, 16, 1, 16, True),
    )
    products = [
        random_product(
            rows=rows,
            columns=columns,
            slots=slots,
            tokens=tokens,
            dsps=16,
            group_size=group,
            pairs=pairs,
            seed=seed,
        )
        for rows, columns, slots, tokens, group, pairs in shapes
    ]
    return Tally.of(verify(arch, *products, build_dir=build_dir, simulator=simulator, seed=seed))


def _requantize(simulator: SimulatorName, codes: dict[str, Any], build_dir: Path, seed: int) -> Tally:
    return Tally.of(verify_requantize(build_dir=build_dir, simulator=simulator, seed=seed, beats=2000, **codes))


def _mac(simulator: SimulatorName, arch: MacArch, build_dir: Path, seed: int) -> Tally:
    return Tally.of(verify_mac(arch, build_dir=build_dir, simulator=simulator, seed=seed, sums=200))


def _dot(simulator: SimulatorName, arch: DotArch, build_dir: Path, seed: int) -> Tally:
    return Tally.of(verify_dot(arch, build_dir=build_dir, simulator=simulator, seed=seed, sums=60))


def _pack4(simulator: SimulatorName, arch: NibbleArch, build_dir: Path, seed: int) -> Tally:
    return Tally.of(verify_pack4(arch, build_dir=build_dir, simulator=simulator, seed=seed))


def _dequantize(simulator: SimulatorName, arch: DequantizeArch, rows: int, build_dir: Path, seed: int) -> Tally:
    report = verify_dequantize(arch, build_dir=build_dir, simulator=simulator, seed=seed, rows=rows)
    return replace(Tally.of(report), coverage={f"{arch.format}, positions {arch.positions}": report.checks})


_DEQUANTIZERS: Final = (
    DequantizeArch(dsps=16, format="int3", beat_bits=64),
    DequantizeArch(dsps=32, format="int5", beat_bits=512),
    DequantizeArch(dsps=20, slots=10, format="uint8", zero_unit=32, positions="bitmap", beat_bits=512),
    DequantizeArch(dsps=16, slots=8, format="e2m3", positions="index", m=4, beat_bits=128),
    DequantizeArch(dsps=15, slots=3, format="e2m1", positions="bitmap", pairs=True, beat_bits=256),
)
_U8: Final = {"zero_point": 117, "code_min": 0, "code_max": 255}

_ENDS: Final = ChainArch(dsps=24, ends=True)  # an odd number of segments
_SPECIAL: Final = MacArch(a="e5m2i", b="e5m2i", result="e4m3fn")

CHECKS: Final[dict[str, tuple[Check, ...]]] = {
    "dsp48e2": (Check(name="twin against reference", run=check_dsp48e2),),
    "dsp58": (Check(name="int8 dot product against integers", run=check_dsp58),),
    "chain": (
        Check(name="Verilator, 64 DSPs", run=partial(_chain, "verilator", ChainArch(dsps=64), 10_000)),
        Check(name="Icarus, AXI4-Stream", run=partial(_axis, "icarus", "chain", ChainArch(dsps=16))),
        Check(name="Verilator, AXI4-Stream", run=partial(_axis, "verilator", "chain", ChainArch(dsps=16))),
        Check(name="Icarus, 64 DSPs", run=partial(_chain, "icarus", ChainArch(dsps=64), 1_000)),
        Check(name="Verilator, rows end in beats", run=partial(_chain, "verilator", _ENDS, 2_000)),
        Check(name="Icarus, rows end in beats", run=partial(_chain, "icarus", _ENDS, 200)),
    ),
    "pack4": (
        Check(name="Verilator, 16 DSPs", run=partial(_pack4, "verilator", NibbleArch())),
        Check(name="Icarus, 5 DSPs", run=partial(_pack4, "icarus", NibbleArch(dsps=5))),
    ),
    "dequantize": (
        Check(name="Verilator, int4", run=partial(_dequantize, "verilator", DequantizeArch(), 400)),
        *(
            Check(name=f"Icarus, {arch.format} {arch.positions}", run=partial(_dequantize, "icarus", arch, 40))
            for arch in _DEQUANTIZERS
        ),
    ),
    "accumulate": (
        Check(name="Verilator, 2 chains", run=partial(_products, verify_accumulate, "verilator")),
        Check(name="Icarus, 2 chains", run=partial(_products, verify_accumulate, "icarus")),
    ),
    "array": (
        Check(name="Verilator, 2 x 16 DSPs", run=partial(_products, verify_array, "verilator")),
        Check(name="Icarus, 2 x 16 DSPs", run=partial(_products, verify_array, "icarus")),
    ),
    "requantize": (
        Check(name="Icarus, AXI4-Stream", run=partial(_axis, "icarus", "requantize", None)),
        Check(name="Verilator, s8", run=partial(_requantize, "verilator", {})),
        Check(name="Icarus, u8", run=partial(_requantize, "icarus", _U8)),
    ),
    "mac": (
        Check(name="Icarus, AXI4-Stream", run=partial(_axis, "icarus", "mac", None)),
        Check(name="Verilator, e4m3", run=partial(_mac, "verilator", MacArch())),
        Check(name="Verilator, e5m2i to e4m3fn", run=partial(_mac, "verilator", _SPECIAL)),
        Check(name="Icarus, e3m4 in a DSP", run=partial(_mac, "icarus", MacArch(a="e3m4", b="e3m4", multiplier="dsp"))),
    ),
    "mxdot": (
        Check(name="Verilator, mxfp8_e4m3", run=partial(_dot, "verilator", DotArch())),
        Check(name="Icarus, mxint8 by mxfp4", run=partial(_dot, "icarus", DotArch(a="mxint8", b="mxfp4"))),
    ),
}
