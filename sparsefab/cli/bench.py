"""`sparsefab bench cpu`: the CPU kernels against this machine's peaks and against other libraries, in one run.

`bench cpu --calibrate` times them for the cost models' target 'host'; `bench gpu` times a CUDA device's products,
decode attention and power into an anchor file for `estimate --measured` and `validate --measured`; `bench encoder`
times a whole encoder, compiled to a plan, beside other runtimes.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from sparsefab.cli.options import Verbs, add_common, positive

__all__ = ["add_parser", "run"]


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("bench", help="time the CPU kernels, or a GPU's products", description=__doc__)
    parser.add_argument("device", choices=["cpu", "gpu", "encoder"], help="what to time")
    parser.add_argument("--shape", action="append", type=_shape, metavar="OUTxIN", help="repeat for more")
    parser.add_argument("--density", action="append", type=float, metavar="D", help="stored share; repeat for more")
    parser.add_argument("--tokens", action="append", type=positive, metavar="N", help="repeat for more (default: 128)")
    parser.add_argument(
        "--pattern",
        action="append",
        metavar="P",
        help="4x1, 4x4, dense, 2:4; 4x1-fp16; int4g32, uint3g64, int4g16@0.5, int3g64+outliers; repeat for more",
    )
    parser.add_argument("--threads", type=positive, default=1, metavar="T", help="default: 1")
    parser.add_argument(
        "--level", metavar="L", help="cpu: instructions of our int8 products, as avx512-vnni (default: the best here)"
    )
    parser.add_argument(
        "--peers", default="", metavar="A,B", help="to time beside ours: onnxruntime, torch, scipy, deepsparse, intel"
    )
    parser.add_argument("--rounds", type=positive, default=31, metavar="N", help="turns of each (default: 31)")
    parser.add_argument("--model", metavar="M", help="encoder: a known encoder or a shape (default: minilm-l6)")
    parser.add_argument(
        "--sequence", action="append", type=positive, metavar="N", help="encoder: tokens a sequence; repeat for more"
    )
    parser.add_argument("--batch", action="append", type=positive, metavar="B", help="encoder: repeat for more")
    parser.add_argument("--calibrate", action="store_true", help="time the kernels for the cost models' target 'host'")
    parser.add_argument("--seconds", type=positive, default=20, metavar="S", help="to spend on it (default: 20)")
    parser.add_argument("--target", metavar="T", help="gpu: its device or TOML file (default: by the name it gives)")
    parser.add_argument(
        "--sides", type=positive, default=60, metavar="N", help="gpu: pairs (n, k) to time (default: 60)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="cpu: a roofline picture (svg, png); gpu: the anchor file (default: DEVICE.json)",
    )
    add_common(parser, seed=True)
    parser.set_defaults(run=run)


def _shape(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not OUTxIN, as in 768x3072")
    return int(parts[0]), int(parts[1])


def run(options: argparse.Namespace) -> int:
    """Time what was asked for."""
    if options.device == "gpu":
        return _gpu(options)
    if options.device == "encoder":
        from sparsefab.cli.bench_encoder import bench

        return bench(options)
    return _calibrate(options) if options.calibrate else _table(options)


def _gpu(options: argparse.Namespace) -> int:
    """Time this machine's CUDA device, fit, and write the anchor file and the tables that it was fitted to."""
    from datetime import UTC, datetime

    from sparsefab.cli.output import bar, print_json
    from sparsefab.cost_models.cuda import open_cuda
    from sparsefab.cost_models.measure_gpu import (
        guess_device,
        measure_attention,
        measure_power,
        measure_products,
        plan_attention,
        plan_products,
    )
    from sparsefab.cost_models.validate import validate
    from sparsefab.errors import TargetError
    from sparsefab.targets import load_device

    cuda = open_cuda()
    try:
        from sparsefab.cost_models.calibrate import write_measured
    except ImportError as error:
        raise TargetError("bench gpu fits with SciPy, which is not installed: pip install scipy") from error
    import pandas as pd

    device = guess_device(cuda.name) if options.target is None else load_device(options.target)
    path = options.output or Path(f"{device.name}.json")
    tables, files, power = {}, {}, list[dict[str, object]]()
    with bar(f"timing {cuda.name}") as report:
        for name, measure in (
            ("products", lambda: measure_products(cuda, device, plan_products(options.sides, options.seed), report)),
            (
                "attention",
                lambda: measure_attention(cuda, device, plan_attention(4 * options.sides, options.seed), report),
            ),
            ("power", lambda: measure_power(cuda, device, report)),
        ):
            if rows := measure():  # each is written before the next is timed
                tables[name], files[name] = pd.DataFrame(rows), path.with_name(f"{path.stem}-{name}.csv")
                tables[name].to_csv(files[name], index=False)
                if name == "power":
                    power = rows
    write_measured(
        path, tables["products"], tables.get("attention"), power,
        source=f"measured on {cuda.name}, {cuda.versions}", licence="the user's own",
        date=datetime.now(UTC).date().isoformat(),
    )  # fmt: skip
    judged = validate(measured=path)
    counts = {name: len(table) for name, table in tables.items()}
    if options.json:
        print_json({"file": str(path), "tables": {name: str(file) for name, file in files.items()}, "samples": counts,
                    "missing": cuda.missing, "rows": [row.to_json() for row in judged]})  # fmt: skip
        return 0
    print(f"{', '.join(f'{count} of {name}' for name, count in counts.items())} timed on {cuda.name} into {path}")
    for row in judged:
        value = "-" if row.value is None else f"{row.value:.3g}"
        print(f"  {row.name}: {row.metric} on {row.samples} held out: {value}")
    for name, reason in cuda.missing.items():
        print(f"  no kernel {name} here: {reason}")
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    """Time the kernels into this machine's file, and print how well their fit predicts matrices it has not seen."""
    from sparsefab.cli.output import bar, print_json
    from sparsefab.cost_models.validate_cpu import validate_cpu
    from sparsefab.session import Session
    from sparsefab.targets import load_cpu_measurements

    with bar("timing, compiling on first use") as report:
        path = Session(options.cache_dir, seed=options.seed).host_measurements(
            options.seconds, report, level=options.level
        )
    measured = load_cpu_measurements(path)
    rows = validate_cpu(measured)
    if options.json:
        print_json({"file": str(path), "samples": len(measured.kernels), "rows": [row.to_json() for row in rows]})
        return 0
    print(f"{len(measured.kernels)} kernels timed on {measured.name}, kept in {path}")
    for row in rows:
        reached = row.note if row.value is None else f"{row.value:.3g}"
        print(f"  {row.name}: {row.metric} on {row.samples} held-out samples: {reached}")
    return 0


