"""Peers in processes of their own: how they are asked, what they are given, and why one is absent."""

import sys

import numpy as np
import pytest

from sparsefab.formats.requantize import Requantizer
from sparsefab.kernels_cpu import bench_pairs as pairs_module
from sparsefab.kernels_cpu import intel_jit, peer_processes
from sparsefab.kernels_cpu.bench_pairs import bench_pairs
from sparsefab.kernels_cpu.features import Level, runs
from sparsefab.kernels_cpu.panels import panels_of, rows_of
from sparsefab.kernels_cpu.spmm import BlockWeights, Codes, Product

ENGINE = """
import time
__version__ = "0"
now = 0.0
time.perf_counter = lambda: now
class Engine:
    def __init__(self, path, batch_size, num_cores):
        self.layers = open(path, "rb").read().count(b"QLinearMatMul")
        assert num_cores == 1
    def run(self, inputs, val_inp):
        global now
        assert inputs[0].shape == (1, 8, 32)
        now += 0.002 * self.layers
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """A Python whose deepsparse is a stand-in, and whose clock says 2 ms a layer."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "deepsparse.py").write_text(ENGINE)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "fake"} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    for module in (peer_processes, pairs_module):
        monkeypatch.setattr(module, "environment_of", lambda name, cache: python)
    return tmp_path


def test_a_pair_costs_a_quarter_of_what_eight_layers_do(worker):
    pytest.importorskip("onnx")
    rows, absent = bench_pairs(
        shapes=[(16, 32)], densities=[0.5], tokens=[8], peers=["deepsparse"], cache=worker, rounds=3
    )
    assert absent == {}
    (row,) = rows
    assert (row.rows, row.columns, row.tokens, row.threads, row.peer) == (16, 32, 8, 1, "deepsparse 0")
    assert row.peer_median_s == pytest.approx(0.004)
    assert row.ratio > 0
    assert not list((worker / "peers").glob("*.onnx"))


def test_the_graph_computes_what_ours_does(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    random = np.random.default_rng(2)
    pair = tuple(random.integers(-64, 64, shape).astype(np.int8) for shape in ((16, 32), (32, 16)))
    peer_processes._write_graph(tmp_path / "two.onnx", pair, 8, 2)
    x = random.random((1, 8, 32), np.float32)
    session = runtime.InferenceSession(str(tmp_path / "two.onnx"), providers=["CPUExecutionProvider"])
    codes = np.clip(np.rint(x[0] * np.float32(255)) + 128, 0, 255).astype(np.uint8)
    for matrix in pair:
        spread = np.sqrt((matrix.astype(float) ** 2).sum(axis=1).mean())
        epilogue = Codes(requantizer=Requantizer.of(np.full(len(matrix), 1 / spread), 128, 0, 255))
        product = Product(BlockWeights.from_columns(matrix), epilogue, zero_point=128)
        codes = rows_of(product.run(panels_of(codes)), tokens=8, outputs=len(matrix))
    found = np.rint(session.run(None, {"x": x})[0][0] * 255) + 128
    assert np.abs(found - codes).max() <= 2  # theirs rounds once in float, ours twice in integers, and so per layer


def test_a_peer_that_cannot_be_had_is_absent_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("sparsefab.kernels_cpu.peer_processes.shutil.which", lambda name: None)
    rows, absent = bench_pairs(
        shapes=[(16, 32)], densities=[0.5], tokens=[8], peers=["deepsparse", "intel"], cache=tmp_path
    )
    assert rows == ()
    assert absent["deepsparse"] == "it needs python3.11, which is not installed"
    assert ("python3.11" if runs(Level.AVX512_VNNI) else "avx512vnni") in absent["intel"]


def test_a_worker_that_ends_is_an_absent_peer(worker):
    pytest.importorskip("onnx")
    (worker / "fake" / "deepsparse.py").write_text("raise SystemExit(3)")
    rows, absent = bench_pairs(
        shapes=[(16, 32)], densities=[0.5], tokens=[8], peers=["deepsparse"], cache=worker, rounds=1
    )
    assert rows == ()
    assert absent == {"deepsparse": "its worker ended with exit code 3"}


DRIVER = """#!{python}
import sys
rows, inputs, tokens, panel, rows_a_task, path = sys.argv[1:]
assert len(open(path, "rb").read()) == 2 * int(rows) * int(inputs)
if rows_a_task == "0":
    sys.exit(5)
print("ready", flush=True)
for line in sys.stdin:
    print(1e-3 * int(panel) + 1e-6 * int(rows_a_task), flush=True)
"""


def test_the_fastest_choice_of_intel_s_jit_is_timed(tmp_path, monkeypatch):
    driver = tmp_path / "driver"
    driver.write_text(DRIVER.format(python=sys.executable))
    driver.chmod(0o755)
    (tmp_path / "peers").mkdir()
    monkeypatch.setattr(pairs_module, "environment_of", lambda name, cache: driver)
    monkeypatch.setattr(intel_jit, "driver_of", lambda cache: driver)
    asked = {"shapes": [(16, 32)], "densities": [0.5], "peers": ["intel"], "cache": tmp_path, "rounds": 2}
    (row,), absent = bench_pairs(tokens=[128], **asked)
    assert absent == {}
    assert (row.peer, row.tokens) == ("intel jit 1.4.2", 128)
    assert row.peer_median_s == pytest.approx(0.064064)  # panels of 64, 64 rows; what ends at once is left out
    assert not list((tmp_path / "peers").iterdir())
    rows, absent = bench_pairs(tokens=[24], **asked)
    assert rows == ()
    assert "fills 24 tokens" in absent["intel"]


def test_the_driver_s_source_is_compiled_once_for_the_library(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib/python3.11/site-packages/intel_extension_for_transformers").mkdir(parents=True)
    monkeypatch.setattr(intel_jit, "environment_of", lambda name, cache: tmp_path / "bin" / "python")
    monkeypatch.setattr(intel_jit.shutil, "which", lambda name: "/usr/bin/g++")
    commands = []

    def made(command):
        commands.append(command)
        (tmp_path / "bin" / "intel_driver").touch()

    monkeypatch.setattr(intel_jit, "made_by", made)
    assert intel_jit.driver_of(tmp_path) == intel_jit.driver_of(tmp_path) == tmp_path / "bin" / "intel_driver"
    assert len(commands) == 1
    assert commands[0][0] == "/usr/bin/g++"
    (tmp_path / "bin" / "intel_driver").unlink()
    monkeypatch.setattr(intel_jit.shutil, "which", lambda name: None)
    with pytest.raises(ImportError, match=r"needs g\+\+, which is not installed"):
        intel_jit.driver_of(tmp_path)


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="peer must be one of deepsparse, intel, not 'atlas'"):
        bench_pairs(shapes=[], densities=[], tokens=[], peers=["atlas"], cache=tmp_path)
    with pytest.raises(ValueError, match="densities above 0"):
        bench_pairs(shapes=[], densities=[0], tokens=[], peers=[], cache=tmp_path)
