"""`sparsefab verify`: hold emitted Verilog to the bit-exact reference, in simulation.

Without MODEL: random beats that reach the corners, every N of N:16. With MODEL and --recipe: the model's own packed
weights and activations. Every set runs plain, with idles, with back-pressure, with both.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sparsefab.cli.emit import chain_arch
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
        choices=["chain", "requantize", "dsp48e2"],
        default="chain",
        help="chain (default), requantize, or dsp48e2 with --vectors",
    )
    parser.add_argument("--vectors", type=Path, metavar="FILE", help="an .npz of DSP48E2 stimuli and outputs to replay")
    parser.add_argument("--model", metavar="MODEL", help="use this model's weights; needs --recipe")
    parser.add_argument("--recipe", metavar="R", help="a built-in recipe or a TOML file")
    parser.add_argument("--layers", type=positive, default=2, metavar="N", help="layers of the model (default: 2)")
    parser.add_argument("--beats", type=positive, default=500, metavar="N", help="weight beats a set (default: 500)")
    parser.add_argument("--dsps", type=positive, metavar="L", help="DSPs in the chain (default: 64)")
    parser.add_argument("--arch", type=Path, metavar="FILE", help="chain parameters in TOML")
    parser.add_argument("--verilog", type=Path, metavar="FILE", help="Verilog under test, instead of a fresh emission")
    parser.add_argument("--axis", action="store_true", help="the chain with AXI4-Stream ports")
    parser.add_argument(
        "--unisim",
        type=Path,
        metavar="DIR",
        help="your copy of AMD's simulation library: simulate the vendor's primitives, in Icarus",
    )
    parser.add_argument("--simulator", choices=["verilator", "icarus", "both"], default="verilator")
    parser.add_argument("--data", type=Path, metavar="FILE", help="data of your own, for a model of your own")
    add_common(parser, seed=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Simulate and print a row a run; 1 on a mismatch."""
    from sparsefab.cli.output import print_json, print_table

    if options.block == "dsp48e2":
        return _replay(options)
    if options.unisim is not None:
        options.simulator = "icarus"  # the only one that takes the vendor's models
    if (options.model is None) != (options.recipe is None):
        raise ValueError("--model and --recipe go together")
    rows = []
    simulators: tuple[SimulatorName, ...] = (
        ("verilator", "icarus") if options.simulator == "both" else (options.simulator,)
    )
    for simulator in simulators:
        for what, report in _reports(options, simulator).items():
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
    if options.json:
        print_json({"block": options.block, "runs": rows, "mismatches": mismatches, "passed": mismatches == 0})
        return 1 if mismatches else 0
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
    print("FAILED: the Verilog disagrees with the reference" if mismatches else "passed: equal to the bit")
    for row in rows:
        if row["mismatches"]:
            print(f"  {row['what']}, {row['run']}, seed {row['seed']}: first difference {row['first']}")
    return 1 if mismatches else 0


def _reports(options: argparse.Namespace, simulator: "SimulatorName") -> "Mapping[str, VerifyReport]":
    from sparsefab.cli.output import bar
    from sparsefab.session import Session

    arch = chain_arch(options)
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
            return {"requantizer": session.verify_requantizer(simulator=simulator, beats=options.beats)}
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

    if options.vectors is None:
        raise ValueError("verify dsp48e2 needs --vectors FILE")
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
