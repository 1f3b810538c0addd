"""`sparsefab bench encoder`: an encoder compiled to a plan, beside ONNX Runtime and DeepSparse on the same weights."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparsefab.kernels_cpu.bench_encoder import EncoderTable

__all__ = ["bench"]

PRECISIONS = ("int8", "fp32", "sparse int8")


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
    if options.json:
        print_json({**asdict(table), "geometric_means": _means(table)})
    else:
        _print(table)
    return 0


def _means(table: "EncoderTable") -> dict[str, float]:
    """By precision, the geometric mean of the fastest peer's time over ours, and the least."""
    from sparsefab.kernels_cpu.bench import geometric_mean

    found = {}
    for precision in PRECISIONS:
        if ratios := table.best(precision):
            found[precision], found[f"{precision}, least"] = geometric_mean(ratios), min(ratios)
    return found


def _print(table: "EncoderTable") -> None:
    from sparsefab.cli.output import print_table, si

    names = [peer.name for peer in table.rows[0].peers]
    rows = []
    for row in table.rows:
        peers = [f"{peer.us_per_token:.1f} ({peer.ratio:.2f}x)" for peer in row.peers]
        rows.append([row.sequence, row.batch, f"{row.us_per_token:.1f}", *peers, f"{si(row.buffer_bytes)}B"])
    print_table(f"{table.label}, int8 in 4x1 blocks, density {table.density:g}, {table.level}, {table.threads} "
                "thread(s): us a token, in brackets a peer's time over ours",
                ["sequence", "batch", "ours", *names, "buffers"], rows,
                right=["sequence", "batch", "ours", *names, "buffers"])  # fmt: skip
    for row in table.rows:
        if row.parts:
            print(f"  {row.sequence} x {row.batch}: "
                  + ", ".join(f"{part} {share:.0%}" for part, share in row.parts.items()))  # fmt: skip
    means = _means(table)
    for precision in PRECISIONS:
        if precision in means:
            print(f"against the fastest {precision} peer: geometric mean {means[precision]:.2f}x, "
                  f"least {means[f'{precision}, least']:.2f}x")  # fmt: skip
    print(f"packed in {si(table.pack_s, 's')}, first call {si(table.compile_s, 's')}; weights and tables "
          f"{si(table.weight_bytes)}B, ONNX files: "
          + ", ".join(f"{form} {si(size)}B" for form, size in table.graph_bytes.items()))  # fmt: skip
    print("resident memory as each was made: "
          + ", ".join(f"{name} {si(size)}B" for name, size in table.resident_bytes.items()))  # fmt: skip
    for name, reason in table.absent.items():
        print(f"  {name} is absent: {reason}")
