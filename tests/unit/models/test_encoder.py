"""The meaning of a quantized encoder against other oracles: float64, the layer-by-layer runner, the float model."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sparsefab.errors import ModelError
from sparsefab.formats import StaticScale
from sparsefab.models.compress import Recipe, Rule, compress
from sparsefab.models.evaluate.calibrate import calibrate
from sparsefab.models.evaluate.encoder import ENTERING, calibrate_encoder, gelu_table
from sparsefab.models.evaluate.encoder_graph import find_encoder
from sparsefab.models.evaluate.runner import BitTrueRunner
from sparsefab.models.execute import execute
from sparsefab.models.graph import Graph
from sparsefab.models.source import resolve
from tests.unit.kernels_cpu.berts import feeds_of, quantized, random_bert


@pytest.fixture(scope="module")
def dense():
    return quantized(random_bert(width=64, inner=128, heads=4), "dense")


@pytest.mark.parametrize("tanh", [False, True])
def test_all_256_entries_of_a_gelu_are_the_nearest_codes(tanh):
    entering, leaving = StaticScale(scale=0.031, zero_point=-3), StaticScale(scale=0.0153, zero_point=12)
    table = gelu_table(entering, leaving, tanh=tanh)
    for code in range(-128, 128):
        x = (code + 3) * 0.031
        inner = math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)) if tanh else math.erf(x / math.sqrt(2))
        exact = 0.5 * x * (1 + inner) / 0.0153 + 12
        assert abs(table[code & 255] - min(max(exact, 0), 255)) <= 0.5 + 1e-9


def test_attention_is_the_softmax_in_float64(dense):
    random = np.random.default_rng(0)
    q, k, v = (random.integers(-127, 128, (50, 64)).astype(np.int32) for _ in range(3))
    codes = dense._attend(0, q, k, v)
    scales, out = dense.scales[0], dense.input_scale(dense.graph.blocks[0].out)
    heads = [part.reshape(50, 4, 16).transpose(1, 0, 2).astype(np.float64) for part in (q, k, v)]
    scores = heads[0] @ heads[1].transpose(0, 2, 1) * (scales.query * scales.key / 4)
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    weights /= weights.sum(axis=2, keepdims=True)
    mixed = (weights @ heads[2]).transpose(1, 0, 2).reshape(50, 64) * scales.value
    # A code of a probability is off by half a 255th of the greatest, times 50 keys of random sign.
    exact = np.clip(mixed / out.scale + out.zero_point, 0, 255)
    assert np.abs(codes - exact).max() < 0.5 + 50 * 0.5 / 255 * 127 * scales.value / out.scale
    assert np.abs(codes - exact).mean() < 0.5


def test_its_linear_layers_are_those_of_the_layer_by_layer_runner(dense):
    random, runner = np.random.default_rng(1), BitTrueRunner(dense.compressed)
    for block in dense.graph.blocks:
        for name in (block.out, block.down):
            static = dense.input_scale(name)
            codes = random.integers(0, 256, (9, dense.layer(name).tensor.shape[1])).astype(np.int32)
            x = ((codes - static.zero_point) * np.float64(static.scale)).astype(np.float32)
            np.testing.assert_array_equal(dense._real(name, codes), runner(name, x))
        for name in (block.query, block.up):
            static = dense.input_scale(name)
            codes = random.integers(0, 256, (9, dense.layer(name).tensor.shape[1])).astype(np.int32)
            x = ((codes - static.zero_point) * np.float64(static.scale)).astype(np.float32)
            out = StaticScale(scale=0.02, zero_point=3)
            near = runner(name, x) / 0.02 + 3
            assert np.abs(dense._requantized(name, codes, out, ENTERING) - np.clip(near, -128, 127)).max() <= 0.52


def test_it_stays_near_the_float_model(dense):
    feeds = feeds_of([40, 25], seed=8)
    exact, result = execute(dense.compressed.model, feeds), dense.run(feeds)
    for row in range(2):
        a, b = exact["embedding"][row], result["embedding"][row]
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.995


@pytest.mark.parametrize("name", ["char-llama", "fashion-resnet8"])
def test_other_architectures_are_refused(name):
    with pytest.raises(ModelError, match="is no BERT-type encoder: "):
        find_encoder(resolve(name, Path("unused")).load())


def test_a_changed_graph_is_refused_and_says_where():
    model = random_bert(layers=1)
    nodes = tuple(replace(node, op="Relu", attributes={}) if node.op == "Gelu" else node for node in model.graph.nodes)
    changed = replace(model, graph=Graph(nodes=nodes, inputs=model.graph.inputs, outputs=model.graph.outputs))
    with pytest.raises(ModelError, match="0 nodes of type Gelu read 'encoder"):
        find_encoder(changed)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule(layers=("*.0.output.dense",), weights="float"), "layer encoder.layer.0.output.dense stays in float32"),
        (Rule(activations="int8"), "reads int8.* activations; a compiled encoder needs static uint8"),
    ],
)
def test_recipes_beyond_the_plan_are_refused(rule, message):
    model, feeds = random_bert(layers=1), [feeds_of([20])]
    recipe = Recipe(name="test", rules=(Rule(weights="int8sym"), rule))
    with pytest.raises(ModelError, match=message):
        calibrate_encoder(calibrate(compress(model, recipe), feeds), feeds)


def test_no_calibration_data_is_an_error():
    feeds = [feeds_of([20])]
    compressed = calibrate(compress(random_bert(layers=1), Recipe(name="t", rules=(Rule(weights="int8sym"),))), feeds)
    with pytest.raises(ModelError, match="there is no calibration data"):
        calibrate_encoder(compressed, [])
