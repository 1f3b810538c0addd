"""Block formats on their way through recipes, convolutions, calibration and export."""

from pathlib import Path

import numpy as np
import pytest

from sparsefab.errors import ConfigError
from sparsefab.formats import BlockFormat, StaticScale, get_format
from sparsefab.models.compress import CompressedLayer, Recipe, Rule, assign, compress, round_to_nearest
from sparsefab.models.evaluate import BitTrueRunner, agreement
from sparsefab.models.evaluate.calibrate import BIAS_LIMIT, coarse_rows
from sparsefab.models.evaluate.runner import static_bias
from sparsefab.models.graph import Graph, Node, Value
from sparsefab.models.model import Model
from sparsefab.models.safetensors_export import export_safetensors, read_tensors
from sparsefab.workload import Convolution, Workload


def convolution(kernel: int, groups: int, rng: np.random.Generator) -> Model:
    """One convolution of 64 to 16 channels on 5 x 6 pixels."""
    weights = rng.normal(0, 0.2, (16, 64 // groups * kernel * kernel)).astype(np.float32)
    pads = (kernel // 2,) * 4
    node = Node(op="Conv", name="c", inputs=("x", "b"), outputs=("y",), layer="c",
                attributes={"kernel_shape": (kernel, kernel), "pads": pads, "group": groups})  # fmt: skip
    layer = Convolution(name="c", out_channels=16, in_channels=64, kernel=(kernel, kernel), padding=pads, groups=groups,
                        out_height=5, out_width=6, bias=True)  # fmt: skip
    return Model(
        name="conv", weights={"c": weights}, initializers={"b": np.ones(16, np.float32)},
        workload=Workload(name="conv", family="cnn", layers=(layer,)),
        graph=Graph(nodes=(node,), inputs=(Value(name="x", dtype="float32", shape=("n", 64, 5, 6)),),
                    outputs=(Value(name="y", dtype="float32", shape=("n", 16, 5, 6)),)),
    )  # fmt: skip


@pytest.mark.parametrize("weights", ["mxfp4", "mxint8-f2", "nvfp4", "mxfp8_e5m2", "e7m2"])
@pytest.mark.parametrize(("kernel", "groups"), [(3, 1), (3, 4), (1, 1)])
def test_convolutions(weights: str, kernel: int, groups: int) -> None:
    """Weights in blocks along a window's inputs; activations too where a pixel is a window."""
    rng = np.random.default_rng(kernel + groups)
    model = convolution(kernel, groups, rng)
    images = rng.normal(0, 1, (2, 64, 5, 6)).astype(np.float32) * np.array([1, 9], np.float32)[:, None, None, None]
    for activations in ("uint8", "int8", *((weights,) if kernel == 1 else ())):
        compressed = compress(model, Recipe(name="r", rules=(Rule(weights=weights, activations=activations),)))
        if compressed.uncalibrated:
            static = StaticScale.of_range(float(images.min()), float(images.max()), get_format("uint8"))
            compressed = compressed.with_static({"c": static})
        [result] = agreement(BitTrueRunner(compressed), {"x": images}, tokens=20)
        assert (result.outputs, result.mismatches) == (20 * 16, 0)


def test_block_activations_need_a_pixel_to_be_a_window() -> None:
    model = convolution(3, 1, np.random.default_rng(0))
    rule = Rule(weights="mxfp4", activations="mxfp4")
    found = assign(model.workload, Recipe(name="r", rules=(rule,)))
    assert found.layers["c"].activations.name == "uint8"
    assert any("1x1 convolution" in text for _, text in found.notes)
    named = Rule(layers=("c",), weights="mxfp4", activations="mxfp4")
    with pytest.raises(ConfigError, match="layer c: mxfp4 activations need a 1x1 convolution"):
        assign(model.workload, Recipe(name="r", rules=(named,)))


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"weights": "mxfp4", "group_size": 64}, "brings blocks of 32; leave group_size out"),
        ({"weights": "nvfp4", "method": "rtn-clip"}, "does not apply to 'nvfp4'"),
        ({"weights": "float8_e8m0fnu"}, "holds no zero"),
        ({"activations": "e8m0fnu"}, "holds no zero"),
        ({"weights": "e4m3b256"}, "float32 scales reach"),
        ({"weights": "mxfp4-f99"}, "fraction_bits must be 0 to 32"),
    ],
)
def test_rules_that_cannot_be_are_refused(rule: dict, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Rule(**rule)


@pytest.mark.parametrize("name", ["mxfp4", "mxint8-up", "nvfp4", "nvfp4-row", "mxfp6_e3m2-f3-b16"])
def test_safetensors_bring_blocks_back(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    model = convolution(1, 1, rng)
    tensor = round_to_nearest(model.weights["c"], get_format(name))
    export_safetensors(model, tmp_path / "w.safetensors", {"c": tensor})
    back = read_tensors(tmp_path / "w.safetensors")["c"]
    assert back.format == tensor.format
    np.testing.assert_array_equal(back.codes, tensor.codes)
    np.testing.assert_array_equal(back.block_scales, tensor.block_scales)
    np.testing.assert_array_equal(back.dequantize(), tensor.dequantize())


@pytest.mark.parametrize("name", ["mxfp4", "mxint8", "nvfp4", "nvfp4-row"])
def test_dead_rows_with_a_bias_get_coarser_scales(name: str) -> None:
    """A bias of a billion billion of a row's units; rows that need nothing keep their weights."""
    rng = np.random.default_rng(2)
    weights = rng.normal(0, 0.1, (4, 64)).astype(np.float32)
    weights[2] *= np.float32(1e-30)
    if name == "nvfp4":  # one scale a tensor: all rows are that small
        weights *= np.float32(1e-30)
    fmt = get_format(name)
    assert isinstance(fmt, BlockFormat)
    tensor = round_to_nearest(weights, fmt)
    layer = CompressedLayer(tensor=tensor, activations=get_format("uint8"), dynamic=False,
                            static=StaticScale(scale=0.02, zero_point=7), relative_error=0.0)  # fmt: skip
    bias = np.ones(4, np.float32)
    coarse = coarse_rows(layer, bias)
    units = coarse.accumulator_scale.astype(np.float64) * 0.02
    finer = fmt.fraction_bits if fmt.is_mx else 18
    assert (bias / units <= BIAS_LIMIT << finer).all()
    changed = CompressedLayer(tensor=coarse, activations=layer.activations, dynamic=False, static=layer.static,
                              relative_error=0.0)  # fmt: skip
    assert np.abs(static_bias(changed, bias)).max() <= BIAS_LIMIT << finer
    if name != "nvfp4":
        np.testing.assert_array_equal(coarse.dequantize()[[0, 1, 3]], tensor.dequantize()[[0, 1, 3]])
