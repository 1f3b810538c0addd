"""The figures that the CPU kernels are built for; run by hand on an idle machine, never in CI."""

import pytest

from sparsefab.kernels_cpu.bench import bench, geometric_mean
from sparsefab.kernels_cpu.bench_encoder import bench_encoder, random_encoder, sparse_encoder
from sparsefab.kernels_cpu.bench_stream import bench_stream
from sparsefab.kernels_cpu.features import Level, runs
from sparsefab.storage import default_cache_dir

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.slow,
    pytest.mark.skipif(not runs(Level.AVX512_VNNI), reason="needs AVX512-VNNI"),
]


def test_block_sparse_products_reach_their_share_of_the_peak():
    table = bench(densities=[0.3, 0.2])
    fractions = [row.fraction_of_peak for row in table.rows]
    print(table.peaks)
    print(fractions)
    assert geometric_mean(fractions) >= 0.62


def test_aligned_blocks_reach_the_dense_share_of_the_peak():
    table = bench(patterns=["4x4"], densities=[0.2])
    assert geometric_mean([row.fraction_of_peak for row in table.rows]) >= 0.80


@pytest.mark.parametrize(("density", "least"), [(0.3, 2.4), (0.2, 3.5), (0.1, 6.8)])
def test_block_sparse_products_beat_the_best_dense_library(density, least):
    pytest.importorskip("onnxruntime")
    table = bench(densities=[density], peers=["onnxruntime", "torch"])
    assert geometric_mean([row.best_dense().ratio for row in table.rows]) >= least


def test_decode_products_run_at_the_speed_of_memory():
    for row in bench_stream():
        assert row.source == "cache" or row.fraction_of_read >= 0.85


def test_whole_encoders_beat_other_runtimes():
    pytest.importorskip("onnxruntime")
    table = bench_encoder(
        sparse_encoder(random_encoder("minilm-l6"), 0.2), label="minilm-l6", density=0.2,
        peers=("onnxruntime", "deepsparse"), cache=default_cache_dir(),
    )  # fmt: skip
    print(table.rows, table.absent)
    missed = [str(figure) for figure in table.figures() if figure.met is False]
    assert not missed
