"""Plans against ONNX Runtime on the same quantized weights: both bounds hold, and a fault in either breaks one."""

import numpy as np
import pytest

from sparsefab.errors import ModelError
from sparsefab.kernels_cpu import onnx_agreement
from sparsefab.kernels_cpu.decoder import DecoderPlan
from sparsefab.kernels_cpu.onnx_agreement import compare_decoder, compare_encoder
from sparsefab.kernels_cpu.plan import EncoderPlan
from sparsefab.models.compress import compress, find_recipe
from sparsefab.models.source import resolve
from sparsefab.models.tokenize import load_tokenizer
from tests.unit.kernels_cpu.berts import feeds_of, quantized, random_bert
from tests.unit.kernels_cpu.llamas import VOCABULARY, compressed, random_llama

pytest.importorskip("onnxruntime")

IDS = np.random.default_rng(0).integers(0, VOCABULARY, 70)


@pytest.mark.parametrize("recipe", ["w8", "w4g32"])
def test_char_llama(recipe, tmp_path):
    source = resolve("char-llama", tmp_path)
    model = compress(source.load(), find_recipe(recipe))
    ids = load_tokenizer(source.file).encode("The king of all the land by the river, and he that will not hear it, ")
    found = compare_decoder(DecoderPlan(model), model, ids, 20)
    assert found.holds
    assert found.compared == (len(ids) - 19) * 84
    assert found.median < 1e-5  # most logits follow no code that turned
    assert found.other_choices == 0


@pytest.mark.parametrize(
    ("shape", "rule"),
    [
        ({"heads": 4, "kv_heads": 1, "head_dim": 32, "bias": True}, {}),
        ({}, {"weights": "int4", "group_size": 16}),
        ({}, {"weights": "int8", "group_size": 40}),  # the last group is short
        ({}, {"weights": "int3", "group_size": 16, "outliers": 0.02}),
        ({}, {"pattern": "4x1@0.4"}),
        ({}, {"weights": "uint3", "group_size": 40, "outliers": 0.03}),
    ],
)
def test_decoders_of_all_kinds_of_weights(shape, rule):
    model = compressed(random_llama(**shape), **rule)
    found = compare_decoder(DecoderPlan(model), model, IDS, 30)
    assert found.holds
    assert found.farthest < 0.02


def test_a_fault_in_a_weight_breaks_the_decoder_s_bounds():
    model = compressed(random_llama())
    plan = DecoderPlan(model)
    layer = model.layers[plan.graph.blocks[0].down]
    layer.tensor.codes[:8] = -layer.tensor.codes[:8]
    assert not compare_decoder(plan, model, IDS, 30).holds


def test_a_layer_without_a_form_is_named():
    model = compressed(random_llama(), weights="int4", group_size=16)
    plan = DecoderPlan(model)
    layer = model.layers[plan.graph.blocks[0].down]
    layer.tensor.group_multipliers[:] = 65535
    with pytest.raises(ModelError, match="down_proj has no form in ONNX: sums can reach"):
        compare_decoder(plan, model, IDS, 30)


@pytest.mark.parametrize("pattern", ["dense", "4x1@0.5"])
def test_encoders(pattern):
    source = quantized(random_bert(width=64, inner=128, heads=4), pattern)
    batches = [feeds_of([40, 23, 7]), feeds_of([70], seed=2), feeds_of([16], seed=3)]
    found = compare_encoder(EncoderPlan(source), batches)
    assert found.holds
    assert found.compared == 5


def test_a_fault_in_a_constant_breaks_the_encoder_s_bounds():
    plan = EncoderPlan(quantized(random_bert()))
    plan._blocks["attention"]["ratio"][0] *= np.float32(1.01)
    assert not compare_encoder(plan, [feeds_of([40, 23, 7])]).holds


def test_a_runtime_that_cannot_run_it_is_named(monkeypatch):
    monkeypatch.setattr(onnx_agreement, "onnx_bytes", lambda *arguments, **named: (b"no graph", ()))
    model = compressed(random_llama(layers=1))
    with pytest.raises(ModelError, match=r"ONNX Runtime [\d.]+ does not run the graph: "):
        compare_decoder(DecoderPlan(model), model, IDS, 30)


def test_without_the_runtime_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(onnx_agreement.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="ONNX Runtime is not installed: pip install"):
        compare_encoder(EncoderPlan(quantized(random_bert(layers=1))), [feeds_of([5])])
