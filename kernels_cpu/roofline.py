"""A picture of the kernel table: each product's rate against what its bytes and its multiplications allow.

    draw_roofline(table, Path("roofline.svg"))

Across, products a byte that a call touches (weights, activations, results, each once); up, products a second. The roofs
are the table's own measurements: the dot products' peak, and reads from memory and from the second cache. Products that
run from a cache stand above the memory's roof.
"""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from sparsefab.kernels_cpu.bench import BenchTable

__all__ = ["draw_roofline"]

_MARKS = {"4x1": "o", "4x4": "s", "dense": "D"}
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw_roofline(table: BenchTable, path: Path) -> None:
    """Draw a table; the file's ending says how (svg, png, pdf).

    Raises
    ------
    ValueError                   If the table is empty.
    """
    if not table.rows:
        raise ValueError("an empty table has no roofline")
    with matplotlib.rc_context({"font.size": 9, "svg.hashsalt": "sparsefab"}):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = figure.subplots()
        intensity = [row.macs_per_s * row.median_s / row.bytes_per_call for row in table.rows]
        across = np.geomspace(min(intensity) / 3, max(intensity) * 3, 200)
        threads = table.rows[0].threads
        peak = None if table.peak_macs_per_s is None else table.peak_macs_per_s * threads / 1e9
        read = table.peaks.read_bytes_per_s if threads == 1 else table.peaks.read_bytes_per_s_all_threads
        for name, bytes_per_s, style in (("memory", read, "--"), ("L2", table.peaks.l2_bytes_per_s * threads, ":")):
            roof = across * bytes_per_s / 1e9
            axes.plot(across, roof if peak is None else np.minimum(roof, peak), style, color="0.35", lw=1,
                      label=f"{name}, {bytes_per_s / 1e9:.0f} GB/s")  # fmt: skip
        if peak is not None:
            axes.axhline(peak, color="0.35", lw=1, label=f"dot products, {peak:.0f} GMAC/s")
        shapes = list(dict.fromkeys((row.rows, row.columns) for row in table.rows))
        for pattern in dict.fromkeys(row.pattern for row in table.rows):
            for i, shape in enumerate(shapes):
                chosen = [
                    (x, row.macs_per_s / 1e9)
                    for x, row in zip(intensity, table.rows, strict=True)
                    if row.pattern == pattern and (row.rows, row.columns) == shape
                ]
                if chosen:
                    mark, colour = _MARKS.get(pattern, "^"), _COLOURS[i % len(_COLOURS)]
                    xs, ys = zip(*chosen, strict=True)
                    axes.scatter(xs, ys, s=26, marker=mark, color=colour, label=f"{pattern} {shape[0]}x{shape[1]}")
        axes.set(xscale="log", yscale="log", xlabel="products a byte", ylabel="GMAC/s",
                 title=f"{table.peaks.processor}, {table.peaks.level}, {threads} thread(s)")  # fmt: skip
        axes.grid(which="both", color="0.9", lw=0.5)
        axes.legend(fontsize=7, loc="lower right", ncols=2)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
