"""`sparsefab compress MODEL --recipe R -o DIR`: pack a model's weights and write them for others to read."""

import argparse
from pathlib import Path

from sparsefab.cli.options import Verbs, add_common

__all__ = ["add_parser", "run"]


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("compress", help="compress a model by a recipe", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="a name that `sparsefab models` lists, or a file")
    parser.add_argument("--recipe", required=True, metavar="R", help="a built-in recipe or a TOML file")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="DIR",
        help="write weights.safetensors, model.onnx (QDQ), recipe.toml and manifest.json",
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="data of your own to calibrate activations with")
    add_common(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compress, print a row a layer, and write the files if asked."""
    from sparsefab.cli.output import bar, print_json, print_table, si
    from sparsefab.formats import pack, storage_layout
    from sparsefab.session import Session

    session = Session(options.cache_dir)
    source = session.source(options.model)
    model = source.load()
    with bar("compressing") as report:
        total, done = len(model.weights), iter(range(1, len(model.weights) + 1))
        compressed = session.compress(model, options.recipe, lambda name: report(next(done), total))
    if options.out is not None:
        compressed = session.calibrate(compressed, source, options.data)
    layers = []
    for name, layer in compressed.layers.items():
        packed = pack(layer.tensor, storage_layout(layer.tensor.spec))
        layers.append(
            {
                "layer": name,
                "shape": list(layer.tensor.shape),
                "format": layer.tensor.spec.name,
                "layout": packed.layout.name,
                "nbytes": packed.nbytes,
                "sections": {section: part.nbytes for section, part in packed.sections.items()},
                "bits_per_weight": packed.bits_per_weight,
                "density": layer.tensor.spec.density,
                "activations": layer.activations.name,
                "relative_error": layer.relative_error,
                "scale_loss": layer.scale_loss,
            }
        )
    total_bytes = sum(int(str(layer["nbytes"])) for layer in layers)
    weights = sum(tensor.size for name, tensor in model.weights.items() if name in compressed.layers)
    result: dict[str, object] = {
        "model": source.name,
        "recipe": compressed.recipe.name,
        "layers": layers,
        "nbytes": total_bytes,
        "bits_per_weight": total_bytes * 8 / weights if weights else None,
        "notes": [list(note) for note in compressed.notes],
    }
    if options.out is not None:
        result["files"] = {name: str(path) for name, path in session.export(compressed, source, options.out).items()}
    if options.json:
        print_json(result)
        return 0
    print_table(
        f"{source.name}, recipe {compressed.recipe.name}",
        ["layer", "shape", "format", "layout", "size", "bits/weight", "error"],
        [
            [
                row["layer"],
                "x".join(map(str, layer.tensor.shape)),
                row["format"],
                row["layout"],
                si(float(str(row["nbytes"])), "B"),
                f"{float(str(row['bits_per_weight'])):.2f}",
                f"{layer.relative_error:.4f}",
            ]
            for row, layer in zip(layers, compressed.layers.values(), strict=True)
        ],
        right=["size", "bits/weight", "error"],
    )
    print(f"{len(layers)} layers, {si(float(total_bytes), 'B')}, metadata and scales included")
    for name, note in compressed.notes:
        print(f"  {name}: {note}")
    files = result.get("files")
    if isinstance(files, dict):
        for path in files.values():
            print(path)
    return 0
