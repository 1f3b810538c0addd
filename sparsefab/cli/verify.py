"""`sparsefab verify`: hold the hardware library to its reference, by simulation, proof and lint.

`verify` runs the checks of every block, `verify BLOCK` those of one, with a row each; "covered" counts the opcodes,
modes and patterns that a check met of those it knows, and one that never came is a failure. An option that says what is
to be simulated (--dsps, --arch, --verilog, --axis, --unisim, --simulator, --beats, --model) simulates that alone and
prints a row a run: random beats that reach the corners, every N of N:16, or with --model and --recipe the model's own
packed weights and activations; plain, with idles, with back-pressure, with both.
"""

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sparsefab.cli.emit import add_parameters, block_parameters
from sparsefab.cli.options import Verbs, add_common, positive

if TYPE_CHECKING:
    from sparsefab.sim.run import SimulatorName, VerifyReport

__all__ = ["add_parser", "run"]


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("verify", help="hold Verilog to the reference", description=__doc__)
    parser.add_argument(
        "block",
        nargs="?",
        help="a block or primitive (default: all of them); see --list",
    )
    parser.add_argument("--list", action="store_true", help="list blocks and their checks")
    parser.add_argument("--vectors", type=Path, metavar="FILE", help="an .npz of DSP48E2 stimuli and outputs to replay")
    parser.add_argument("--model", metavar="MODEL", help="use this model's weights; needs --recipe")
    parser.add_argument("--recipe", metavar="R", help="a built-in recipe or a TOML file")
    parser.add_argument("--layers", type=positive, default=2, metavar="N", help="layers of the model (default: 2)")
    parser.add_argument("--beats", type=positive, metavar="N", help="beats a set (default: 500)")
    add_parameters(parser)
    parser.add_argument("--verilog", type=Path, metavar="FILE", help="Verilog under test, instead of a fresh emission")
    parser.add_argument("--axis", action="store_true", help="the chain with AXI4-Stream ports")
    parser.add_argument(
        "--unisim",
        type=Path,
        metavar="DIR",
        help="your copy of AMD's simulation library: simulate the vendor's primitives, in Icarus",
    )
    parser.add_argument("--simulator", choices=["verilator", "icarus", "both"], help="default: verilator")
    parser.add_argument("--data", type=Path, metavar="FILE", help="data of your own, for a model of your own")
    add_common(parser, seed=True)
    parser.set_defaults(run=run)


_DESIGN = ("dsps", "arch", "set", "verilog", "axis", "unisim", "simulator", "beats", "model", "recipe")


def run(options: argparse.Namespace) -> int:
    """Check and print a row a check or a run; 1 on a mismatch."""
    if options.list:
        return _list(options)
    if options.vectors is not None:
        if options.block not in (None, "dsp48e2"):
            raise ValueError(f"--vectors replays a file on dsp48e2, not on {options.block}")
        return _replay(options)
    if any(getattr(options, name) for name in _DESIGN):
        return _simulate(options)
    return _check(options)


def _list(options: argparse.Namespace) -> int:
    from sparsefab.cli.output import print_json, print_table
    from sparsefab.sim.checks import checks_of, subjects

    rows = {name: [check.name for check in checks_of(name)] for name in subjects()}
    if options.json:
        print_json(rows)
    else:
        print_table("Checks", ["block", "checks"], [[name, "; ".join(checks)] for name, checks in rows.items()])
    return 0


def _check(options: argparse.Namespace) -> int:
    """Run the registered checks and print their summary."""
    from dataclasses import asdict

    from sparsefab.cli.output import bar, print_json, print_table
    from sparsefab.session import Session

    with bar("checking") as report:
        results = Session(options.cache_dir, options.seed).verify(
            options.block, progress=lambda done, total, _: report(done, total)
        )
    failed = [result for result in results if result.failures]
    if options.json:
        checks = [{**asdict(result), "result": result.result} for result in results]
        print_json({"checks": checks, "failed": len(failed), "passed": not failed})
        return 1 if failed else 0
    print_table(
        "Checks",
        ["block", "check", "cases", "covered", "result", "seconds"],
        [[r.block, r.check, f"{r.cases:,}", r.covered, r.result, f"{r.seconds:.1f}"] for r in results],
        right=["cases", "covered", "seconds"],
    )
    skipped = [result for result in results if result.skipped]
    share = f"{len(results) - len(skipped)} of {len(results)} checks ran, {sum(r.seconds for r in results):.0f} s"
    known: dict[str, dict[str, int]] = {}
    for result in results:
        for kind, count in result.coverage.items():
            kinds = known.setdefault(result.block, {})
            kinds[kind] = kinds.get(kind, 0) + count
    for block, kinds in known.items():
        least = min(kinds, key=lambda kind: kinds[kind])
        met = sum(map(bool, kinds.values()))
        print(f"{block}: {met} of {len(kinds)} opcodes, modes and patterns met, least {least} {kinds[least]:,} times")
    print(f"FAILED: {len(failed)} ({share})" if failed else f"passed: {share}")
    for result in failed:
        print(f"  {result.block}, {result.check}: {result.failures:,} of {result.cases:,} differ, first {result.first}")
    for reason in sorted({result.skipped for result in skipped}):
        print(f"  skipped: {reason}")
    return 1 if failed else 0


