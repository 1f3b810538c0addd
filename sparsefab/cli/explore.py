"""`sparsefab explore MODEL`: judge recipes, price them, draw the fronts, emit and verify the best FPGA point.

The output folder keeps everything that is finished: the same command goes on where a killed one ended.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sparsefab.cli.options import Verbs, add_common, add_data, positive
from sparsefab.workload import DEFAULT_CONTEXT

if TYPE_CHECKING:
    from sparsefab.reports.points import Point
    from sparsefab.session import Explored, Session

__all__ = ["add_parser", "run"]


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("explore", help="recipes x targets, Pareto fronts and report", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="a name that `sparsefab models` lists, or a file with --data")
    parser.add_argument(
        "--recipe",
        action="append",
        metavar="R",
        dest="recipes",
        help="a built-in recipe or a TOML file; repeat for more (default: all built-in ones)",
    )
    parser.add_argument(
        "--space",
        type=Path,
        metavar="FILE",
        help="a TOML file of recipes, accelerators, targets, batches, contexts, objectives, limits and the search",
    )
    parser.add_argument("--budget", type=positive, metavar="N", help="judge at most N recipes (trials of a search)")
    parser.add_argument(
        "--target",
        action="append",
        metavar="T",
        dest="targets",
        help="a device, a TOML file, or 'host'; repeat for more (default: u280, host, h200)",
    )
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="sequences (default: 1)")
    parser.add_argument(
        "--cost-context",
        type=positive,
        default=DEFAULT_CONTEXT,
        metavar="N",
        help="tokens a sequence that costs are for (default: %(default)s)",
    )
    parser.add_argument("--workers", type=positive, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="a Dask scheduler, tcp://host:port, in place of processes"
    )
    parser.add_argument("--no-verify", action="store_true", help="emit the best FPGA point, but do not simulate it")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="default: runs/MODEL")
    add_data(parser)
    add_common(parser, seed=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Explore, report, emit, verify; 1 if the Verilog fails."""
    import sys

    from rich.console import Console

    from sparsefab.cli.output import print_json
    from sparsefab.models.evaluate import Slice
    from sparsefab.reports.progress import progress_bar
    from sparsefab.session import Session

    session = Session(options.cache_dir, options.seed)
    out = options.out or Path("runs") / Path(options.model).stem
    given = Slice(windows=options.windows, context=options.context, samples=options.samples)
    part = None if given == Slice() else given
    with progress_bar(Console(stderr=True)) as progress:
        explored = session.explore(
            options.model,
            out=out,
            recipes=options.recipes,
            space=options.space,
            budget=options.budget,
            targets=options.targets,
            batch=options.batch,
            context=options.cost_context,
            screen=part,
            full=part,
            data=options.data,
            workers=options.workers,
            scheduler=options.scheduler,
            command=["sparsefab", *sys.argv[1:]],
            progress=progress,
        )
    emitted = _emit_best(session, explored, options, out)
    passed = emitted is None or emitted["verified"] is not False
    if options.json:
        rows = explored.frame.astype(object).where(explored.frame.notna(), None).to_dict("records")
        print_json(
            {
                "out": str(out),
                "points": rows,
                "emitted": emitted,
                "files": {name: str(path) for name, path in explored.files.items()},
            }
        )
    else:
        _print_fronts(explored)
        _print_emitted(emitted)
        for name in ("report.html", "pareto.svg", "points.csv", "summary.md"):
            if name in explored.files:
                print(explored.files[name])
    if not any(point.status == "ok" for point in explored.points):
        return 1
    return 0 if passed else 1


