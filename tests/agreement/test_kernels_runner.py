"""Whole embedded models: kernels == the evaluation's arithmetic, every output, to the bit."""

from pathlib import Path

import numpy as np
import pytest

from sparsefab.kernels_cpu.layer_weights import block_weights
from sparsefab.kernels_cpu.runner import KernelRunner
from sparsefab.kernels_cpu.threads import available_threads
from sparsefab.models.compress import compress, find_recipe
from sparsefab.models.evaluate.calibrate import calibrate
from sparsefab.models.evaluate.runner import BitTrueRunner
from sparsefab.models.execute import execute
from sparsefab.models.graph import Graph, Node, Value
from sparsefab.models.model import Model
from sparsefab.models.source import resolve
from sparsefab.workload import Convolution, Workload


def feeds_of(name, seed, count):
    random = np.random.default_rng(seed)
    if name == "char-llama":
        return {"input_ids": random.integers(0, 60, (1, count))}
    return {"image": random.random((count, 1, 28, 28), np.float32)}


@pytest.mark.parametrize(
    ("name", "recipe", "served"),
    [
        ("char-llama", "w8", 1.0),
        ("char-llama", "w8-4x1-70", 1.0),
        ("char-llama", "w4g32", 0.9),
        ("char-llama", "w4g64z", 0.9),
        ("char-llama", "w4g16-1x16-50", 1.0),
        ("char-llama", "w3g32z-o1", 1.0),
        ("char-llama", "w8-2of4", 1.0),
        ("char-llama", "w6", 1.0),
        ("char-llama", "e2m3", 1.0),
        ("char-llama", "fp8", 0.0),
        ("fashion-resnet8", "w8", 1.0),
        ("fashion-resnet8", "w4", 1.0),
        ("fashion-resnet8", "w8-4x1-50", 1.0),
    ],
)
def test_a_model_on_kernels_gives_the_same_bits(name, recipe, served):
    model = resolve(name, Path("unused")).load()
    compressed = compress(model, find_recipe(recipe))
    compressed = calibrate(compressed, [feeds_of(name, 0, 8)])
    runner = KernelRunner(compressed)
    kernels = {layer: kernel for layer, kernel in runner.kernels.items() if not kernel.startswith("none: ")}
    assert len(kernels) >= served * len(compressed.layers), runner.kernels
    for count in (1, 37):
        feeds = feeds_of(name, 1, count)
        expected = execute(model, feeds, runner=BitTrueRunner(compressed))
        result = execute(model, feeds, runner=runner)
        for output in expected:
            np.testing.assert_array_equal(result[output].view(np.uint32), expected[output].view(np.uint32))


def test_a_convolution_with_groups_is_left_to_the_bit_true_runner():
    layer = Convolution(
        name="depthwise", out_channels=8, in_channels=8, kernel=(3, 3), groups=8, out_height=4, out_width=4
    )
    node = Node(op="Conv", name="depthwise", inputs=("image",), outputs=("y",), layer="depthwise",
                attributes={"group": 8, "kernel_shape": (3, 3)})  # fmt: skip
    random = np.random.default_rng(4)
    model = Model(
        name="grouped",
        workload=Workload(name="grouped", family="cnn", layers=(layer,)),
        graph=Graph(
            nodes=(node,),
            inputs=(Value(name="image", dtype="float32", shape=("batch", 8, 6, 6)),),
            outputs=(Value(name="y", dtype="float32", shape=("batch", 8, 4, 4)),),
        ),
        weights={"depthwise": random.normal(size=(8, 9)).astype(np.float32)},
        initializers={},
    )
    feeds = {"image": random.normal(size=(3, 8, 6, 6)).astype(np.float32)}
    compressed = calibrate(compress(model, find_recipe("w8")), [feeds])
    runner = KernelRunner(compressed)
    assert runner.kernels == {"depthwise": "none: no kernel for convolutions with groups"}
    expected = execute(model, feeds, runner=BitTrueRunner(compressed))["y"]
    np.testing.assert_array_equal(execute(model, feeds, runner=runner)["y"], expected)


@pytest.mark.skipif(available_threads() < 2, reason="one processor")
@pytest.mark.parametrize("recipe", ["w8", "w8-4x1-70", "w4g32"])
def test_two_threads_give_the_same_bits(recipe):
    compressed = compress(resolve("char-llama", Path("unused")).load(), find_recipe(recipe))
    feeds = feeds_of("char-llama", 2, 200)  # 512 x 192 x 200 multiplications are worth a second thread
    one, two = (
        execute(compressed.model, feeds, runner=KernelRunner(compressed, threads=threads))["logits"]
        for threads in (1, 2)
    )
    np.testing.assert_array_equal(two.view(np.uint32), one.view(np.uint32))


@pytest.mark.parametrize(("recipe", "aligned"), [("w8", True), ("w8-2of4", True), ("w8-4x1-50", False)])
def test_the_faster_kind_of_blocks_is_chosen(recipe, aligned):
    compressed = compress(resolve("char-llama", Path("unused")).load(), find_recipe(recipe))
    kinds = [block_weights(layer.tensor).aligned for layer in compressed.layers.values()]
    assert sum(kind == aligned for kind in kinds) > len(kinds) / 2
