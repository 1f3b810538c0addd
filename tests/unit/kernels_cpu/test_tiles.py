"""Products on AMX tiles: how weights are stored for them, blocks, chunks and runs, and when they are chosen."""

import numpy as np
import pytest

from sparsefab.kernels_cpu import features
from sparsefab.kernels_cpu.features import Level, runs
from sparsefab.kernels_cpu.panels import interleaved, panels_of, rows_of
from sparsefab.kernels_cpu.spmm import BlockWeights, MaskedWeights, Product, Sums
from sparsefab.kernels_cpu.spmm_tiles import run_of
from sparsefab.kernels_cpu.threads import available_threads
from sparsefab.kernels_cpu.tile_weights import STEP_INPUTS, TileWeights

AMX = [pytest.param(Level.AVX512_AMX, marks=[] if runs(Level.AVX512_AMX) else [pytest.mark.slow])]


def matrix_of(rows, columns, density, *, block=4, seed=0):
    """Random weights that keep whole blocks of rows."""
    random = np.random.default_rng(seed)
    mask = np.repeat(random.random((-(-rows // block), columns)) < density, block, axis=0)[:rows]
    return np.where(mask, random.integers(-128, 128, (rows, columns)), 0).astype(np.int8)


def codes_of(tokens, columns, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (tokens, columns)).astype(np.uint8)


def expanded(weights, rows, columns):
    """Read TileWeights back, mask by mask."""
    if not weights.shared:
        tiles = weights.values.reshape(-1, weights.steps, 32, STEP_INPUTS)
    else:
        tiles = np.zeros((len(weights.starts), weights.steps, 32, STEP_INPUTS), np.int8)
        for block, at in enumerate(weights.starts.tolist()):
            for step in range(weights.steps):
                for row in range(32):
                    bits = int(weights.masks[block, step, row // weights.shared])
                    kept = [k for k in range(STEP_INPUTS) if bits >> k & 1]
                    tiles[block, step, row, kept] = weights.values[at : at + len(kept)]
                    at += len(kept)
    return tiles.transpose(0, 2, 1, 3).reshape(-1, weights.steps * STEP_INPUTS)[:rows, :columns]


@pytest.mark.parametrize(
    ("rows", "columns", "density", "block", "shared"),
    [
        (64, 128, 1.0, 4, 0),
        (63, 127, 0.97, 4, 0),
        (33, 65, 0.95, 4, 4),
        (100, 70, 0.3, 4, 4),
        (40, 200, 0.5, 1, 1),
        (8, 64, 0.0, 4, 4),
    ],
)
def test_every_form_holds_the_matrix(rows, columns, density, block, shared):
    matrix = matrix_of(rows, columns, density, block=block)
    weights = TileWeights.of(matrix)
    assert weights.shared == shared
    assert weights.values.ctypes.data % 64 == 0
    np.testing.assert_array_equal(expanded(weights, rows, columns), matrix)
    if shared:
        stored = int((matrix != 0).sum())
        assert weights.nbytes >= stored
        if density:
            assert weights.nbytes < weights.steps * STEP_INPUTS * 32 * len(weights.starts)


@pytest.mark.parametrize("level", AMX)
@pytest.mark.parametrize(
    ("rows", "columns", "tokens", "density", "width"),
    [
        (70, 1700, 200, 0.2, 64),  # three chunks of inputs of unlike length
        (70, 1700, 50, 0.4, 64),  # chunks of few steps, in one panel
        (70, 1700, 30, 0.6, 32),  # in one half: sums stay in their tiles; more stored than two rows to a register
        (36, 4096, 300, 0.5, 64),  # more panels than are arranged at a time
        (36, 4096, 70, 1.0, 64),
        (130, 770, 100, 0.3, 32),
        (3, 64, 1, 1.0, 32),
        (70, 830, 33, 0.3, 16),
        (40, 64, 16, 1.0, 16),
    ],
)
def test_blocks_chunks_and_runs_equal_numpy(level, rows, columns, tokens, density, width):
    matrix, codes = matrix_of(rows, columns, density), codes_of(tokens, columns)
    product = Product(BlockWeights.from_columns(matrix), Sums(), zero_point=3, level=level, emulate=True)
    assert product.tiled(width, 1) is not None
    result = rows_of(product.run(panels_of(codes, width=width)), tokens=tokens, outputs=rows)
    np.testing.assert_array_equal(result, (codes.astype(np.int64) - 3) @ matrix.T.astype(np.int64))


def test_a_long_run_is_arranged_in_parts():
    assert run_of(5, 64, 64) == 2
    assert run_of(1, 64, 64) == 1
    assert run_of(100, 4, 64) == 32


@pytest.mark.parametrize("level", AMX)
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_threads_cut_blocks_anywhere(level, density):
    threads = min(2, available_threads())
    matrix, codes = matrix_of(148, 200, density), codes_of(70, 200)
    product = Product(BlockWeights.from_columns(matrix), Sums(), level=level, emulate=True)
    result = rows_of(product.run(panels_of(codes), threads=threads), tokens=70, outputs=148)
    np.testing.assert_array_equal(result, codes.astype(np.int64) @ matrix.T.astype(np.int64))


@pytest.mark.parametrize("level", AMX)
@pytest.mark.parametrize("columns", [64, 100, 3])
@pytest.mark.parametrize("width", [64, 16])
def test_interleaved_panels_are_copied(level, columns, width):
    matrix, codes = matrix_of(20, columns, 0.7, block=1), codes_of(90, columns)
    product = Product(BlockWeights.from_matrix(matrix), Sums(), level=level, emulate=True)
    result = rows_of(product.run(interleaved(panels_of(codes, width=width))), tokens=90, outputs=20)
    np.testing.assert_array_equal(result, codes.astype(np.int64) @ matrix.T.astype(np.int64))


@pytest.mark.real_choice
def test_tiles_are_taken_where_they_are_faster():
    def product(weights, level=Level.AVX512_AMX):
        return Product(weights, Sums(), level=level, emulate=True)  # only the choice is looked at, nothing is run

    dense = product(BlockWeights.from_matrix(matrix_of(256, 512, 1.0)))
    half = product(BlockWeights.from_columns(matrix_of(256, 512, 0.5)))
    tenth = product(BlockWeights.from_columns(matrix_of(256, 512, 0.1)))
    assert dense.tiled(64, 1) is not None
    assert half.tiled(64, 1) is not None
    assert half.tiled(32, 1) is not None
    assert dense.tiled(16, 1) is not None
    assert half.tiled(1, 1) is None
    assert tenth.tiled(64, 1) is None
    assert product(dense.weights, Level.AVX512_VNNI).tiled(64, 1) is None


def test_without_the_systems_permission_the_level_does_not_run(monkeypatch):
    monkeypatch.setattr(features, "tiles_granted", lambda: False)
    assert not runs(Level.AVX512_AMX)


def test_matrices_come_back_out_of_their_blocks():
    for rows, columns, density in ((20, 33, 0.3), (8, 64, 1.0), (5, 3, 0.5)):
        matrix = matrix_of(rows, columns, density)
        np.testing.assert_array_equal(BlockWeights.from_columns(matrix).matrix(), matrix)
        np.testing.assert_array_equal(BlockWeights.from_matrix(matrix).matrix(), matrix)
    masks = np.array([0x0F0F0F0F0F0F0F0F, 0x3333333333333333], np.uint64)
    values = np.arange(72, dtype=np.int8)
    weights = MaskedWeights(rows=4, columns=32, tile_bytes=32, values=values, masks=masks)
    dense = weights.matrix()
    assert dense.shape == (4, 32)
    np.testing.assert_array_equal(dense.sum(axis=1), weights.row_sums())
