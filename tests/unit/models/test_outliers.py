"""Outliers as recipes make them: which weights, how near, in what units, and which rules are refused."""

from pathlib import Path

import numpy as np
import pytest

from sparsefab.cost_models.capability import choose_kernel
from sparsefab.cost_models.cpu import route
from sparsefab.errors import TargetError
from sparsefab.formats import IntFormat, StaticScale, TensorSpec, get_format
from sparsefab.models.compress import CompressedLayer, Recipe, Rule, compress, find_recipe, round_to_nearest
from sparsefab.models.compress.outliers import outlier_mask, with_outliers
from sparsefab.models.compress.recipe import recipe_from_text
from sparsefab.models.evaluate.calibrate import coarse_rows
from sparsefab.models.safetensors_export import export_safetensors, read_tensors
from sparsefab.sim.layers import runs_on_chain
from sparsefab.targets import load_device
from tests.unit.kernels_cpu.llamas import random_llama

RANDOM = np.random.default_rng(5)
WEIGHTS = RANDOM.standard_t(2, (24, 128)).astype(np.float32)  # heavy tails


def quantized(weights: np.ndarray, mask: np.ndarray, name: str = "uint3", group_size: int | None = 32):
    rest = np.where(mask, np.float32(0), weights)
    return with_outliers(round_to_nearest(rest, get_format(name), group_size), weights, mask)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_the_greatest_share_is_marked(share: float) -> None:
    mask = outlier_mask(WEIGHTS, share)
    assert mask.sum() == round(share * WEIGHTS.size)
    if 0 < share < 1:
        assert np.abs(WEIGHTS[mask]).min() >= np.abs(WEIGHTS[~mask]).max()


@pytest.mark.parametrize("group_size", [32, None])
def test_they_are_near_and_the_rest_is_quantized_without_them(group_size: int | None) -> None:
    mask = outlier_mask(WEIGHTS, 0.01)
    tensor = quantized(WEIGHTS, mask, group_size=group_size)
    plain = round_to_nearest(np.where(mask, np.float32(0), WEIGHTS), get_format("uint3"), group_size)
    error = np.abs(tensor.dequantize() - WEIGHTS)
    assert (error[mask] <= 0.5001 * np.broadcast_to(tensor.row_scales[:, None], WEIGHTS.shape)[mask]).all()
    np.testing.assert_array_equal(tensor.codes, plain.codes)
    assert not plain.dequantize()[mask].any()
    whole = round_to_nearest(WEIGHTS, get_format("uint3"), group_size)
    assert np.linalg.norm(error) < np.linalg.norm(whole.dequantize() - WEIGHTS)


def test_a_row_scale_rises_for_an_outlier_beyond_15_bits() -> None:
    weights = WEIGHTS.copy()
    mask = np.zeros(weights.shape, bool)
    weights[3, 7], mask[3, 7] = 1e4, True
    tensor, plain = (
        quantized(weights, mask),
        round_to_nearest(np.where(mask, np.float32(0), weights), get_format("uint3"), 32),
    )
    assert tensor.outliers is not None
    assert tensor.outliers[3, 7] in (16382, 16383)
    assert tensor.dequantize()[3, 7] == pytest.approx(1e4, rel=1e-4)
    others = np.arange(24) != 3
    np.testing.assert_array_equal(tensor.row_scales[others], plain.row_scales[others])
    assert tensor.row_scales[3] > plain.row_scales[3]
    assert tensor.group_multipliers is not None
    assert tensor.group_multipliers.min() >= 1
    rowwise = quantized(np.where(mask, np.float32(1e9), weights), mask, "int4", None)
    assert rowwise.outliers is not None
    assert rowwise.outliers[3, 7] == 16383  # clipped: its row has one scale


def test_a_recipe_makes_them(tmp_path: Path) -> None:
    recipe = find_recipe("w3g32z-o1")
    assert recipe_from_text(recipe.text) == recipe
    rule = recipe.rules[0]
    model = random_llama()
    with_them = compress(model, recipe)
    without = compress(model, Recipe(name="w3", rules=(Rule(weights=rule.weights, group_size=32, method=rule.method),)))
    for name, layer in with_them.layers.items():
        if name == "lm_head":  # int8 a row under a wildcard
            assert layer.tensor.outliers is None
            continue
        assert layer.tensor.spec.outliers == pytest.approx(0.01 * layer.tensor.codes.size, abs=1)
        assert layer.relative_error < without.layers[name].relative_error
        assert not runs_on_chain(layer)
    tensors = {name: layer.tensor for name, layer in with_them.layers.items()}
    export_safetensors(model, tmp_path / "q.safetensors", tensors)
    for name, tensor in read_tensors(tmp_path / "q.safetensors").items():
        assert tensor.spec == tensors[name].spec
        np.testing.assert_array_equal(tensor.integers(), tensors[name].integers())


def test_coarser_rows_keep_their_outliers() -> None:
    """A bias beyond the accumulator makes a row's units larger, of its outliers as well."""
    weights = WEIGHTS.copy()
    weights[2] *= np.float32(1e-4)
    mask = outlier_mask(weights / np.abs(weights).max(axis=1, keepdims=True), 0.02)
    layer = CompressedLayer(
        tensor=quantized(weights, mask, "int8", None),
        activations=get_format("uint8"),
        dynamic=False,
        static=StaticScale(scale=0.02, zero_point=7),
        relative_error=0.0,
    )
    bias = np.where(np.arange(24) == 2, 1000.0, 0.0).astype(np.float32)
    coarse = coarse_rows(layer, bias)
    assert coarse.row_scales[2] > 1.5 * layer.tensor.row_scales[2]
    assert coarse.outliers is not None
    found = coarse.outliers[2] * coarse.row_scales[2]
    assert np.abs(found - layer.tensor.outliers[2] * layer.tensor.row_scales[2]).max() <= 0.51 * coarse.row_scales[2]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"outliers": -0.1}, "outliers must be a share of the weights, 0 to below 1, not -0.1"),
        ({"outliers": 1.0}, "not 1"),
        ({"outliers": 0.01, "weights": "e4m3"}, "are integers, not 'e4m3'"),
        ({"outliers": 0.01, "activations": "e4m3"}, "are integers, not 'e4m3'"),
        ({"outliers": 0.01, "weights": "mxfp4"}, "are integers, not 'mxfp4'"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rule: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rule(**rule)


def test_targets_without_a_kernel_refuse_them_and_a_cpu_counts_their_bytes() -> None:
    fmt = get_format("int4")
    assert isinstance(fmt, IntFormat)
    plain = TensorSpec.of(1024, 1024, fmt, None, 32)
    spec = TensorSpec.of(1024, 1024, fmt, None, 32, outliers=0.01)
    with pytest.raises(TargetError, match="no kernel adds outliers"):
        choose_kernel(load_device("a100"), spec, "int8")
    more = route(spec, "int8", 1024, 1024).weight_bytes - route(plain, "int8", 1024, 1024).weight_bytes
    assert more == 4 * spec.outliers + 4 * 1025
