"""What products do to their results on the way out: tables, residuals and the sums a normalization needs."""

import numpy as np
import pytest

from sparsefab.formats.requantize import Requantizer, requantize
from sparsefab.kernels_cpu.features import Level, runs
from sparsefab.kernels_cpu.panels import aligned_empty, aligned_zeros, interleaved, panels_of, rows_of
from sparsefab.kernels_cpu.spmm import BlockWeights, Codes, Product, Reals, Sums, mean_squares, moments
from sparsefab.kernels_cpu.threads import available_threads

ROWS, COLUMNS, TOKENS = 24, 57, 70
WIDTHS = [(False, 64), (False, 32), (False, 16), (False, 1), (True, 64), (True, 16), (True, 1)]


def cases(sample):
    """All levels and widths; those that this machine lacks are emulated in the slow suite, but for one sample."""
    return [
        pytest.param(
            level,
            aligned,
            width,
            marks=[] if runs(level) or (level, aligned, width) == sample else [pytest.mark.slow],
        )
        for level in Level
        for aligned, width in WIDTHS
    ]


def problem(aligned, width, seed=0):
    """Weights, panels, and the exact sums of zero point 9, int64[TOKENS, ROWS]."""
    random = np.random.default_rng(seed)
    matrix = (random.integers(-128, 128, (ROWS, COLUMNS)) * (random.random((ROWS, COLUMNS)) < 0.4)).astype(np.int8)
    codes = random.integers(0, 256, (TOKENS, COLUMNS)).astype(np.uint8)
    weights = BlockWeights.from_matrix(matrix) if aligned else BlockWeights.from_columns(matrix)
    panels = panels_of(codes, width=width)
    sums = (codes.astype(np.int64) - 9) @ matrix.T.astype(np.int64)
    return weights, interleaved(panels) if aligned else panels, sums


