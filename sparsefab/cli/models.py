"""`sparsefab models`: the models that are known by name."""

import argparse

from sparsefab.cli.options import Verbs, add_common

__all__ = ["add_parser", "run"]


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("models", help="list the models known by name", description=__doc__)
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print size, licence, task and metric of every model."""
    from sparsefab.cli.output import print_json, print_table, si
    from sparsefab.errors import ModelError
    from sparsefab.models.zoo import entries, locate

    rows = []
    for entry in entries():
        try:
            where = "embedded" if entry.embedded else str(locate(entry.name, options.cache_dir))
        except ModelError:
            where = f"sparsefab fetch {entry.name}"
        rows.append(
            {
                "name": entry.name,
                "task": entry.task,
                "metric": entry.metric,
                "size_bytes": entry.size_bytes,
                "licence": entry.licence,
                "source": entry.source,
                "baseline": entry.baseline,
                "description": entry.description,
                "note": entry.note,
                "where": where,
            }
        )
    if options.json:
        print_json(rows)
        return 0
    print_table(
        "Models",
        ["name", "task", "metric", "size", "licence", "source", "where"],
        [
            [
                r["name"],
                r["task"],
                r["metric"],
                si(float(str(r["size_bytes"])), "B"),
                r["licence"],
                r["source"],
                r["where"],
            ]
            for r in rows
        ],
        right=["size"],
    )
    return 0
