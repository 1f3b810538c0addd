"""`sparsefab validate [PART]`: how wrong the cost models are, on what they were not fitted to.

Each row is a figure with the goal it is held to. --measured FILE judges your own measurements of the shipped form.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sparsefab.cli.options import Verbs, add_common

if TYPE_CHECKING:
    from sparsefab.cost_models.validate_rows import Row

__all__ = ["add_parser", "run"]


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("validate", help="error and coverage of the cost models", description=__doc__)
    parser.add_argument("part", nargs="?", metavar="PART",
                        help="products, attention, marlin, torch, power, fpga, cpu, speed (default: all)")  # fmt: skip
    parser.add_argument(
        "--measured",
        type=Path,
        metavar="FILE",
        help="your own measured products: a table, or an anchor file of `bench gpu`",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="write pictures there, as SVG and PNG")
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print a row a figure; 1 if a goal is missed."""
    from sparsefab.cli.output import bar, print_json, print_table
    from sparsefab.cost_models.validate import validate
    from sparsefab.reports.speed import validate_speed
    from sparsefab.session import Session

    rows = []
    if options.part != "speed":
        rows += validate(options.part, options.measured, Session(options.cache_dir).measured_host())
    if options.measured is None and options.part in (None, "speed"):
        with bar("timing a sweep and its report"):
            rows += validate_speed()
    pictures = []
    if options.output is not None:
        from sparsefab.cost_models.pictures import write_pictures

        pictures = write_pictures(rows, options.output)
    missed = [row for row in rows if not row.passed]
    if options.json:
        print_json({"rows": [row.to_json() for row in rows], "passed": not missed,
                    "pictures": [str(path) for path in pictures]})  # fmt: skip
        return 1 if missed else 0
    table = [
        [row.part, row.name, row.metric, "-" if row.value is None else f"{row.value:.3g}",
         row.goal_text, row.samples, _verdict(row)]
        for row in rows
    ]  # fmt: skip
    columns = ["part", "what", "metric", "value", "goal", "samples", ""]
    print_table("Cost models against measurements", columns, table, right=["value", "goal", "samples"])
    print(f"{len(rows)} figures, {len(missed)} goals missed")
    for path in pictures:
        print(f"  {path}")
    return 1 if missed else 0


def _verdict(row: "Row") -> str:
    if row.value is None:
        return "not measured here"
    return "" if row.passed else "MISSED"
