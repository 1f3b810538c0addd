"""`sparsefab fetch NAME`: bring a model and the data of its metric into the cache."""

import argparse

from sparsefab.cli.options import Verbs, add_common

__all__ = ["add_parser", "run"]


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("fetch", help="bring a model into the cache", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="a name that `sparsefab models` lists")
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Fetch, verify, and print the folder with the hashes of what is in it."""
    from sparsefab.cli.output import bar, print_json
    from sparsefab.models.zoo import get, read_manifest
    from sparsefab.models.zoo.fetch import fetch

    entry = get(options.name)
    with bar(options.name) as report:
        folder = fetch(options.name, options.cache_dir, progress=lambda what, done, total: report(done, total))
    manifest: dict[str, object] = {} if entry.embedded else read_manifest(folder)
    if options.json:
        print_json({"name": entry.name, "folder": str(folder), "embedded": entry.embedded, "manifest": manifest})
        return 0
    print(folder)
    files = manifest.get("files")
    if isinstance(files, dict):
        for name, facts in sorted(files.items()):
            print(f"  {facts['sha256']}  {name}")
    return 0
