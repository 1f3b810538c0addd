"""`sparsefab evaluate MODEL --recipe R`: accuracy in the hardware's arithmetic, against the float baseline."""

import argparse
from typing import TYPE_CHECKING

from sparsefab.cli.options import Verbs, add_common, add_data, natural

if TYPE_CHECKING:
    from sparsefab.models.evaluate import Figure

__all__ = ["add_parser", "run"]


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("evaluate", help="judge a recipe bit-true", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="a name that `sparsefab models` lists, or a file with --data")
    parser.add_argument("--recipe", required=True, metavar="R", help="a built-in recipe or a TOML file")
    parser.add_argument(
        "--check",
        type=natural,
        default=2,
        metavar="N",
        help="tokens of each layer that are recomputed by the reference (default: 2, 0: none)",
    )
    add_data(parser)
    add_common(parser, seed=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the metric, its delta and the agreement; 1 if a layer disagrees with the reference."""
    from sparsefab.cli.output import bar, print_json, print_table
    from sparsefab.models.evaluate import Slice
    from sparsefab.session import Session

    part = Slice(windows=options.windows, context=options.context, samples=options.samples)
    with bar("baseline, then recipe") as report:
        result = Session(options.cache_dir, options.seed).evaluate(
            options.model, options.recipe, part, options.data, options.check, report
        )
    evaluation, checked = result.evaluation, result.agreement
    mismatches = sum(layer.mismatches for layer in checked)
    if options.json:
        print_json(
            {
                "model": options.model,
                "recipe": result.compressed.recipe.name,
                **evaluation.to_json(),
                "agreement": [
                    {
                        "layer": a.layer,
                        "layout": a.layout,
                        "outputs": a.outputs,
                        "mismatches": a.mismatches,
                        "accumulator_bits": a.accumulator_bits,
                    }
                    for a in checked
                ],
                "agrees": mismatches == 0 if checked else None,
            }
        )
        return 1 if mismatches else 0
    protocol = evaluation.protocol
    rows = [
        [name, f"{figure.value:.4f}", _interval(figure)]
        for name, figure in (
            ("baseline", evaluation.baseline),
            ("compressed", evaluation.compressed),
            ("delta", evaluation.delta),
        )
    ]
    print_table(
        f"{options.model}, recipe {result.compressed.recipe.name}: {evaluation.metric}",
        ["", "value", "95 % interval"],
        rows,
        right=["value"],
    )
    print(
        f"{protocol.samples} samples of {protocol.data} (sha256 {protocol.data_sha256[:12]}), context "
        f"{protocol.context or '-'}; {protocol.note}".rstrip("; ")
    )
    print(evaluation.arithmetic)
    for name, note in evaluation.notes:
        print(f"  {name}: {note}")
    if checked:
        outputs = sum(layer.outputs for layer in checked)
        widest = max(layer.accumulator_bits for layer in checked)
        print(
            f"{len(checked)} layers against the reference: {outputs} outputs, {mismatches} differ; accumulators of "
            f"up to {widest} bits"
        )
    return 1 if mismatches else 0


def _interval(figure: "Figure") -> str:
    if figure.low is None or figure.high is None:
        return "too few samples"
    return f"{figure.low:.4f} .. {figure.high:.4f}"
