"""`sparsefab report DIR`: write an exploration's report again from its points; `--compare A B`: two side by side."""

import argparse
from pathlib import Path

from sparsefab.cli.options import Verbs, add_common

__all__ = ["add_parser", "run"]


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("report", help="rebuild a report, or compare two", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="a folder that `sparsefab explore` wrote")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("A", "B"), help="two such folders of one model")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="of the comparison (default: A-B beside B)")
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Rebuild or compare, and print the files."""
    from sparsefab.cli.output import print_json
    from sparsefab.errors import ConfigError
    from sparsefab.reports.render.report import compare_reports, rebuild_report

    if (options.folder is None) == (options.compare is None):
        raise ConfigError("name one folder that `sparsefab explore` wrote, or two after --compare")
    if options.compare is None:
        files = rebuild_report(options.folder)
    else:
        first, second = options.compare
        files = compare_reports(first, second, options.out)
    if options.json:
        print_json({name: str(path) for name, path in files.items()})
        return 0
    if options.compare is not None:
        print(files["compare.md"].read_text())
    for path in files.values():
        print(path)
    return 0