def _table(options: argparse.Namespace) -> int:
    """Print the peaks and a row a product."""
    from sparsefab.cli.output import bar, print_json, print_table, si
    from sparsefab.kernels_cpu.bench import BENCH_DENSITIES, BENCH_SHAPES, bench, geometric_mean
    from sparsefab.kernels_cpu.bench_half import HALF_PATTERN, bench_halves
    from sparsefab.kernels_cpu.bench_pairs import bench_pairs
    from sparsefab.kernels_cpu.bench_stream import STREAM_TOKENS, bench_stream, is_weight_only
    from sparsefab.kernels_cpu.features import level_named
    from sparsefab.kernels_cpu.peer_processes import PROCESS_PEERS
    from sparsefab.kernels_cpu.product_figures import product_figures
    from sparsefab.kernels_cpu.roofline import draw_roofline

    patterns, tokens = options.pattern or ("4x1",), options.tokens or (128,)
    few = [count for count in tokens if count <= STREAM_TOKENS]
    for pattern in patterns:
        if is_weight_only(pattern) and len(few) < len(tokens):
            raise ValueError(f"--tokens must be at most {STREAM_TOKENS} with --pattern {pattern}")
    halves = [pattern for pattern in patterns if pattern == HALF_PATTERN]
    patterns = [pattern for pattern in patterns if pattern != HALF_PATTERN]
    products = [pattern for pattern in patterns if not is_weight_only(pattern)]
    names = [name for name in options.peers.split(",") if name]
    level = None if options.level is None else level_named(options.level)
    apart = [name for name in names if name in PROCESS_PEERS]
    with bar("timing, compiling on first use") as report:
        table = bench(
            shapes=options.shape or BENCH_SHAPES, densities=options.density or BENCH_DENSITIES,
            tokens=tokens, patterns=products, threads=options.threads, level=level,
            peers=[name for name in names if name not in apart], rounds=options.rounds, seed=options.seed,
            progress=report,
        )  # fmt: skip
        pairs, missing = bench_pairs(
            shapes=options.shape or BENCH_SHAPES, densities=options.density or BENCH_DENSITIES,
            tokens=tokens, peers=apart, cache=options.cache_dir, threads=options.threads,
            level=level, rounds=options.rounds, seed=options.seed, progress=report,
        )  # fmt: skip
        streams = bench_stream(
            shapes=options.shape or BENCH_SHAPES, densities=options.density or BENCH_DENSITIES, tokens=few,
            patterns=patterns, threads=options.threads, level=level, rounds=options.rounds, seed=options.seed,
            progress=report,
        )  # fmt: skip
        half_rows = bench_halves(
            shapes=options.shape or BENCH_SHAPES, densities=options.density or BENCH_DENSITIES,
            tokens=tokens if halves else (), threads=options.threads, rounds=options.rounds, seed=options.seed,
            progress=report,
        )  # fmt: skip
    absent = table.absent | missing
    figures = product_figures(table, pairs, streams, absent)
    if options.output is not None:
        draw_roofline(table, options.output)
    fractions = [row.fraction_of_peak for row in table.rows if row.fraction_of_peak is not None]
    if options.json:
        print_json({
            **asdict(table), "absent": absent, "pairs": [asdict(pair) for pair in pairs],
            "streams": [asdict(row) for row in streams], "halves": [asdict(row) for row in half_rows],
            "figures": [figure.to_json() for figure in figures],
            "geometric_mean_of_peak": geometric_mean(fractions) if fractions else None,
            "geometric_mean_of_pairs": geometric_mean([pair.ratio for pair in pairs]) if pairs else None,
            "geometric_means_of_pairs": {
                name: geometric_mean([pair.ratio for pair in pairs if pair.peer == name])
                for name in dict.fromkeys(pair.peer for pair in pairs)
            },
        })  # fmt: skip
        return 0
    print(f"{table.peaks.processor}, {table.peaks.level}, {table.peaks.clock_hz / 1e9:.2f} GHz, "
          f"{si(table.peak_macs_per_s)}MAC/s a thread, {si(table.peaks.read_bytes_per_s)}B/s read")  # fmt: skip
    columns = sorted({peer.name for row in table.rows for peer in row.peers})
    rows = []
    for row in table.rows:
        ratios = {peer.name: f"{peer.ratio:.2f}x" for peer in row.peers}
        part = "-" if row.fraction_of_peak is None else f"{row.fraction_of_peak:.3f}"
        bound = "-" if row.fraction_of_bound is None else f"{row.fraction_of_bound:.3f}"
        speedup = "-" if row.speedup is None else f"{row.speedup:.2f}"
        if row.dots_speedup is not None:
            speedup += f", dots {row.dots_speedup:.2f}"
        rows.append([row.pattern, f"{row.rows}x{row.columns}", row.tokens, f"{row.density:.2f}", row.engine,
                     si(row.median_s, "s"), f"{si(row.macs_per_s)}MAC/s", part, bound, speedup,
                     *(ratios.get(name, "-") for name in columns)])  # fmt: skip
    if rows:
        print_table(f"int8 products, {options.threads} thread(s); a peer's column is its time over ours",
                    ["pattern", "shape", "tokens", "density", "by", "median", "rate", "of peak", "of bound",
                     "x one thread", *columns],
                    rows,
                    right=["tokens", "density", "median", "rate", "of peak", "of bound", "x one thread",
                           *columns])  # fmt: skip
    if streams:
        print_table(f"few tokens, {options.threads} thread(s); the bound is what takes longer at best",
                    ["pattern", "shape", "tokens", "weights", "median", "read", "rate", "bound", "limit", "of bound"],
                    [[row.pattern, f"{row.rows}x{row.columns}", row.tokens, row.source, si(row.median_s, "s"),
                      f"{si(row.bytes_per_s)}B/s", f"{si(row.macs_per_s)}MAC/s", row.bound, row.limit,
                      f"{row.fraction_of_bound:.3f}"] for row in streams],
                    right=["tokens", "median", "read", "rate", "of bound"])  # fmt: skip
    if half_rows:
        print_table(f"binary16 products of 4x1 blocks, {options.threads} thread(s); the peak is that of fused steps",
                    ["shape", "tokens", "density", "median", "rate", "steps", "of peak"],
                    [[f"{row.rows}x{row.columns}", row.tokens, f"{row.density:.2f}", si(row.median_s, "s"),
                      f"{si(row.macs_per_s)}MAC/s", row.steps,
                      "-" if row.fraction_of_peak is None else f"{row.fraction_of_peak:.3f}"] for row in half_rows],
                    right=["tokens", "density", "median", "rate", "of peak"])  # fmt: skip
    if fractions:
        print(f"geometric mean of the fraction of peak: {geometric_mean(fractions):.3f}")
    if pairs:
        print_table(f"pairs of 4x1 layers, {options.threads} thread(s), wall time",
                    ["pair", "tokens", "density", "ours", "peer", "ratio"],
                    [[f"{pair.rows}x{pair.columns}", pair.tokens, f"{pair.density:.2f}", si(pair.median_s, "s"),
                      f"{pair.peer} {si(pair.peer_median_s, 's')}", f"{pair.ratio:.2f}x"] for pair in pairs],
                    right=["tokens", "density", "ours", "peer", "ratio"])  # fmt: skip
        for name in dict.fromkeys(pair.peer for pair in pairs):
            ratios_of_it = [pair.ratio for pair in pairs if pair.peer == name]
            print(f"against {name}: geometric mean {geometric_mean(ratios_of_it):.2f}x, least {min(ratios_of_it):.2f}x")
    for figure in figures:
        if figure.figure.reached is not None:
            print(f"  {figure}")
    for name, reason in absent.items():
        print(f"  {name} is absent: {reason}")
    return 0
