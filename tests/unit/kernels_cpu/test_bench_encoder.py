"""The encoders' bench: what it reports, and what it refuses."""

import json
import sys
from dataclasses import replace

import pytest

from sparsefab.cli.main import main
from sparsefab.errors import SparseFabError
from sparsefab.kernels_cpu import peer_processes
from sparsefab.kernels_cpu.bench import geometric_mean
from sparsefab.kernels_cpu.bench_encoder import bench_encoder, random_encoder, sparse_encoder
from sparsefab.kernels_cpu.encoder_onnx import encoder_onnx
from sparsefab.kernels_cpu.figures import Figure
from sparsefab.kernels_cpu.footprint import footprint
from sparsefab.kernels_cpu.plan import EncoderPlan
from tests.unit.kernels_cpu.berts import quantized, random_bert

pytest.importorskip("onnxruntime")


def test_a_row_a_point_with_all_peers_and_shares_of_one():
    source = quantized(random_bert())
    table = bench_encoder(source, label="small", density=0.5, sequences=(20, 40), batches=(1, 2), rounds=3, apart=False)
    assert [(row.sequence, row.batch) for row in table.rows] == [(20, 1), (20, 2), (40, 1), (40, 2)]
    for row in table.rows:
        assert {peer.precision for peer in row.peers} == {"fp32", "int8"}
        assert all(peer.us_per_token > 0 and peer.ratio > 0 for peer in row.peers)
        assert row.us_per_token > 0
        if row.parts:
            assert sum(row.parts.values()) == pytest.approx(1)
    assert len(table.best("int8")) == 4
    least = min(peer.ratio for peer in table.rows[0].peers if peer.precision == "int8")
    assert table.best("int8")[0] == least
    assert {name.split(" ", 2)[2] for name in table.graph_bytes} >= {"float", "dynamic", "static"}
    assert set(table.graph_bytes) == {peer.name for peer in table.rows[0].peers}
    reached = {figure.name: figure for figure in table.figures()}
    int8 = "time of the fastest int8 peer over ours"
    assert reached[f"{int8}, least"].reached == min(table.best("int8"))
    assert reached[f"{int8}, geometric mean"].reached == pytest.approx(geometric_mean(table.best("int8")))
    assert reached["time of the fastest sparse int8 peer over ours, least"].met is None
    assert reached["compiling all kernels, s"].reached is None


@pytest.mark.slow  # all kernels are compiled anew
def test_memory_and_compile_times_are_those_of_processes_of_their_own():
    source = quantized(random_bert())
    graphs = {"float": encoder_onnx(source, "float").SerializeToString()}
    taken = footprint(source, graphs, batch=2, sequence=40, threads=1)
    assert taken.compile_cold_s > 5 * taken.compile_cached_s > 0
    assert taken.plan_resident_bytes > EncoderPlan(source).weight_bytes
    assert taken.graph_resident_bytes["float"] > len(graphs["float"])
    table = replace(small_table(source), footprint=taken)
    reached = {figure.name: figure.reached for figure in table.figures()}
    assert reached["compiling all kernels, s"] == taken.compile_cold_s
    held = table.weight_bytes + table.rows[0].buffer_bytes
    name = "weights and buffers, of the least that ONNX Runtime takes"
    assert reached[name] == held / taken.graph_resident_bytes["float"]


def small_table(source):
    return bench_encoder(
        source, label="small", density=0.5, sequences=(20,), batches=(1,), rounds=1, peers=(), apart=False
    )


def test_a_process_that_fails_says_why():
    with pytest.raises(SparseFabError, match=r"the process that measures memory failed: .*threads must be 1 to"):
        footprint(quantized(random_bert(layers=1)), {}, batch=1, sequence=8, threads=10_000)


def test_figures_are_met_at_their_goals():
    least, most = Figure(name="a", goal=2, reached=2.0), Figure(name="b", goal=2, reached=2.1, at_most=True)
    assert (least.met, most.met) == (True, False)
    assert str(most) == "b: 2.1, goal at most 2: missed"
    assert most.to_json() == {"name": "b", "goal": 2, "reached": 2.1, "at_most": True, "met": False}


ENGINE = """
import time
__version__ = "0"
now = 0.0
time.process_time = lambda: now
class Engine:
    def __init__(self, path, batch_size, num_cores):
        self.products, self.batch = open(path, "rb").read().count(b"MatMulInteger"), batch_size
        assert num_cores == 1
    def run(self, inputs, val_inp):
        global now
        ids, mask = inputs
        assert ids.shape == mask.shape == (self.batch, 24) and ids.dtype == "int64" and mask.min() == mask.max() == 1
        now += 1e-6 * self.batch * 24 * self.products
"""


def test_deepsparse_runs_two_graphs_in_a_process_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "deepsparse.py").write_text(ENGINE)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(peer_processes, "environment_of", lambda name, cache: python)
    asked = {"sequences": (24,), "batches": (1, 2), "rounds": 1, "peers": ("deepsparse",), "cache": tmp_path,
             "apart": False}  # fmt: skip
    table = bench_encoder(quantized(random_bert()), label="small", density=0.5, **asked)
    assert table.absent == {}
    for row in table.rows:
        static, integer = row.peers
        assert (static.name, integer.name) == ("deepsparse 0 static", "deepsparse 0 integer")
        assert {static.precision, integer.precision} == {"sparse int8"}
        assert 0 < static.us_per_token < integer.us_per_token  # attention has products of integers too
    assert not list((tmp_path / "peers").glob("*.onnx"))
    (tmp_path / "deepsparse.py").write_text("raise SystemExit(3)")
    table = bench_encoder(quantized(random_bert()), label="small", density=0.5, **asked)
    assert table.absent == {"deepsparse": "its worker ended with exit code 3"}
    assert [row.peers for row in table.rows] == [(), ()]


@pytest.mark.slow
def test_the_verb_prints_json(capsys):
    asked = ["--sequence", "16", "--batch", "1", "--rounds", "2"]
    code = main(["bench", "encoder", "--model", "bert-tiny", *asked, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert found["label"] == "bert-tiny, random weights"
    assert (found["weights"], found["speed_only"], found["clock"]) == ("random", True, "CPU time")
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert figures["loading all kernels, s"]["reached"] == found["footprint"]["compile_cached_s"]
    assert set(found["footprint"]["graph_resident_bytes"]) == set(found["graph_bytes"])
    assert found["rows"][0]["sequence"] == 16
    assert found["geometric_means"]["int8"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"peers": ("torch",)}, "peer must be one of onnxruntime, deepsparse, not 'torch'"),
        ({"sequences": (161,)}, "a sequence may have 160 tokens, not 161"),
        ({"sequences": ()}, "sequences and batches must not be empty"),
    ],
)
def test_what_cannot_be_timed_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        bench_encoder(quantized(random_bert(layers=1)), label="x", density=0.5, **arguments)


def test_shapes_and_densities_are_checked():
    with pytest.raises(ValueError, match=r"shape must be one of bert-tiny, minilm-l3, .*, not 'gpt'"):
        random_encoder("gpt")
    with pytest.raises(ValueError, match="density must be above 0 and at most 1, not 0"):
        sparse_encoder(random_bert(layers=1), 0)
