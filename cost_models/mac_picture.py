"""LUTs of one MAC against the bits of its format: the Pareto question of arXiv 2311.12359 with our data."""

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparsefab.cost_models.mac_luts import MacSample
from sparsefab.formats import FloatFormat, IntFormat, get_format

__all__ = ["draw_macs"]

_STYLE = {
    "font.size": 8.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.family": "sans-serif",
    "svg.fonttype": "path",
    "svg.hashsalt": "sparsefab",
}
_INT, _FLOAT = "#d55e00", "#0072b2"
_PANELS = (
    ("fabric", False, "multiplier in LUTs, exact sum out"),
    ("fabric", True, "multiplier in LUTs, rounded back"),
    ("dsp", False, "one DSP48E2, exact sum out"),
)


def draw_macs(samples: Sequence[MacSample]) -> Figure:
    """Draw a panel for each way to build a MAC; one y axis for all, logarithmic."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 5.0), layout="constrained")
        axes = figure.subplots(1, len(_PANELS), sharey=True)
        for panel, (multiplier, converted, title) in zip(axes, _PANELS, strict=True):
            rows = [row for row in samples if (row.multiplier, row.converted) == (multiplier, converted)]
            _panel(panel, rows, title)
        axes[0].set_ylabel("LUT sites a MAC (Yosys, xcup; not placed)")
        axes[0].plot([], [], "s-", color=_INT, markersize=3.5, linewidth=1, label="integers")
        axes[0].plot([], [], "o", color=_FLOAT, markersize=3.5, label="minifloats ExMy")
        axes[0].legend(frameon=False, loc="upper left", handlelength=1.2)
        return figure


def _panel(axes: Axes, rows: Sequence[MacSample], title: str) -> None:
    """Signed integers as a line; plain minifloats as points named by their split, those with specials left out."""
    ints, floats = [], []
    for row in rows:
        fmt = get_format(row.format)
        if isinstance(fmt, IntFormat):
            if fmt.signed and not fmt.symmetric:
                ints.append((fmt.bits, row.lut))
        elif isinstance(fmt, FloatFormat) and fmt.specials == "none" and fmt.signed:
            floats.append((fmt.bits, row.lut, f"{fmt.exponent_bits}{fmt.mantissa_bits}"))
    axes.set_title(title, fontsize=8)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("bits")
    if ints:
        ints.sort()
        axes.plot(*zip(*ints, strict=True), "s-", color=_INT, markersize=3.5, linewidth=1)
    floats.sort()
    taken: list[tuple[int, float]] = []
    for bits, lut, split in floats:
        axes.plot(bits, lut, "o", color=_FLOAT, markersize=3.5)
        # a label goes left where one on the right is too near
        near = any(other == bits and abs(lut / height - 1) < 0.06 for other, height in taken)
        axes.annotate(
            f"E{split[0]}M{split[1]}", (bits, lut), xytext=(-4 if near else 4, 0), textcoords="offset points",
            ha="right" if near else "left", va="center", fontsize=5, color="#444444",
        )  # fmt: skip
        if not near:
            taken.append((bits, lut))
    axes.set_xlim(1.6, 9.1)
    axes.set_xticks(range(2, 9))
    axes.set_yticks([2, 4, 8, 16, 32, 64, 128, 256, 512], labels=["2", "4", "8", "16", "32", "64", "128", "256", "512"])
    axes.minorticks_off()
    axes.grid(axis="y", linewidth=0.3, color="#dddddd")