def as_panels(rows, width):
    """Bring float32[TOKENS, ROWS] into panels."""
    count = -(-len(rows) // width)
    padded = np.zeros((count * width, rows.shape[1]), np.float32)
    padded[: len(rows)] = rows
    result = aligned_zeros((count, rows.shape[1], width), np.float32)
    result[:] = padded.reshape(count, width, -1).transpose(0, 2, 1)
    return result


def sequential(y):
    """The three sums a token, row after row in binary32."""
    total = squares = np.zeros(len(y), np.float32)
    for row in range(y.shape[1]):
        d = y[:, row] - y[:, 0]
        total, squares = total + d, squares + d * d
    return y[:, 0], total, squares


@pytest.mark.parametrize(("level", "aligned", "width"), cases((Level.AVX512_VNNI, False, 1)))
def test_a_table_replaces_every_code(level, aligned, width):
    weights, panels, sums = problem(aligned, width)
    random = np.random.default_rng(4)
    table, ratios = random.permutation(256).astype(np.uint8), np.exp(random.normal(-8, 2, ROWS))
    common = {"zero_point": 9, "level": level, "emulate": True}
    for signed in (False, True):
        low = -128 if signed else 0
        requantizer = Requantizer.of(ratios, low + 100, low, low + 255)
        product = Product(weights, Codes(requantizer=requantizer, signed=signed, table=table), **common)
        result = rows_of(product.run(panels), tokens=TOKENS, outputs=ROWS)
        codes = requantize(sums, requantizer)
        assert len(np.unique(codes)) > 200
        np.testing.assert_array_equal(result.view(np.uint8), table[codes & 255])
    if width != 32:
        requantizer = Requantizer.of(ratios, 100, 0, 255)
        plain = Product(weights, Codes(requantizer=requantizer, table=table), **common).run(panels)
        other = Product(weights, Codes(requantizer=requantizer, table=table, interleaved=True), **common).run(panels)
        np.testing.assert_array_equal(other, interleaved(plain))


@pytest.mark.parametrize(("level", "aligned", "width"), cases((Level.AVX512_VNNI, False, 64)))
def test_residuals_and_statistics_are_binary32_in_order(level, aligned, width):
    weights, panels, sums = problem(aligned, width)
    random = np.random.default_rng(5)
    row_scales, token_scales = random.random(ROWS, np.float32), random.random(TOKENS, np.float32)
    skip = random.normal(1e4, 1e3, (TOKENS, ROWS)).astype(np.float32)
    epilogue = Reals(row_scales=row_scales, residual=True, statistics=True)
    product = Product(weights, epilogue, zero_point=9, level=level, emulate=True)
    statistics = aligned_empty((3, len(panels) * width), np.float32)
    residual = as_panels(skip, width)
    result = product.run(panels, token_scales=token_scales, residual=residual, statistics=statistics, out=residual)
    expected = sums.astype(np.float32) * row_scales * token_scales[:, None] + skip
    np.testing.assert_array_equal(rows_of(result, tokens=TOKENS, outputs=ROWS), expected)
    for found, wanted in zip(statistics[:, :TOKENS], sequential(expected), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("level", "aligned", "width"), cases((Level.AVX512_VNNI, True, 1)))
def test_squares_are_binary32_in_order(level, aligned, width):
    weights, panels, sums = problem(aligned, width)
    row_scales = np.random.default_rng(6).random(ROWS, np.float32)
    product = Product(weights, Reals(row_scales=row_scales, squares=True), zero_point=9, level=level, emulate=True)
    statistics = aligned_empty((1, len(panels) * width), np.float32)
    result = product.run(panels, statistics=statistics)
    expected = sums.astype(np.float32) * row_scales
    np.testing.assert_array_equal(rows_of(result, tokens=TOKENS, outputs=ROWS), expected)
    squares = np.zeros(TOKENS, np.float32)
    for row in range(ROWS):
        squares = squares + expected[:, row] * expected[:, row]
    np.testing.assert_array_equal(statistics[0, :TOKENS], squares)
    exact = (expected.astype(np.float64) ** 2).mean(axis=1)
    np.testing.assert_allclose(mean_squares(statistics, ROWS)[:TOKENS], exact, rtol=1e-5)


def test_moments_are_mean_and_variance():
    """Values far from zero: squares summed from zero would lose them in binary32."""
    y = np.random.default_rng(1).normal(1e4, 1, (9, 768)).astype(np.float32)
    mean, variance = moments(np.array(sequential(y)), 768)
    wide = y.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(variance, wide.var(axis=1), rtol=1e-4)


def test_threads_leave_the_same_statistics():
    weights, panels, _ = problem(False, 16)
    product = Product(weights, Reals(row_scales=np.ones(ROWS, np.float32), statistics=True))
    found = []
    for threads in (1, min(3, available_threads())):
        statistics = aligned_zeros((3, len(panels) * 16), np.float32)
        product.run(panels, statistics=statistics, threads=threads)
        found.append(statistics)
    np.testing.assert_array_equal(found[0], found[1])


def test_a_bound_call_reads_its_buffers_anew():
    weights, panels, sums = problem(False, 64)
    scales = aligned_empty((128,), np.float32)
    scales.fill(1)
    call = Product(weights, Reals(row_scales=np.ones(ROWS, np.float32)), zero_point=9).bind(panels, token_scales=scales)
    for factor in (1, 2):
        scales.fill(factor)
        call()
        expected = sums.astype(np.float32) * np.float32(factor)
        np.testing.assert_array_equal(rows_of(call.out, tokens=TOKENS, outputs=ROWS), expected)


def test_buffers_that_an_epilogue_does_not_ask_for_are_refused():
    weights, panels, _ = problem(False, 64)
    reals = Product(weights, Reals(row_scales=np.ones(ROWS, np.float32), residual=True, statistics=True))
    residual, statistics = aligned_zeros((2, ROWS, 64), np.float32), aligned_zeros((3, 128), np.float32)
    with pytest.raises(ValueError, match="residual must be given if and only if"):
        reals.run(panels, statistics=statistics)
    with pytest.raises(ValueError, match="statistics must be given if and only if"):
        reals.run(panels, residual=residual)
    with pytest.raises(ValueError, match="residual must be given if and only if"):
        Product(weights, Sums()).run(panels, residual=residual)
    with pytest.raises(ValueError, match="statistics must be writable, of shape"):
        reals.run(panels, residual=residual, statistics=aligned_zeros((3, 64), np.float32))
    with pytest.raises(TypeError, match="residual must be an array of float32"):
        reals.run(panels, residual=residual.view(np.int32), statistics=statistics)
    requantizer = Requantizer.of(np.full(ROWS, 1e-3), 0, 0, 255)
    with pytest.raises(ValueError, match="table must be uint8"):
        Product(weights, Codes(requantizer=requantizer, table=np.zeros(255, np.uint8)))
    with pytest.raises(ValueError, match="not both"):
        Product(weights, Reals(row_scales=np.ones(ROWS, np.float32), squares=True, statistics=True))
    odd = BlockWeights.from_columns(np.ones((5, 3), np.int8))
    with pytest.raises(ValueError, match="multiple of 4 rows, not 5"):
        Product(odd, Reals(row_scales=np.ones(5, np.float32), statistics=True))