def _simulate(options: argparse.Namespace) -> int:
    """Simulate the design that the options describe and print a row a run."""
    from sparsefab.cli.output import print_json, print_table

    options.block = options.block or "chain"
    if options.block not in ("chain", "requantize"):
        raise ValueError(f"{options.block}: `sparsefab verify {options.block}` takes no options on what to simulate")
    if options.unisim is not None:
        options.simulator = "icarus"  # the only one that takes the vendor's models
    options.simulator, options.beats = options.simulator or "verilator", options.beats or 500
    if (options.model is None) != (options.recipe is None):
        raise ValueError("--model and --recipe go together")
    rows: list[dict[str, object]] = []
    coverage: Counter[str] = Counter()
    missing: dict[str, None] = {}
    simulators: tuple[SimulatorName, ...] = (
        ("verilator", "icarus") if options.simulator == "both" else (options.simulator,)
    )
    for simulator in simulators:
        for what, report in _reports(options, simulator).items():
            coverage.update(report.coverage)
            missing |= {f"{what}, {simulator}: {kind}": None for kind in report.missing}
            rows += [
                {
                    "what": what,
                    "simulator": simulator,
                    "run": r.name,
                    "seed": r.seed,
                    "beats": r.beats,
                    "cycles": r.cycles,
                    "utilisation": r.utilisation,
                    "mismatches": r.mismatches,
                    "first": r.first,
                }
                for r in report.runs
            ]
    mismatches = sum(int(str(row["mismatches"])) for row in rows)
    passed = not mismatches and not missing
    if options.json:
        found = {"mismatches": mismatches, "coverage": dict(coverage), "missing": list(missing), "passed": passed}
        print_json({"block": options.block, "runs": rows, **found})
        return 0 if passed else 1
    print_table(
        "Verilog against the reference",
        ["what", "simulator", "run", "beats", "cycles", "busy", "mismatches"],
        [
            [
                row["what"],
                row["simulator"],
                row["run"],
                row["beats"],
                row["cycles"],
                f"{float(str(row['utilisation'])):.1%}",
                row["mismatches"],
            ]
            for row in rows
        ],
        right=["beats", "cycles", "busy", "mismatches"],
    )
    if coverage:
        print("results compared: " + ", ".join(f"{kind} {count:,}" for kind, count in coverage.items()))
    if mismatches:
        print("FAILED: the Verilog disagrees with the reference")
    else:
        print("passed: equal to the bit" if passed else "FAILED: not everything was exercised; raise --beats")
    for row in rows:
        if row["mismatches"]:
            print(f"  {row['what']}, {row['run']}, seed {row['seed']}: first difference {row['first']}")
    for kind in missing:
        print(f"  never exercised: {kind}")
    return 0 if passed else 1


def _reports(options: argparse.Namespace, simulator: "SimulatorName") -> "Mapping[str, VerifyReport]":
    from sparsefab.cli.output import bar
    from sparsefab.hw.blocks import BLOCKS
    from sparsefab.session import Session

    arch = block_parameters(options, BLOCKS.get(options.block))
    session = Session(options.cache_dir, options.seed)
    with bar(f"{simulator}: building and running") as report:
        report(0, 1)
        if options.model is not None:
            return session.verify_model(
                options.model,
                options.recipe,
                arch,
                simulator=simulator,
                layers=options.layers,
                beats=options.beats,
                verilog=options.verilog,
                data=options.data,
            )
        if options.block == "requantize":
            name = f"requantizer of {arch.accumulator_bits} bits"
            return {name: session.verify_requantizer(arch, simulator=simulator, beats=options.beats)}
        return {
            f"chain of {arch.dsps} DSPs": session.verify_chain(
                arch,
                simulator=simulator,
                beats=options.beats,
                verilog=options.verilog,
                axis=options.axis,
                unisim=options.unisim,
            )
        }


def _replay(options: argparse.Namespace) -> int:
    from sparsefab.cli.output import print_json, print_table
    from sparsefab.sim.vectors import verify_vectors

    report = verify_vectors(options.vectors)
    rows = [
        {
            "configuration": c.configuration,
            "words": c.words,
            "mismatches": c.mismatches,
            "reference": c.reference_mismatches,
            "twin": c.twin_mismatches,
        }
        for c in report.configurations
    ]
    failed = report.mismatches
    if options.json:
        print_json({"block": "dsp48e2", "configurations": rows, "mismatches": failed, "passed": failed == 0})
    else:
        print_table(
            "DSP48E2 twin against vectors",
            ["configuration", "words", "mismatches"],
            [[row["configuration"], row["words"], row["mismatches"]] for row in rows],
            right=["configuration", "words", "mismatches"],
        )
        print(f"{len(rows)} configurations, {failed} mismatches")
    return 1 if failed else 0
