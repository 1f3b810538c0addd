"""The encoders' bench: what it reports, and what it refuses."""

import json

import pytest

from sparsefab.cli.main import main
from sparsefab.kernels_cpu.bench_encoder import bench_encoder, random_encoder, sparse_encoder
from tests.unit.kernels_cpu.berts import quantized, random_bert

pytest.importorskip("onnxruntime")


def test_a_row_a_point_with_all_peers_and_shares_of_one():
    source = quantized(random_bert())
    table = bench_encoder(source, label="small", density=0.5, sequences=(20, 40), batches=(1, 2), rounds=3)
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
    assert set(table.graph_bytes) == {"float", "dynamic", "static"}


@pytest.mark.slow
def test_the_verb_prints_json(capsys):
    asked = ["--sequence", "16", "--batch", "1", "--rounds", "2"]
    code = main(["bench", "encoder", "--model", "bert-tiny", *asked, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert found["label"] == "bert-tiny, random weights"
    assert found["rows"][0]["sequence"] == 16
    assert found["geometric_means"]["int8"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"peers": ("torch",)}, "peer must be onnxruntime, not 'torch'"),
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
