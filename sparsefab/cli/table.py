"""`sparsefab table`: synthesize one MAC of every number format, fit its LUTs, and draw them."""

import argparse
from pathlib import Path

from sparsefab.cli.options import Verbs, add_common, positive

__all__ = ["add_parser", "run"]


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("table", help="LUTs of a MAC in every format", description=__doc__)
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help="default: every number format of the catalogue")
    parser.add_argument("--jobs", type=positive, default=2, metavar="N", help="Yosys processes (default: 2)")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("build/mac-table"), metavar="DIR",
        help="for mac_table.csv, mac_fit.json, mac_luts.svg and .png; a later run resumes (default: build/mac-table)",
    )  # fmt: skip
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Make the table, and with every format the fit and the picture."""
    import io
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from sparsefab.cli.output import print_json
    from sparsefab.cost_models.mac_luts import fit_macs, read_samples
    from sparsefab.cost_models.mac_picture import draw_macs
    from sparsefab.formats import get_format
    from sparsefab.hw.mac_table import make_table, table_archs, table_formats
    from sparsefab.storage import make_folder, write_atomic

    names = [get_format(name).name for name in options.formats] or table_formats()
    make_folder(options.out)
    path = options.out / "mac_table.csv"
    with Progress(console=Console(stderr=True), disable=options.json) as progress:
        task = progress.add_task("synthesizing", total=None)
        rows = make_table(
            table_archs(names),
            path=path,
            jobs=options.jobs,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    fits = {}
    if not options.formats:
        samples = read_samples(path.read_text())
        fits = fit_macs(samples)
        write_atomic(
            options.out / "mac_fit.json",
            (json.dumps({name: asdict(fit) for name, fit in fits.items()}, indent=2) + "\n").encode(),
        )
        figure = draw_macs(samples)
        for suffix in ("svg", "png"):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, dpi=200, metadata={"Date": None} if suffix == "svg" else None)
            write_atomic(options.out / f"mac_luts.{suffix}", buffer.getvalue())
    if options.json:
        print_json({"rows": [asdict(row) for row in rows], "fits": {name: asdict(fit) for name, fit in fits.items()}})
        return 0
    table = Table("format", "multiplier", "out", "accumulator", "LUT", "FF", "CARRY4", "DSP", "LUT levels")
    for row in rows:
        out = row.format if row.converted else "exact"
        cells = (row.accumulator_bits, row.lut, row.ff, row.carry4, row.dsp, row.lut_levels)
        table.add_row(row.format, row.multiplier, out, *map(str, cells))
    Console().print(table)
    for fit in fits.values():
        print(
            f"{fit.name}: mean error {fit.mean_error:.1%}, worst {fit.worst_error:.1%} ({fit.worst_format}); "
            + ", ".join(f"{name} {value:.3g}" for name, value in fit.coefficients.items() if value)
        )
    print(path)
    return 0
