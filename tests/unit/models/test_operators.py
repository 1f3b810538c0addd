"""Operators against ONNX's own cases, against ONNX Runtime, and against formulas."""

import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sparsefab.errors import ModelError
from sparsefab.models.graph import Node
from sparsefab.models.onnx_import.reader import nodes_of
from sparsefab.models.operators import OPERATORS, apply
from sparsefab.models.operators.convolution import Geometry, convolve
from sparsefab.models.operators.elementwise import erf
from sparsefab.models.operators.reduction import softmax

# What is left out on purpose, by the case's name: each must be refused, never computed wrongly.
REFUSED = re.compile(
    r"test_(attention_.*(nonpad|padded_kv|qk_matmul|ext_cache|mask4d_padded_kv|_window).*|attention_2[34]_.*output_mode3.*"
    r"|(averagepool|maxpool)_3d.*|maxpool_with_argmax.*|(training_dropout|batchnorm_.*_training).*"
    r"|resize_(tf_crop|.*antialias|downsample_.*antialias).*|convtranspose_3d.*"
    r"|scatter_elements_with_(duplicate|reduction).*|scatternd_(add|multiply|max|min).*|reduce_.*_empty_set.*)"
)
EXACT_TYPES = {"float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"}


def test_onnx_cases() -> None:
    """All of ONNX's operator cases whose operators and element types are in the table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    wrong, passed, refused = [], 0, 0
    for case in cases:
        graph = case.model.graph
        if not {node.op_type for node in graph.node} <= set(OPERATORS) or not _plain(case):
            continue
        try:
            _check_case(case)
            passed += 1
        except ModelError as error:
            refused += 1
            if not REFUSED.fullmatch(case.name.removesuffix("_expanded")):
                wrong.append(f"{case.name}: {error}")
        except (AssertionError, KeyError) as error:
            wrong.append(f"{case.name}: {str(error).strip()[:200]}")
    assert not wrong, "\n".join(wrong)
    assert passed > 1000, passed
    assert refused < 80, refused


def _plain(case: Any) -> bool:
    arrays = [value for inputs, outputs in case.data_sets for value in (*inputs, *outputs)]
    return all(isinstance(value, np.ndarray | np.generic) and value.dtype.name in EXACT_TYPES for value in arrays)


def _check_case(case: Any) -> None:
    graph = case.model.graph
    for inputs, outputs in case.data_sets:
        names = [value.name for value in graph.input if value.name]
        values = {name: _narrow(value) for name, value in zip(names, inputs, strict=False)}
        values.update({tensor.name: _narrow(numpy_helper.to_array(tensor)) for tensor in graph.initializer})
        for node in nodes_of(Path(case.name), graph.node, _opset(case.model)):
            results = apply(node, [values[name] if name else None for name in node.inputs])
            values.update(zip(node.outputs, results, strict=False))
        for value, expected in zip(graph.output, outputs, strict=True):
            if value.name not in values:
                raise ModelError(f"nothing makes {value.name!r}")
            assert values[value.name].shape == np.shape(expected)
            assert values[value.name].dtype == _narrow(expected).dtype
            np.testing.assert_allclose(values[value.name], _narrow(expected), rtol=max(case.rtol, 1e-4), atol=1e-5)


def _opset(model: Any) -> int:
    return max(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _narrow(value: Any) -> NDArray[Any]:
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 else array


RUNTIME_CASES: list[tuple[str, dict[str, Any], list[tuple[int, ...]]]] = [
    ("Conv", {"pads": [1, 2, 0, 1], "strides": [2, 1]}, [(2, 3, 9, 8), (4, 3, 3, 3), (4,)]),
    ("Conv", {"group": 3, "dilations": [2, 2]}, [(2, 6, 9, 8), (9, 2, 3, 3)]),
    ("Conv", {"group": 6, "pads": [2, 2, 2, 2], "strides": [2, 2]}, [(2, 6, 9, 8), (6, 1, 5, 5), (6,)]),
    ("Conv", {"group": 4, "strides": [2, 2]}, [(1, 4, 8, 8), (8, 1, 3, 3)]),
    ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [(1, 2, 8, 7), (3, 2, 3, 3)]),
    ("Conv", {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, [(1, 2, 8, 7), (3, 2, 3, 3)]),
    ("Conv", {"strides": [2, 2]}, [(2, 5, 7, 7), (3, 5, 1, 1)]),
    ("Conv", {"pads": [1, 1]}, [(2, 5, 7), (3, 5, 3), (3,)]),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, [(2, 3, 9, 8)]),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1}, [(1, 2, 8, 8)]),
    ("MaxPool", {"kernel_shape": [3], "strides": [2]}, [(1, 2, 8)]),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}, [(2, 3, 9, 8)]),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, [(2, 3, 9, 8)]),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, [(2, 3, 8, 8)]),
    ("BatchNormalization", {"epsilon": 1e-3}, [(2, 3, 4, 5), (3,), (3,), (3,), (3,)]),
    ("LayerNormalization", {"axis": -1, "epsilon": 1e-12}, [(2, 5, 16), (16,), (16,)]),
    ("RMSNormalization", {"axis": -1, "epsilon": 1e-6}, [(2, 5, 16), (16,)]),
    ("InstanceNormalization", {}, [(2, 3, 4, 5), (3,), (3,)]),
    ("GroupNormalization", {"num_groups": 2}, [(2, 4, 3, 5), (4,), (4,)]),
    ("Gemm", {"transB": 1, "alpha": 0.5, "beta": 2.0}, [(4, 6), (5, 6), (5,)]),
    ("Gemm", {"transA": 1}, [(6, 4), (6, 5)]),
    ("Attention", {"q_num_heads": 4, "kv_num_heads": 2, "is_causal": 1}, [(2, 6, 32), (2, 6, 16), (2, 6, 16)]),
    ("Attention", {"scale": 0.3, "softcap": 5.0}, [(2, 4, 6, 8), (2, 4, 7, 8), (2, 4, 7, 8)]),
    ("RotaryEmbedding", {"num_heads": 4}, [(2, 6, 32), (2, 6, 4), (2, 6, 4)]),
    ("RotaryEmbedding", {"interleaved": 1}, [(2, 4, 6, 8), (2, 6, 4), (2, 6, 4)]),
    ("Gelu", {"approximate": "none"}, [(4, 33)]),
    ("Gelu", {"approximate": "tanh"}, [(4, 33)]),
    ("Softmax", {"axis": 1}, [(2, 5, 3)]),
    ("HardSwish", {}, [(4, 33)]),
    ("Einsum", {"equation": "bhid,bhjd->bhij"}, [(2, 3, 4, 5), (2, 3, 6, 5)]),
]


@pytest.mark.parametrize(
    ("op", "attributes", "shapes"),
    RUNTIME_CASES,
    ids=[f"{op}-{index}" for index, (op, _, _) in enumerate(RUNTIME_CASES)],
)
def test_against_onnx_runtime(op: str, attributes: dict[str, Any], shapes: list[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(7)
    inputs = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    if op == "BatchNormalization":
        inputs[4] = np.abs(inputs[4])
    names = [f"i{index}" for index in range(len(inputs))]
    proto = helper.make_node(op, names, ["y"], **attributes)
    graph = helper.make_graph(
        [proto],
        "single",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
            for name, value in zip(names, inputs, strict=True)
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (expected,) = session.run(None, dict(zip(names, inputs, strict=True)))
    (node,) = nodes_of(Path("single"), graph.node, 23)
    np.testing.assert_allclose(apply(node, inputs)[0], expected, rtol=1e-5, atol=2e-6)


def test_operator_outside_the_table_is_refused() -> None:
    node = Node(op="GridSample", name="up", inputs=("x",), outputs=("y",))
    with pytest.raises(ModelError, match=r"GridSample 'up'.*not supported"):
        apply(node, [np.zeros((1, 1, 2, 2), np.float32)])


def test_wrong_shapes_name_the_node() -> None:
    node = Node(op="MatMul", name="scores", inputs=("a", "b"), outputs=("y",))
    with pytest.raises(ModelError, match=r"MatMul 'scores'.*float32\[2, 3\]"):
        apply(node, [np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)])


def test_index_outside_an_embedding_is_refused() -> None:
    node = Node(op="Gather", name="embed", inputs=("t", "i"), outputs=("y",))
    with pytest.raises(ModelError, match="outside the 4 rows"):
        apply(node, [np.zeros((4, 2), np.float32), np.array([4])])


def test_erf_against_the_standard_library() -> None:
    x = np.linspace(-6, 6, 20_001, dtype=np.float32)
    exact = np.array([math.erf(float(value)) for value in x])
    assert np.abs(erf(x) - exact).max() < 4e-7


def test_softmax_of_a_masked_row_is_zero() -> None:
    x = np.array([[-np.inf, -np.inf], [0.0, -np.inf]], np.float32)
    np.testing.assert_array_equal(softmax(x), [[0, 0], [1, 0]])


def test_convolution_does_not_depend_on_how_images_are_sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((5, 4, 6, 6), np.float32), rng.standard_normal((6, 36), np.float32)
    geometry = Geometry.of({"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}, 6, 6)
    whole = convolve(x, weights, geometry, 1)
    monkeypatch.setattr("sparsefab.models.operators.convolution._CHUNK_VALUES", 1)
    np.testing.assert_allclose(convolve(x, weights, geometry, 1), whole, rtol=1e-5, atol=1e-6)


def test_every_operator_is_known_to_onnx() -> None:
    names = {schema.name for schema in onnx.defs.get_all_schemas()}
    assert set(OPERATORS) <= names
