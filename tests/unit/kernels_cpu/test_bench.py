"""The kernel table: what is counted, what is compared, and that peers compute the same product."""

from dataclasses import replace

import numpy as np
import pytest

from sparsefab.kernels_cpu import caches
from sparsefab.kernels_cpu.bench import PeerTime, bench, geometric_mean
from sparsefab.kernels_cpu.bench_half import bench_halves
from sparsefab.kernels_cpu.bench_pairs import PairRow
from sparsefab.kernels_cpu.bench_stream import StreamRow, bench_stream
from sparsefab.kernels_cpu.caches import cache_sizes
from sparsefab.kernels_cpu.drawn import drawn_weights
from sparsefab.kernels_cpu.features import Level, level_named
from sparsefab.kernels_cpu.peers import PEERS, Problem, peers_of
from sparsefab.kernels_cpu.ports import LOOPS, busiest, product_loops, tile_loops
from sparsefab.kernels_cpu.product_figures import product_figures
from sparsefab.kernels_cpu.roofline import draw_roofline
from sparsefab.kernels_cpu.threads import available_threads
from sparsefab.kernels_cpu.tile_weights import TileWeights
from sparsefab.kernels_cpu.weights import BlockWeights


@pytest.mark.skipif(available_threads() < 2, reason="needs two threads")
def test_two_threads_are_timed_beside_one_and_beside_bare_dot_products():
    table = bench(shapes=[(64, 32)], densities=[0.5], tokens=[70], threads=2, rounds=2)
    (row,) = table.rows
    assert row.speedup > 0
    assert (row.dots_speedup is None) == (table.peak_macs_per_s is None)
    large = replace(table, rows=(replace(row, rows=768, columns=3072, speedup=1.7, dots_speedup=1.86),))
    missed = product_figures(large, [], [], {})[-1]
    assert missed.figure.reached == 1.7
    assert missed.bound == "bare dot products reach 1.86 in the same turns"


@pytest.mark.parametrize("name", list(PEERS))
def test_peers_compute_the_product(name):
    pytest.importorskip(name)
    random = np.random.default_rng(0)
    problem = Problem(
        weights=random.integers(-64, 64, (32, 48)).astype(np.int8),  # without VNNI, libraries saturate pairs beyond
        codes=random.integers(0, 256, (20, 48)).astype(np.uint8),
        threads=1,
    )
    exact = problem.codes.astype(np.int64) @ problem.weights.T.astype(np.int64)
    scale = np.abs(problem.weights.astype(np.int64)).sum(axis=1).max()
    peers = peers_of(name, problem)
    assert peers
    for peer in peers:
        peer.call()
        result = np.asarray(peer.result())
        if result.dtype == np.uint8:
            expected = np.clip(np.rint(exact / scale) + 128, 0, 255)
            assert np.abs(result - expected).max() <= 1
        else:
            np.testing.assert_array_equal(result, exact)