def _print_fronts(explored: "Explored") -> None:
    from sparsefab.cli.output import print_table, si
    from sparsefab.reports.pareto import standings

    ranked = standings(explored.points, explored.run.objectives, explored.run.limits)
    places = [place for place in ranked if place.on_front]
    rows = []
    for place in sorted(places, key=lambda place: (place.point.phase, place.point.target, _latency(place.point))):
        point = place.point
        loss = point.delta
        rows.append(
            [
                point.phase,
                point.target,
                point.recipe,
                f"{point.accuracy.value:.4f}" if point.accuracy else "-",
                f"{loss.value:+.4f} [{loss.low:+.4f}, {loss.high:+.4f}]" if loss else "-",
                si(_latency(point), "s"),
                si(point.energy_per_token_j.value, "J") if point.energy_per_token_j else "-",
                f"{point.bits_per_weight:.2f}" if point.bits_per_weight else "-",
                point.provenance,
            ]
        )
    metric = next((point.metric for point in explored.points if point.metric), "")
    print_table(
        f"Pareto fronts: {metric + ', ' if metric else ''}{' against '.join(explored.run.objectives)}",
        ["phase", "target", "recipe", "value", "delta (95 %)", "latency", "energy/token", "bits/weight", "costs are"],
        rows,
        right=["value", "latency", "energy/token", "bits/weight"],
    )
    failed = [point for point in explored.points if point.status == "failed"]
    for point in failed[:5]:
        print(f"  failed: {point.recipe} on {point.target}: {point.reason}")
    absent = {(point.recipe, point.target) for point in explored.points if point.status == "absent"}
    if absent:
        print(f"  {len(absent)} recipe-target pairs are not possible; the report says why")


def _latency(point: "Point") -> float:
    return point.latency_s.value if point.latency_s else float("inf")


def _emit_best(
    session: "Session", explored: "Explored", options: argparse.Namespace, out: Path
) -> dict[str, object] | None:
    """Emit the chain of the best FPGA point and run the model's own layers through it."""
    import logging

    from sparsefab.cli.output import bar
    from sparsefab.errors import MissingToolError
    from sparsefab.models.compress.recipe import recipe_from_text
    from sparsefab.reports.space import accelerator

    point = explored.best_on("fpga")
    if point is None:
        return None
    device, _ = session.target(point.target)
    chain = accelerator(device, point.arch).chain
    manifest = session.emit(out / "verilog", chain, primitives="vendor")
    twin = session.emit(out / "verilog", chain, primitives="behavioural")
    result: dict[str, object] = {
        "recipe": point.recipe,
        "target": point.target,
        "verilog": str(manifest.verilog),
        "simulated": str(twin.verilog),
        "verified": None,
        "layers": {},
        "note": "",
    }
    if options.no_verify or point.metric is None:
        result["note"] = f"not simulated: {'--no-verify' if options.no_verify else 'no weights'}"
        return result
    try:
        with bar("verifying the Verilog") as report:
            report(0, 1)
            reports = session.verify_model(
                options.model, recipe_from_text(point.recipe_text), chain, data=options.data, verilog=twin.verilog
            )
    except MissingToolError as error:
        logging.getLogger(__name__).warning("the Verilog was not simulated: %s", error)
        result["note"] = f"not simulated: {error}"
        return result
    result["layers"] = {
        name: {"beats": r.checks, "mismatches": r.mismatches, "cycles": r.cycles} for name, r in reports.items()
    }
    result["verified"] = bool(reports) and all(r.mismatches == 0 for r in reports.values())
    return result


def _print_emitted(emitted: dict[str, object] | None) -> None:
    if emitted is None:
        print("no recipe runs on an FPGA target: no Verilog was emitted")
        return
    print(f"best FPGA point: {emitted['recipe']} on {emitted['target']}; one chain of its accelerator:")
    print(f"  {emitted['verilog']}")
    layers = emitted["layers"]
    if isinstance(layers, dict) and layers:
        beats = sum(layer["beats"] for layer in layers.values())
        verdict = "equal to the reference, bit by bit" if emitted["verified"] else "DIFFERS from the reference"
        print(f"  {', '.join(layers)}: {beats} beats of the model's own weights, {verdict};")
        print(f"  simulated with behavioural twins of the vendor's primitives: {emitted['simulated']}")
    elif emitted["note"]:
        print(f"  {emitted['note']}")
