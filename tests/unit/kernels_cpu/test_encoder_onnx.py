"""The encoder's graphs in ONNX Runtime: the one with every rounding against the meaning, the others near float."""

import numpy as np
import pytest

from sparsefab.kernels_cpu.encoder_onnx import encoder_onnx
from sparsefab.kernels_cpu.plan import EncoderPlan
from sparsefab.models.execute import execute
from tests.unit.kernels_cpu.berts import feeds_of, quantized, random_bert

onnxruntime = pytest.importorskip("onnxruntime")


def run(model, feeds, *, optimize=True):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["embedding"], feeds)[0]


@pytest.fixture(scope="module")
def dense():
    return quantized(random_bert(width=64, inner=128, heads=4), "dense")


def angle_apart(a, b):
    return float(np.max(1 - (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))


def test_the_meaning_in_onnx_runtime(dense):
    """All integers are exact there, and the float operations the same, but for the order of two kinds of sums: what is
    off by more than float32's accuracy is a code that turned, and none may turn so many as all roundings are apart.
    """
    feeds = feeds_of([40, 23, 7])
    ours, plain = EncoderPlan(dense).embed(feeds), run(encoder_onnx(dense, "float"), feeds)
    apart, cost = (
        np.linalg.norm(theirs - ours, axis=1) / np.linalg.norm(ours, axis=1)
        for theirs in (run(encoder_onnx(dense, "meaning"), feeds, optimize=False), plain)
    )
    assert np.median(apart) < 1e-5
    assert apart.max() < 0.5 * cost.min(), (apart, cost)


def test_the_float_form_is_the_model_with_its_compressed_weights(dense):
    feeds = feeds_of([40, 23])
    weights = {name: layer.tensor.dequantize() for name, layer in dense.compressed.layers.items()}
    expected = execute(dense.compressed.model.with_weights(weights), feeds)["embedding"]
    np.testing.assert_allclose(run(encoder_onnx(dense, "float"), feeds), expected, atol=1e-4)
    fixed = encoder_onnx(dense, "float", batch=2, sequence=40)
    np.testing.assert_allclose(run(fixed, feeds), expected, atol=1e-4)


@pytest.mark.parametrize("form", ["dynamic", "static", "integer"])
def test_integer_forms_stay_near_the_float_one(dense, form):
    feeds = feeds_of([40, 23])
    assert angle_apart(run(encoder_onnx(dense, form), feeds), run(encoder_onnx(dense, "float"), feeds)) < 0.02
