"""`sparsefab report DIR`: write an exploration's report again from its points."""

import argparse
from pathlib import Path

from sparsefab.cli.options import Verbs, add_common

__all__ = ["add_parser", "run"]


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("report", help="rebuild a report", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder that `sparsefab explore` wrote")
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Rebuild, and print the files."""
    from sparsefab.cli.output import print_json
    from sparsefab.reports.render.report import rebuild_report

    files = rebuild_report(options.folder)
    if options.json:
        print_json({name: str(path) for name, path in files.items()})
        return 0
    for path in files.values():
        print(path)
    return 0
