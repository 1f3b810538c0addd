"""`sparsefab run MODEL --on cpu`: a compressed model on this machine's kernels, what it says and how fast."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sparsefab.cli.options import Verbs, add_common, positive

if TYPE_CHECKING:
    from sparsefab.session import Ran

__all__ = ["add_parser", "run"]

_HOW = (
    "activations are quantized in NumPy, where the float operators and the layers without a kernel run too",
    "each token evaluates its whole window anew: there is no cache of keys and values",
)


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("run", help="run a compressed model on this machine", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="a name that `sparsefab models` lists, or a file")
    parser.add_argument("--on", choices=["cpu"], default="cpu", help="where to run (default: cpu)")
    parser.add_argument("--recipe", default="w8", metavar="R", help="a built-in recipe or a TOML file (default: w8)")
    parser.add_argument(
        "--prompt", metavar="TEXT", help="text to continue (default: the beginning of the evaluation data)"
    )
    parser.add_argument("--tokens", type=positive, default=64, metavar="N", help="tokens to add (default: 64)")
    parser.add_argument("--samples", type=positive, metavar="N", help="images or documents (default: all)")
    parser.add_argument("--data", type=Path, metavar="FILE", help="your own data, as `sparsefab evaluate` takes it")
    parser.add_argument("--threads", type=positive, default=1, metavar="T", help="for large products (default: 1)")
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare every output with the bit-true evaluation, and a plan's with ONNX Runtime; 1 if one differs",
    )
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the text or the metric, the speed, and which kernel serves each layer; 1 if a compared output differs."""
    from sparsefab.cli.output import bar, print_json
    from sparsefab.session import Session

    with bar("running") as report:
        ran = Session(options.cache_dir).run(
            options.model, options.recipe, prompt=options.prompt, tokens=options.tokens, samples=options.samples,
            data=options.data, threads=options.threads, check=options.check, progress=report,
        )  # fmt: skip
    if options.json:
        print_json(_as_json(options.model, options.threads, ran))
    else:
        _print(options.model, options.threads, ran)
    return 1 if ran.report.differing or (ran.runtime is not None and not ran.runtime.holds) else 0


def _how(ran: "Ran") -> tuple[str, ...]:
    if ran.report.planned and ran.unit == "token":
        return ("the prompt is read in buckets, then token by token against a cache of keys and values",)
    if ran.report.planned:
        return ("the encoder runs as a whole, in one compiled call",)
    reason = f"it runs layer by layer: {ran.why_no_plan}"
    return (reason, *(_HOW if ran.unit == "token" else _HOW[:1]))


def _kernels(ran: "Ran") -> dict[str, str]:
    """The kernel of every weight layer, those that the recipe leaves alone included."""
    served = ran.report.kernels
    return {name: served.get(name, "none: the recipe leaves it in float32") for name in ran.compressed.model.weights}


def _as_json(model: str, threads: int, ran: "Ran") -> dict[str, object]:
    report = ran.report
    return {
        "model": model,
        "recipe": ran.compressed.recipe.name,
        "unit": ran.unit,
        "items": report.items,
        "items_per_s": 1 / report.seconds_per_item,
        "threads": threads,
        "layers_share": report.layers_share,
        "prompt": ran.prompt,
        "text": ran.text,
        "metric": ran.metric,
        "value": ran.value,
        "compared": report.compared,
        "differing": report.differing,
        "agrees": not report.differing if report.compared else None,
        "how": list(_how(ran)),
        "planned": report.planned,
        "seconds_per_token": report.seconds_per_token or None,
        "parts": dict(report.parts),
        "weight_bytes": report.weight_bytes or None,
        "buffer_bytes": report.buffer_bytes or None,
        "resident_bytes": report.resident_bytes or None,
        "prompt_tokens": report.prompt_tokens or None,
        "prompt_tokens_per_s": report.prompt_tokens / report.prompt_seconds if report.prompt_seconds else None,
        "prepare_s": report.prepare_s,
        "bound": report.bound,
        "other_choices": report.other_choices,
        "onnxruntime": None if ran.runtime is None else asdict(ran.runtime) | {"holds": ran.runtime.holds},
        "why_no_onnxruntime": ran.why_no_runtime or None,
        "kernels": _kernels(ran),
    }


def _print(model: str, threads: int, ran: "Ran") -> None:
    from sparsefab.cli.output import print_table, si

    report, layers = ran.report, ran.compressed.layers
    if ran.unit == "token":
        print(f"{ran.prompt}|{ran.text}")
    rows = []
    for name, kernel in _kernels(ran).items():
        spec = layers[name].tensor.spec if name in layers else None
        rows.append([name, "x".join(map(str, ran.compressed.model.weights[name].shape)),
                     "float32" if spec is None else spec.name, kernel])  # fmt: skip
    print_table(f"{model}, recipe {ran.compressed.recipe.name}: which kernel runs each layer",
                ["layer", "shape", "weights", "kernel"], rows, right=["shape"])  # fmt: skip
    if ran.value is not None:
        print(f"{ran.metric} {ran.value:.4f} over {report.items} samples")
    share = f"; {report.layers_share:.0%} of the time in weight layers" if report.layers_share else ""
    print(f"{1 / report.seconds_per_item:.3g} {ran.unit}s/s ({si(report.seconds_per_item, 's')} each, median over "
          f"{report.items}), {threads} thread(s){share}")  # fmt: skip
    if report.prompt_tokens:
        print(
            f"  {report.prompt_tokens} tokens of prompt at {report.prompt_tokens / report.prompt_seconds:.3g} tokens/s"
        )
    print(f"  first calls, which compile kernels or load them from disk: {si(report.prepare_s, 's')}")
    for line in _how(ran):
        print(f"  {line}")
    if report.planned:
        each = f"{si(report.seconds_per_token, 's')} a token; " if report.seconds_per_token else ""
        print(f"  {each}weights and tables {si(report.weight_bytes)}B, buffers {si(report.buffer_bytes)}B, "
              f"in all {si(report.resident_bytes)}B resident")  # fmt: skip
    if report.parts:
        print("  where the time goes: " + ", ".join(f"{name} {share:.0%}" for name, share in report.parts.items()))
    if report.compared:
        within = f" by more than {report.bound:.0%} of a token's range" if report.bound else ""
        print(f"against the bit-true evaluation: {report.compared} outputs, {report.differing} differ{within}")
        if report.other_choices:
            print(
                f"  {report.other_choices} of {report.items} tokens would be others there: a code rounded the other way"
            )
    if ran.runtime is not None:
        other = ran.runtime
        print(f"against ONNX Runtime {other.version} on the same quantized weights: {other.compared} outputs, "
              f"{other.differing} further off than {other.bound:.0%} of {other.of}; the farthest {other.farthest:.2g}, "
              f"the median {other.median:.2g} of it (at most {other.usual:.2g})")  # fmt: skip
    if ran.why_no_runtime:
        print(f"not compared with ONNX Runtime: {ran.why_no_runtime}")