def test_rows_of_the_table(tmp_path):
    seen = []
    table = bench(
        shapes=[(64, 32)],
        densities=[0.5, 1],
        tokens=[8, 70],
        patterns=["4x1", "4x4", "dense", "2:4"],
        rounds=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [(row.pattern, row.tokens) for row in table.rows] == [("4x1", 8)] * 2 + [("4x1", 70)] * 2 + [
        ("4x4", 8)
    ] * 2 + [("4x4", 70)] * 2 + [("dense", 8), ("dense", 70), ("2:4", 8), ("2:4", 70)]
    assert seen[-1] == (12, 12)
    for row in table.rows:
        assert row.macs_per_s * row.median_s == pytest.approx(row.density * 64 * 32 * row.tokens)
        most = 8.0 if row.engine == "tiles" else 1.0  # times the peak of vpdpbusd
        assert row.fraction_of_peak is None or 0 < row.fraction_of_peak < 1.5 * most
        assert row.fraction_of_bound is None or row.fraction_of_bound >= row.fraction_of_peak / most
        assert row.best_dense() is None
    assert [row.density for row in table.rows[-3:]] == [1, 0.5, 0.5]
    draw_roofline(table, tmp_path / "roofline.svg")
    picture = (tmp_path / "roofline.svg").read_text()
    assert picture.count("<use") > len(table.rows)
    assert table.rows[0].bytes_per_call > 64 * 32 + 8 * 32 + 8 * 64
    with pytest.raises(ValueError, match="empty table"):
        draw_roofline(replace(table, rows=()), tmp_path / "none.svg")


def test_a_level_is_kept_to():
    table = bench(shapes=[(16, 32)], densities=[0.5], tokens=[70], rounds=1, level=Level.PORTABLE)
    assert [(row.level, row.engine) for row in table.rows] == [("portable", "quads")]
    assert level_named("portable") is Level.PORTABLE
    with pytest.raises(ValueError, match="'sse' is not one of avx512-amx"):
        level_named("sse")


def test_absent_peers_are_named_with_the_reason(monkeypatch):
    def missing(problem):
        raise ImportError("no such library")

    monkeypatch.setitem(PEERS, "scipy", missing)
    table = bench(shapes=[(8, 8)], densities=[1], tokens=[4], peers=["scipy"], rounds=1)
    assert table.absent == {"scipy": "no such library"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"densities": [0]}, "density must be"),
        ({"patterns": ["2x2"]}, "pattern must be one of 4x1"),
        ({"tokens": [0]}, "tokens must be"),
        ({"threads": 0}, "threads must be"),
        ({"rounds": 0}, "rounds must be"),
        ({"peers": ["atlas"], "shapes": [(8, 8)]}, "peer must be one of onnxruntime"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        bench(**arguments)


def test_rows_of_the_stream_table(monkeypatch):
    monkeypatch.setattr("sparsefab.kernels_cpu.bench_stream.COLD_BYTES", 1 << 16)
    seen = []
    patterns = ["int4g32", "uint3g64", "int8g32+outliers", "uint4g16@0.5", "2:4", "dense"]
    table = bench_stream(
        patterns=patterns, shapes=[(32, 64)], tokens=[1, 3], rounds=3, progress=lambda *done: seen.append(done)
    )
    assert [(row.pattern, row.tokens, row.source) for row in table] == [
        (name, count, source) for name in patterns for count in (1, 3) for source in ("memory", "cache")
    ]
    assert seen[-1] == (24, 24)
    nbytes = {row.pattern: row.bytes_per_call for row in table}
    assert nbytes["int4g32"] == 32 * 64 // 2 + 32 * 64 // 32 + 1
    assert nbytes["uint3g64"] == 32 * 64 * 3 // 8 + 2 * 32
    assert nbytes["int8g32+outliers"] > 32 * 64 + 64 + 1
    kept, rest = divmod(nbytes["uint4g16@0.5"] - 3 * (8 + 2 + 1 + 1) - 4 * 33 - 4 * 32, 8 + 2 + 1 + 1)
    assert rest == 0
    assert 32 < kept < 96  # of 128
    assert {row.bytes_per_call for row in table if row.pattern == "2:4" and row.tokens == 1} == {32 * 64 * 5 // 8 + 8}
    for row in table:
        assert row.bytes_per_s == pytest.approx(row.bytes_per_call / row.median_s)
        work = ("instructions", "dot products")
        assert row.bound in (work if "read" not in row.limit else (row.source, *cache_sizes()))
        # The bound holds the longer time, and that of a call besides.
        assert row.fraction_of_bound > 0.99 * row.fraction_of_read
        assert row.call_s > 0
    assert {row.pattern: row.density for row in table}["2:4"] == 0.5
    with pytest.raises(ValueError, match="at least 1"):
        bench_stream(shapes=[(8, 8)], rounds=0)
    with pytest.raises(ValueError, match="tokens 1 to 16"):
        bench_stream(shapes=[(8, 8)], tokens=[17])
    with pytest.raises(ValueError, match="as int4g32, not 'int9g4'"):
        bench_stream(patterns=["int9g4"])


def test_loops_of_few_tokens_are_counted():
    blocks = BlockWeights.from_columns(np.ones((8, 12), np.int8))  # two groups of three quads
    ((loop, units),) = product_loops(blocks, width=16, panels=2)
    assert (loop.unit, units) == ("a quad", 12)
    assert loop.cycles == max(44 / 6, 28 / 3, 8 / 2, 16 / 2, 4) / 2
    assert loop.limit == "4.7 cycles for a quad: loads"
    assert busiest([(loop, 1), (LOOPS["masked", 1], 2)]) == "3.0 cycles for a tile: shuffles"
    masked = drawn_weights("2:4", np.ones((8, 32), np.int8), np.tile([True, True, False, False], (8, 8)))
    assert [(loop.unit, units) for loop, units in product_loops(masked, width=16, panels=1)] == [
        ("a quad", 16),
        ("a tile", 4),
    ]
    assert product_loops(masked, width=1, panels=3) == [(LOOPS["masked", 1], 12)]
    dense, halves = TileWeights.of(np.ones((64, 128), np.int8)), TileWeights.of(masked.matrix())
    assert tile_loops(dense, tokens=17)[0][1] == 2 * 2 * 2 * 2  # blocks, steps, tiles of rows and of tokens
    ((loop, units),) = tile_loops(halves, tokens=16)
    assert (loop.limit, units) == ("3.0 cycles for 64 inputs of a row: shuffles", 32)


def test_binary16_products_are_timed_beside_fused_steps():
    seen = []
    (row,) = bench_halves(
        shapes=[(32, 64)], densities=[0.5], tokens=[3], rounds=2, progress=lambda *done: seen.append(done)
    )
    assert seen == [(1, 1)]
    assert row.macs_per_s * row.median_s == pytest.approx(row.density * 32 * 64 * 3)
    assert row.steps == ("binary16" if row.native else "binary32" if row.fraction_of_peak is not None else "none")
    with pytest.raises(ValueError, match="densities above 0"):
        bench_halves(shapes=[(8, 8)], densities=[0], tokens=[1])


def test_every_figure_of_products_is_stated():
    table = bench(shapes=[(64, 32)], densities=[1], tokens=[70], rounds=1)
    row, none = table.rows[0], product_figures(table, [], [], {"intel": "no compiler"})
    assert len(none) == 14
    assert {figure.figure.reached for figure in none} == {None}
    assert {figure.figure.met for figure in none} == {None}
    bounds = {figure.figure.name: figure.bound for figure in none}
    assert bounds["pairs of 4x1 layers times intel, least"] == "absent: no compiler"
    assert bounds["pairs of 4x1 layers times deepsparse, least"] == "ask for --peers deepsparse"
    peers = (
        PeerTime(name="torch 2 oneDNN qlinear", precision="int8", median_s=1, ratio=3.0),
        PeerTime(name="onnxruntime MatMulInteger", precision="int8", median_s=1, ratio=2.5),
    )
    row = replace(row, rows=768, columns=768, tokens=128, fraction_of_peak=0.6, peers=peers, speedup=None)
    rows = [
        *(replace(row, density=density) for density in (0.3, 0.2, 0.1)),
        replace(row, columns=256, fraction_of_peak=0.4),
        replace(row, pattern="4x4", fraction_of_peak=0.95),
        replace(row, pattern="dense", density=1),
        replace(row, columns=3072, density=0.5, threads=2, speedup=1.95, dots_speedup=None),
    ]
    pair = PairRow(
        rows=768, columns=768, tokens=128, density=0.2, threads=1, peer="deepsparse", median_s=1, peer_median_s=2,
        ratio=2.0,
    )  # fmt: skip
    stream = StreamRow(
        pattern="int4g32", rows=4096, columns=4096, tokens=1, density=1, source="memory", threads=1, median_s=1,
        bytes_per_call=1 << 23, bytes_per_s=1, macs_per_s=1, fraction_of_read=0.95, fraction_of_dots=None, call_s=0,
        bound="memory", limit="15.0 GB/s read", fraction_of_bound=0.95,
    )  # fmt: skip
    slow = replace(stream, pattern="4x4", tokens=16, source="cache", fraction_of_bound=0.7, bound="L2")
    figures = product_figures(replace(table, rows=tuple(rows)), [pair], [stream, slow], {})
    reached = {figure.figure.name.split(",")[0]: figure.figure.reached for figure in figures[:4] + figures[8:]}
    assert reached == {
        "4x1 of the dot products' peak": pytest.approx(0.6),
        "4x1 times the best dense int8 library": pytest.approx(2.5),
        "4x1 with 256 inputs of the dot products' peak": 0.4,
        "aligned 4x4 of the dot products' peak": pytest.approx(0.95),
        "dense times oneDNN int8": pytest.approx(3),
        "1 to 16 tokens of the bound": 0.7,
        "4-bit product out of memory of a plain read": pytest.approx(0.95),
        "two threads times one": 1.95,
    }
    assert [figure.figure.met for figure in figures] == [
        False, True, False, False, True, True, None, None, False, True, True, False, True, True,
    ]  # fmt: skip
    assert figures[0].bound == "two ports allow 0.64: 12 cycles a quad, 26 a group"
    assert figures[11].bound == "4x4 4096x4096, 16 token(s), cache: L2, 15.0 GB/s read"
    assert not figures[1].bound
    assert str(figures[8]).endswith("missed; two ports allow 0.64: 12 cycles a quad, 26 a group")
    assert figures[1].to_json()["met"]


def test_caches_are_told_by_size(monkeypatch):
    monkeypatch.setattr(caches, "cache_sizes", lambda: {"L2": 1000, "L3": 4000})
    assert [caches.cache_of(size) for size in (750, 751, 3001)] == ["L2", "L3", "cache"]


def test_geometric_mean():
    assert geometric_mean([1, 4, 16]) == pytest.approx(4)
