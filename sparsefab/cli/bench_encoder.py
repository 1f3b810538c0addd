"""`sparsefab bench encoder`: an encoder compiled to a plan, beside ONNX Runtime and DeepSparse on the same weights."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparsefab.kernels_cpu.bench_encoder import EncoderTable

__all__ = ["bench"]


def bench(options: argparse.Namespace) -> int:
    """Print a row a sequence length and batch; weights are the model's own where it is here, else random."""
    from sparsefab.cli.output import bar, print_json
    from sparsefab.kernels_cpu.bench_encoder import SHAPES, bench_encoder, random_encoder, sparse_encoder
    from sparsefab.session import Session

    session = Session(options.cache_dir, seed=options.seed)
    name = options.model or "minilm-l6"
    own = session.is_here(name)
    if not own and name not in SHAPES:
        session.source(name)  # says what is wrong with the name
    model = session.source(name).load() if own else random_encoder(name, options.seed)
    density = options.density[0] if options.density else 0.2
    with bar("timing, compiling on first use") as report:
        table = bench_encoder(
            sparse_encoder(model, density, options.seed),
            label=name if own else f"{name}, random weights",
            density=density, sequences=options.sequence or (32, 128, 384), batches=options.batch or (1, 8),
            threads=options.threads, rounds=options.rounds, seed=options.seed, progress=report,
            peers=[peer for peer in (options.peers or "onnxruntime").split(",") if peer != "none"],
            cache=options.cache_dir,
        )  # fmt: skip
    weights = "the model's own, pruned without training" if own else "random"
    if options.json:
        figures = [figure.to_json() for figure in table.figures()]
        print_json({**asdict(table), "weights": weights, "speed_only": True, "geometric_means": table.means(),
                    "figures": figures})  # fmt: skip
    else:
        _print(table, weights)
    return 0


def _print(table: "EncoderTable", weights: str) -> None:
    from sparsefab.cli.output import print_table, si

    names = [peer.name for peer in table.rows[0].peers]
    rows = []
    for row in table.rows:
        peers = [f"{peer.us_per_token:.1f} ({peer.ratio:.2f}x)" for peer in row.peers]
        rows.append([row.sequence, row.batch, f"{row.us_per_token:.1f}", *peers, f"{si(row.buffer_bytes)}B"])
    print_table(f"{table.label}, int8 in 4x1 blocks, density {table.density:g}, {table.level}, {table.threads} "
                f"thread(s): us a token of {table.clock}, in brackets a peer's time over ours",
                ["sequence", "batch", "ours", *names, "buffers"], rows,
                right=["sequence", "batch", "ours", *names, "buffers"])  # fmt: skip
    for row in table.rows:
        if row.parts:
            print(f"  {row.sequence} x {row.batch}: "
                  + ", ".join(f"{part} {share:.0%}" for part, share in row.parts.items()))  # fmt: skip
    print(f"speed only: weights are {weights}, scales those of random tokens")
    for figure in table.figures():
        print(f"  {figure}")
    print(f"weights and tables {si(table.weight_bytes)}B; ONNX files: "
          + ", ".join(f"{name} {si(size)}B" for name, size in table.graph_bytes.items()))  # fmt: skip
    if table.footprint is not None:
        taken = table.footprint
        grown = {"plan": taken.plan_resident_bytes, **taken.graph_resident_bytes}
        print(f"packed in {si(taken.pack_s, 's')}; by how much a process grew with the most tokens: "
              + ", ".join(f"{name} {si(size)}B" for name, size in grown.items()))  # fmt: skip
    for name, reason in table.absent.items():
        print(f"  {name} is absent: {reason}")
