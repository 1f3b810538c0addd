"""The figures that products are held to, from one run of the kernel table: reached, goal, and the bound that stops one.

    for figure in product_figures(table, pairs, streams, absent):
        print(figure)

A figure that the run did not time is there all the same, not reached, with what to ask for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsefab.kernels_cpu.bench import BENCH_SHAPES, BenchRow, BenchTable, geometric_mean
from sparsefab.kernels_cpu.bench_pairs import PairRow
from sparsefab.kernels_cpu.bench_stream import StreamRow, is_weight_only
from sparsefab.kernels_cpu.figures import Figure

__all__ = ["ProductFigure", "product_figures"]

_WIDE_TOKENS = 64  # from which on a panel is whole
_NEAR = 0.02  # how far a drawn density may be from the one asked for
_LEAST_INPUTS = 256
_LARGE = 768 * 3072  # weights from which on two threads are held to a goal
_STREAMED_BYTES = 1 << 20
_GROUP_CYCLES = 26.0  # for the 52 operations of a group's requantization on two ports
_QUAD_CYCLES, _QUAD_PEAK_CYCLES = 12.0, 8.0  # 16 dot products and 8 shuffles, and the former alone


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductFigure:
    """A figure, and what stops it or what to time for it.

    bound : str                  Measured or computed, in words; empty where the goal is met.
    """

    figure: Figure
    bound: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return self.figure.to_json() | {"bound": self.bound}

    def __str__(self) -> str:
        return f"{self.figure}; {self.bound}" if self.bound else str(self.figure)


def product_figures(
    table: BenchTable, pairs: Sequence[PairRow], streams: Sequence[StreamRow], absent: Mapping[str, str]
) -> list[ProductFigure]:
    """Return every figure of products, in the order in which they are named.

    Parameters
    ----------
    table, pairs, streams        Of one run of `bench`, `bench_pairs` and `bench_stream`.
    absent : peer -> reason      Peers that were asked for and cannot be had.
    """
    wide = [row for row in table.rows if row.tokens >= _WIDE_TOKENS and row.columns > _LEAST_INPUTS]
    gathered = [row for row in wide if row.pattern == "4x1" and (row.rows, row.columns) in BENCH_SHAPES]
    return [
        _of_rows(
            "4x1 of the dot products' peak, 70 and 80 % zeros, geometric mean", 0.62,
            [row for row in gathered if _near(row, 0.3) or _near(row, 0.2)], _peak, geometric_mean, _by_ports,
        ),
        *(
            _of_rows(
                f"4x1 times the best dense int8 library, {100 * (1 - density):.0f} % zeros, geometric mean", goal,
                [row for row in gathered if _near(row, density) and row.best_dense()], _dense, geometric_mean,
                lambda rows: "the library's rate; our own bound is that of the peak above",
            )
            for density, goal in ((0.3, 2.4), (0.2, 3.5), (0.1, 6.8))
        ),
        *_of_pairs(pairs, absent),
        _of_rows(
            "4x1 with 256 inputs of the dot products' peak, least", 0.5,
            [row for row in table.rows if row.columns == _LEAST_INPUTS and row.tokens >= _WIDE_TOKENS
             and row.pattern == "4x1"], _peak, min, _by_ports,
        ),
        _of_rows(
            "aligned 4x4 of the dot products' peak, geometric mean", 0.9,
            [row for row in wide if row.pattern == "4x4"], _peak, geometric_mean,
            lambda rows: "16 dot products a block on two ports, and the requantization of a group, 26 cycles",
        ),
        _of_rows(
            "dense times oneDNN int8, geometric mean", 1.05,
            [row for row in wide if row.pattern == "dense" and _onednn(row)], lambda row: _onednn(row) or 0.0,
            geometric_mean, lambda rows: "the library's rate",
        ),
        _of_streams(
            "1 to 16 tokens of the bound, least", 0.85, [row for row in streams if not is_weight_only(row.pattern)],
            lambda row: row.fraction_of_bound, min,
        ),
        _of_streams(
            "4-bit product out of memory of a plain read, 1 token, 1 MiB and more, geometric mean", 0.9,
            [row for row in streams if _streams_4_bits(row)], lambda row: row.fraction_of_read, geometric_mean,
        ),
        _of_rows(
            "two threads times one, 768x3072 and larger, least", 1.9,
            [row for row in table.rows if row.threads == 2 and row.rows * row.columns >= _LARGE and row.speedup],
            lambda row: row.speedup or 0.0, min, _by_dots,
        ),
    ]  # fmt: skip


def _streams_4_bits(row: StreamRow) -> bool:
    named = row.pattern.lstrip("u").startswith("int4g") and "@" not in row.pattern
    return named and row.tokens == 1 and row.source == "memory" and row.bytes_per_call >= _STREAMED_BYTES


def _near(row: BenchRow, density: float) -> bool:
    return abs(row.density - density) < _NEAR


def _peak(row: BenchRow) -> float:
    return row.fraction_of_peak or 0.0


def _dense(row: BenchRow) -> float:
    best = row.best_dense()
    return best.ratio if best else 0.0


def _onednn(row: BenchRow) -> float | None:
    """Return oneDNN's best time over ours, None where it was not timed."""
    ratios = [peer.ratio for peer in row.peers if peer.precision == "int8" and "onednn" in peer.name.lower()]
    return min(ratios, default=None)


