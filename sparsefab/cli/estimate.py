"""`sparsefab estimate MODEL --target T`: what a model costs on a device, decode beside prefill.

With --vivado-report it reads Vivado's utilization and timing reports and prints them beside our estimate: of the block
that `sparsefab emit` wrote, whose manifest lies beside the reports, or of MODEL on an FPGA.
"""

import argparse
from pathlib import Path

from sparsefab.cli.options import Verbs, add_common, positive

__all__ = ["add_parser", "run"]

_NO_ESTIMATE = "no estimate: put the reports beside the manifest.json of `sparsefab emit`, or give MODEL and --target"


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("estimate", help="cost of a model on a target", description=__doc__)
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a model, a file, or a workload known by shape (llama2-7b, ...)"
    )
    parser.add_argument("--target", metavar="T", help="a device, a TOML file, or 'host'")
    parser.add_argument(
        "--vivado-report",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="report_utilization (flat or -hierarchical) and report_timing_summary of one design",
    )
    parser.add_argument("--recipe", metavar="R", help="a built-in recipe or a TOML file; absent: float weights")
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="sequences (default: 1)")
    parser.add_argument("--context", type=positive, default=128, metavar="N", help="tokens a sequence (default: 128)")
    parser.add_argument("--arch", type=Path, metavar="FILE", help="accelerator parameters in TOML, for FPGAs")
    parser.add_argument(
        "--kv",
        metavar="K",
        help="key/value cache: a format or gear, cskv, kvmerger, ems; with changes, as kvmerger,keep=0.35",
    )
    parser.add_argument("--resident-experts", type=_share, default=1.0, metavar="S",
                        help="share of routed experts in the device's memory (default: 1)")  # fmt: skip
    parser.add_argument("--measured", type=Path, metavar="FILE",
                        help="your own measured GPU products: an anchor file of `bench gpu`, or a table")  # fmt: skip
    parser.add_argument("--layers", action="store_true", help="show every layer")
    add_common(parser)
    parser.set_defaults(run=run)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"must lie in 0 to 1, not {text}")
    return value


def run(options: argparse.Namespace) -> int:
    """Print both phases, or a report of Vivado beside our estimate."""
    if options.vivado_report:
        return _vivado(options)
    if options.model is None or options.target is None:
        raise ValueError("estimate takes MODEL and --target, or --vivado-report")
    from sparsefab import config
    from sparsefab.arch import AcceleratorArch
    from sparsefab.cli.output import figure_text, print_json, print_table, si
    from sparsefab.cost_models.estimate import report_json
    from sparsefab.session import Session

    arch = None if options.arch is None else config.load(options.arch, AcceleratorArch)
    decode, prefill = Session(options.cache_dir).estimate(
        options.model, options.recipe, options.target, batch=options.batch, context=options.context, arch=arch,
        kv=options.kv, resident_experts=options.resident_experts, measured=options.measured,
    )  # fmt: skip
    if options.json:
        print_json(report_json(decode, prefill, layers=options.layers))
        return 0
    phases = [phase for phase in (decode, prefill) if phase is not None]
    rows = []
    for label, unit, name in (
        ("latency", "s", "latency_s"),
        ("throughput", "token/s", "throughput_tokens_per_s"),
        ("energy a token", "J", "energy_per_token_j"),
        ("power", "W", "power_w"),
        ("memory", "B", "memory_bytes"),
        ("price of 1M tokens", "USD", "price_per_million_tokens_usd"),
    ):
        cells = []
        for phase in phases:
            figure = getattr(phase, name)
            cells.append(figure_text(None if figure is None else figure.to_json(), unit))
        rows.append([label, *cells])
    for term in sorted({term for phase in phases for term in phase.terms_s}):
        rows.append([f"  busy: {term}", *(si(phase.terms_s.get(term), "s") for phase in phases)])
    rows.append(["provenance", *(phase.provenance.value for phase in phases)])
    title = (
        f"{options.model} on {options.target}, recipe {options.recipe or 'none'}, batch {options.batch}, context "
        f"{options.context}"
    )
    print_table(title, ["", *(phase.phase.kind for phase in phases)], rows)
    first = phases[0]
    if first.resources:
        print("resources: " + ", ".join(f"{name} {si(figure.value)}" for name, figure in first.resources.items()))
    if options.layers:
        print_table(
            "layers",
            ["layer", "kind", "support", "kernel", "latency", "bound", "note"],
            [
                [
                    layer.name,
                    layer.kind,
                    layer.support.value,
                    layer.kernel,
                    si(layer.latency_s.value, "s"),
                    layer.bound,
                    layer.note,
                ]
                for layer in first.layers
            ],
            right=["latency"],
        )
    for note in first.notes:
        print(f"  {note}")
    return 0


def _vivado(options: argparse.Namespace) -> int:
    from sparsefab import config
    from sparsefab.arch import AcceleratorArch
    from sparsefab.cli.output import print_json, print_table
    from sparsefab.session import Session

    if (options.model is None) != (options.target is None):
        raise ValueError("--vivado-report takes MODEL and --target together, or neither")
    arch = None if options.arch is None else config.load(options.arch, AcceleratorArch)
    found = (
        Session(options.cache_dir)
        .compare_vivado(
            options.vivado_report, model=options.model, recipe=options.recipe, target=options.target, arch=arch
        )
        .to_json()
    )
    if options.json:
        print_json(found)
        return 0

    def cells(row: dict[str, float | None], scale: float = 1.0) -> list[str]:
        sides = (row["vivado"], row["estimate"])
        ratio = row["ratio"]
        return [
            *("-" if side is None else f"{side / scale:,.1f}".removesuffix(".0") for side in sides),
            "-" if ratio is None else f"{ratio:.2f}",
        ]

    rows = [[name, *cells(row)] for name, row in found["resources"].items()]
    rows.append(["WNS, ns", "-" if found["wns_ns"] is None else f"{found['wns_ns']:g}", "-", "-"])
    rows.append(["fmax, MHz", *cells(found["fmax_hz"], 1e6)])
    title = f"{found['design']} on {found['part']}, {found['state'].lower()}, {found['tool']}"
    print_table(title, ["", "Vivado", "estimate", "Vivado / estimate"], rows, right=["Vivado", "estimate"])
    print(f"estimate: {found['estimate']}" if found["estimate"] else _NO_ESTIMATE)
    return 0