def _by_ports(rows: Sequence[BenchRow]) -> str:
    """Compute what two ports allow: 24 operations a quad and 52 a group."""
    quads = [row.density * row.columns / 4 for row in rows]
    allowed = [_QUAD_PEAK_CYCLES * count / (_QUAD_CYCLES * count + _GROUP_CYCLES) for count in quads]
    return f"two ports allow {geometric_mean(allowed):.2f}: 12 cycles a quad, 26 a group"


def _by_dots(rows: Sequence[BenchRow]) -> str:
    """Tell what two threads of bare dot products reached in the turns of the worst product."""
    dots = min(rows, key=lambda row: row.speedup or 0.0).dots_speedup
    return "other work on the second core" if dots is None else f"bare dot products reach {dots:.2f} in the same turns"


def _figure(name: str, goal: float, reached: float | None, bound: str) -> ProductFigure:
    figure = Figure(name=name, goal=goal, reached=reached)
    return ProductFigure(figure=figure, bound="" if figure.met else bound)


def _of_rows(
    name: str, goal: float, rows: Sequence[BenchRow], value: Callable[[BenchRow], float],
    whole: Callable[[Sequence[float]], float], bound: Callable[[Sequence[BenchRow]], str],
) -> ProductFigure:  # fmt: skip
    values = [value(row) for row in rows]
    if not values or not all(values):
        return _figure(name, goal, None, "ask for its --pattern, --density, --shape, --tokens, --threads or --peers")
    return _figure(name, goal, float(whole(values)), bound(rows))


def _of_streams(
    name: str, goal: float, rows: Sequence[StreamRow], value: Callable[[StreamRow], float],
    whole: Callable[[Sequence[float]], float],
) -> ProductFigure:  # fmt: skip
    if not rows:
        return _figure(name, goal, None, "ask for its --pattern with --tokens of 16 or fewer")
    worst = rows[int(np.argmin([value(row) for row in rows]))]
    place = f"{worst.pattern} {worst.rows}x{worst.columns}, {worst.tokens} token(s), {worst.source}"
    return _figure(name, goal, float(whole([value(row) for row in rows])), f"{place}: {worst.bound}, {worst.limit}")


def _of_pairs(pairs: Sequence[PairRow], absent: Mapping[str, str]) -> list[ProductFigure]:
    result = []
    for peer, goal in (("deepsparse", 1.2), ("intel", 1.25)):
        ratios = [pair.ratio for pair in pairs if pair.peer.lower().startswith(peer)]
        reason = f"absent: {absent[peer]}" if peer in absent else f"ask for --peers {peer}"
        stops = "its own rate; our bound is that of the peak above"
        for name, least, value in (
            (f"pairs of 4x1 layers times {peer}, geometric mean", goal, geometric_mean),
            (f"pairs of 4x1 layers times {peer}, least", 1.0, min),
        ):
            result.append(_figure(name, least, float(value(ratios)) if ratios else None, stops if ratios else reason))
    return result
