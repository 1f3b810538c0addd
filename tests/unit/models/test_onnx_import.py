"""Import of ONNX graphs: what becomes a layer, what is folded, what is refused and how."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sparsefab.errors import ModelError
from sparsefab.models.execute import execute
from sparsefab.models.load import load_model
from sparsefab.models.onnx_import import import_onnx
from sparsefab.workload import Activation, Attention, Convolution, Linear, Norm

RNG = np.random.default_rng(0)
Shape = list[int | str]
Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Write a model: nodes, inputs (name, type, shape), outputs, constants by name."""

    def write(
        nodes: list[Any],
        inputs: dict[str, Shape],
        outputs: list[str],
        constants: dict[str, NDArray[Any]],
        opset: int = 17,
        ids: tuple[str, ...] = (),
    ) -> Path:
        graph = helper.make_graph(
            nodes,
            "test",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64 if name in ids else TensorProto.FLOAT, shape)
                for name, shape in inputs.items()
            ],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        path = tmp_path / "model.onnx"
        path.write_bytes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10).SerializeToString()
        )
        return path

    return write


def normal(*shape: int) -> NDArray[np.float32]:
    """Random float32."""
    return RNG.standard_normal(shape).astype(np.float32)


def same_as_runtime(path: Path, feeds: dict[str, NDArray[Any]], tolerance: float = 1e-5) -> None:
    """Compare all outputs with ONNX Runtime."""
    expected = onnxruntime.InferenceSession(str(path)).run(None, feeds)
    for ours, theirs in zip(execute(import_onnx(path), feeds).values(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def small_cnn() -> dict[str, Any]:
    """Convolutions with batch norms, a depthwise one, a residual, pooling and a classifier."""
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "stem.weight"], ["a"], "stem", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", ["a", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["b"], "bn", epsilon=1e-3),
        node("Relu", ["b"], ["c"], "/stem/act/Relu"),
        node("Pad", ["c", "pads"], ["d"], "pad"),
        node("Conv", ["d", "deep.weight", "deep.bias"], ["e"], "deep", group=6, kernel_shape=[3, 3]),
        node("Clip", ["e", "zero", "six"], ["f"], "relu6"),
        node("Add", ["c", "f"], ["g"], "residual"),
        node("GlobalAveragePool", ["g"], ["h"], "pool"),
        node("Flatten", ["h"], ["i"], "flat"),
        node("Gemm", ["i", "head.weight", "head.bias"], ["logits"], "head", transB=1, alpha=0.5),
    ]
    constants = {
        "stem.weight": normal(6, 3, 3, 3),
        "bn.scale": normal(6),
        "bn.bias": normal(6),
        "bn.mean": normal(6),
        "bn.var": np.abs(normal(6)),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "deep.weight": normal(6, 1, 3, 3),
        "deep.bias": normal(6),
        "zero": np.float32(0).reshape(()),
        "six": np.float32(6).reshape(()),
        "head.weight": normal(5, 6),
        "head.bias": normal(5),
    }
    return {
        "nodes": nodes,
        "constants": {key: np.asarray(value) for key, value in constants.items()},
        "outputs": ["logits"],
    }


def test_cnn(build: Build) -> None:
    path = build(inputs={"image": ["batch", 3, 9, 10]}, **small_cnn())
    model = import_onnx(path)
    layers = list(model.workload.weight_layers())
    assert model.workload.family == "cnn"
    assert layers == [
        Convolution(
            name="stem",
            out_channels=6,
            in_channels=3,
            kernel=(3, 3),
            stride=(2, 2),
            padding=(1, 1, 1, 1),
            out_height=5,
            out_width=5,
            bias=True,
        ),
        Convolution(
            name="deep",
            out_channels=6,
            in_channels=6,
            kernel=(3, 3),
            padding=(1, 1, 1, 1),
            groups=6,
            out_height=5,
            out_width=5,
            bias=True,
        ),
        Linear(name="head", out_features=5, in_features=6, bias=True),
    ]
    assert [layer for layer in model.workload.layers if isinstance(layer, Activation)] == [
        Activation(name="stem.act", width=150, kind="relu"),
        Activation(name="relu6", width=150, kind="relu6"),
    ]
    assert {node.op for node in model.graph.nodes}.isdisjoint({"BatchNormalization", "Pad"})
    same_as_runtime(path, {"image": normal(4, 3, 9, 10)})


@pytest.mark.parametrize("transposed", [False, True])
def test_batch_norm_after_gemm(build: Build, transposed: bool) -> None:
    weight = normal(5, 6) if transposed else normal(6, 5)
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], "fc", transB=int(transposed), beta=0.5),
        helper.make_node("BatchNormalization", ["y", "s", "t", "m", "v"], ["z"], "bn"),
    ]
    constants = {"w": weight, "b": normal(5), "s": normal(5), "t": normal(5), "m": normal(5), "v": np.abs(normal(5))}
    path = build(nodes, {"x": ["n", 6]}, ["z"], constants)
    assert len(import_onnx(path).graph.nodes) == 1
    same_as_runtime(path, {"x": normal(3, 6)})


def test_batch_norm_whose_convolution_has_another_reader_stays(build: Build) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], "conv"),
        helper.make_node("BatchNormalization", ["y", "s", "s", "s", "s"], ["z"], "bn"),
        helper.make_node("Add", ["y", "z"], ["out"], "sum"),
    ]
    path = build(nodes, {"x": ["n", 2, 3, 3]}, ["out"], {"w": normal(4, 2, 1, 1), "s": np.abs(normal(4))})
    same_as_runtime(path, {"x": normal(2, 2, 3, 3)})


def attention_nodes(causal: bool) -> tuple[list[Any], dict[str, NDArray[Any]]]:
    """Self-attention of 4 heads over 2 key/value heads in plain operators, as PyTorch writes them."""
    node = helper.make_node
    nodes = [node("LayerNormalization", ["x", "gain", "shift"], ["h"], "/norm/LayerNormalization")]
    for part, heads in (("q", 4), ("k", 2), ("v", 2)):
        nodes += [
            node("MatMul", ["h", f"onnx::MatMul_{part}"], [f"{part}0"], f"/attn/{part}_proj/MatMul"),
            node("Add", [f"{part}.bias", f"{part}0"], [f"{part}1"], f"/attn/{part}_proj/Add"),
            node("Reshape", [f"{part}1", f"shape{heads}"], [f"{part}2"], f"/attn/Reshape_{part}"),
            node("Transpose", [f"{part}2"], [f"{part}3"], f"/attn/Transpose_{part}", perm=[0, 2, 1, 3]),
        ]
    for part in "kv":  # repeat each key/value head for its two query heads
        nodes += [
            node("Unsqueeze", [f"{part}3", "two"], [f"{part}4"], f"/attn/Unsqueeze_{part}"),
            node("Expand", [f"{part}4", "grown"], [f"{part}5"], f"/attn/Expand_{part}"),
            node("Reshape", [f"{part}5", "folded"], [f"{part}6"], f"/attn/Reshape2_{part}"),
        ]
    nodes += [
        node("Transpose", ["k6"], ["kT"], "/attn/Transpose_t", perm=[0, 1, 3, 2]),
        node("MatMul", ["q3", "kT"], ["s0"], "/attn/MatMul"),
        node("Div", ["s0", "root"], ["s1"], "/attn/Div"),
        node("Add", ["s1", "mask"], ["s2"], "/attn/Add"),
        node("Softmax", ["s2"], ["p"], "/attn/Softmax", axis=-1),
        node("MatMul", ["p", "v6"], ["m0"], "/attn/MatMul_1"),
        node("Transpose", ["m0"], ["m1"], "/attn/Transpose_m", perm=[0, 2, 1, 3]),
        node("Reshape", ["m1", "joined"], ["m2"], "/attn/Reshape_m"),
        node("MatMul", ["m2", "o.weight"], ["y"], "/attn/o_proj/MatMul"),
    ]
    mask = np.where(np.tri(6), 0, -1e9).astype(np.float32) if causal else np.zeros((6, 6), np.float32)
    constants = {
        "gain": normal(16),
        "shift": normal(16),
        "onnx::MatMul_q": normal(16, 16),
        "onnx::MatMul_k": normal(16, 8),
        "onnx::MatMul_v": normal(16, 8),
        "q.bias": normal(16),
        "k.bias": normal(8),
        "v.bias": normal(8),
        "shape4": np.array([0, 0, 4, 4]),
        "shape2": np.array([0, 0, 2, 4]),
        "two": np.array([2]),
        "grown": np.array([1, 1, 2, 1, 1]),
        "folded": np.array([0, 4, -1, 4]),
        "root": np.asarray(2, np.float32),
        "mask": mask,
        "joined": np.array([0, 0, 16]),
        "o.weight": normal(16, 16),
    }
    return nodes, constants


@pytest.mark.parametrize("causal", [False, True])
def test_attention_in_plain_operators_is_recognized(build: Build, causal: bool) -> None:
    nodes, constants = attention_nodes(causal)
    path = build(nodes, {"x": ["batch", 6, 16]}, ["y"], constants)
    model = import_onnx(path)
    assert model.workload.family == ("decoder" if causal else "encoder")
    assert list(model.workload.attentions()) == [Attention(name="attn", heads=4, kv_heads=2, head_dim=4, causal=causal)]
    assert list(model.weights) == ["attn.q_proj", "attn.k_proj", "attn.v_proj", "o"]
    assert model.bias("attn.q_proj") is not None
    assert Norm(name="norm", width=16, kind="layer") in model.workload.layers
    assert ("norm", "normalization: stays in float32") in model.skipped
    same_as_runtime(path, {"x": normal(3, 6, 16)}, 3e-4)


@pytest.mark.parametrize("centred", [False, True])
def test_norm_in_plain_operators_is_recognized(build: Build, centred: bool) -> None:
    node = helper.make_node
    nodes = (
        [
            node("ReduceMean", ["x"], ["mean"], "/norm/ReduceMean", axes=[-1]),
            node("Sub", ["x", "mean"], ["c"], "/norm/Sub"),
        ]
        if centred
        else [node("Identity", ["x"], ["c"], "same")]
    )
    nodes += [
        node("Pow", ["c", "two"], ["sq"], "/norm/Pow"),
        node("ReduceMean", ["sq"], ["var"], "/norm/ReduceMean_1", axes=[-1]),
        node("Add", ["var", "eps"], ["e"], "/norm/Add"),
        node("Sqrt", ["e"], ["r"], "/norm/Sqrt"),
        node("Div", ["c", "r"], ["y"], "/norm/Div"),
    ]
    path = build(nodes, {"x": ["n", 4, 16]}, ["y"], {"two": np.float32(2).reshape(1), "eps": np.array([1e-5], "f")}, 13)
    kinds = [layer for layer in import_onnx(path).workload.layers if isinstance(layer, Norm)]
    assert kinds == [Norm(name="norm", width=16, kind="layer" if centred else "rms")]
    same_as_runtime(path, {"x": normal(3, 4, 16)})


def test_weights_in_constant_nodes_behind_transpose_and_identity(build: Build) -> None:
    weight = normal(5, 6)
    nodes = [
        helper.make_node("Constant", [], ["c"], "const", value=numpy_helper.from_array(weight)),
        helper.make_node("Identity", ["c"], ["d"], "same"),
        helper.make_node("Transpose", ["d"], ["/fc/Transpose_output_0"], "turn", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "/fc/Transpose_output_0"], ["y"], "/fc/MatMul"),
    ]
    path = build(nodes, {"x": ["n", "s", 6]}, ["y"], {})
    model = import_onnx(path)
    np.testing.assert_array_equal(model.weights["fc"], weight)
    same_as_runtime(path, {"x": normal(2, 3, 6)})


def test_names_stay_unique(build: Build) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], ""), helper.make_node("MatMul", ["y", "w"], ["z"], "")]
    model = import_onnx(build(nodes, {"x": ["n", 4]}, ["z"], {"w": normal(4, 4)}))
    assert list(model.weights) == ["w", "w.1"]


def test_products_that_are_no_layers_are_listed(build: Build) -> None:
    nodes = [helper.make_node("MatMul", ["left", "x"], ["y"], "a"), helper.make_node("MatMul", ["y", "b3"], ["z"], "b")]
    path = build(nodes, {"x": ["n", 4, 6]}, ["z"], {"left": normal(5, 4), "b3": normal(1, 6, 2)})
    model = import_onnx(path)
    assert model.weights == {}
    assert model.skipped == (
        ("left", "constant left operand of MatMul: stays in float32"),
        ("b3", "constant operand of 3 axes in MatMul: stays in float32"),
    )
    same_as_runtime(path, {"x": normal(2, 4, 6)})


def test_shapes_are_constants_where_the_inputs_are_fixed(build: Build) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], "shape"),
        helper.make_node("Gather", ["s", "one"], ["l"], "pick"),
        helper.make_node("Concat", ["minus", "l"], ["t"], "cat", axis=0),
        helper.make_node("Reshape", ["x", "t"], ["y"], "flat"),
    ]
    constants = {"one": np.array([1]), "minus": np.array([-1])}
    assert len(import_onnx(build(nodes, {"x": [2, 3, 4]}, ["y"], constants)).graph.nodes) == 1
    path = build(nodes, {"x": ["n", 3, 4]}, ["y"], constants)
    assert len(import_onnx(path).graph.nodes) == 4
    same_as_runtime(path, {"x": normal(5, 3, 4)})


def test_external_data(build: Build) -> None:
    path = build(inputs={"image": ["batch", 3, 9, 10]}, **small_cnn())
    feeds = {"image": normal(2, 3, 9, 10)}
    expected = execute(import_onnx(path), feeds)["logits"]
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    np.testing.assert_array_equal(execute(load_model(path), feeds)["logits"], expected)
    (path.parent / "weights.bin").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"'stem\.weight' cannot be read from 'weights\.bin'"):
        import_onnx(path)
    (path.parent / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"'weights\.bin', which is missing; put it beside the model"):
        import_onnx(path)


@pytest.mark.parametrize("length", [0, 1, 7, 100, 1000, -400, -30, -7])
def test_truncated_file(build: Build, length: int) -> None:
    path = build(inputs={"image": ["batch", 3, 9, 10]}, **small_cnn())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelError, match=r"truncated(; fetch| \(no graph in it\); fetch) or export it again"):
        import_onnx(path)


def test_foreign_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.onnx"
    path.write_text("this is no model\n" * 20)
    with pytest.raises(ModelError, match="not an ONNX file"):
        load_model(path)


def test_old_operator_set(build: Build) -> None:
    path = build([helper.make_node("Relu", ["x"], ["y"])], {"x": ["n", 4]}, ["y"], {}, opset=11)
    with pytest.raises(ModelError, match="operator set 11 is too old"):
        import_onnx(path)


@pytest.mark.parametrize(
    ("op", "domain", "message"),
    [
        ("Loop", "", r"operator Loop \(node 'n7'\) is not supported"),
        ("FusedMatMul", "com.microsoft", r"FusedMatMul of domain 'com.microsoft' \(node 'n7'\)"),
    ],
)
def test_unsupported_operator(build: Build, op: str, domain: str, message: str) -> None:
    path = build([helper.make_node(op, ["x"], ["y"], "n7", domain=domain)], {"x": ["n", 4]}, ["y"], {})
    with pytest.raises(ModelError, match=message):
        import_onnx(path)


def test_nan_is_named(build: Build) -> None:
    parts = small_cnn()
    parts["constants"]["head.weight"][2, 1] = np.nan
    with pytest.raises(ModelError, match=r"'head\.weight'.*NaN"):
        import_onnx(build(inputs={"image": ["batch", 3, 9, 10]}, **parts))
    parts["constants"]["head.weight"][2, 1] = 0
    parts["constants"]["head.bias"][0] = np.nan
    with pytest.raises(ModelError, match=r"constant 'head\.bias' holds NaN"):
        import_onnx(build(inputs={"image": ["batch", 3, 9, 10]}, **parts))


def test_dynamic_image_size(build: Build) -> None:
    path = build(inputs={"image": ["batch", 3, "height", "width"]}, **small_cnn())
    with pytest.raises(ModelError, match=r"input 'image': its length 'height' \(axis 2\) is dynamic; export it with"):
        import_onnx(path)
    model = import_onnx(path, {"image": (1, 3, 9, 10)})
    assert next(model.workload.weight_layers()).macs(1) == 6 * 27 * 25
    with pytest.raises(ModelError, match=r"which \[1, 4, 9, 10\] does not fit"):
        import_onnx(path, {"image": (1, 4, 9, 10)})
    with pytest.raises(ModelError, match=r"has no input 'picture'; its inputs are 'image'"):
        import_onnx(path, {"picture": (1, 3, 9, 10)})


def test_inputs_that_do_not_fit_one_another(build: Build) -> None:
    path = build([helper.make_node("MatMul", ["x", "w"], ["y"], "fc")], {"x": ["n", 5]}, ["y"], {"w": normal(4, 3)})
    with pytest.raises(ModelError, match=r"MatMul 'fc' cannot be computed on \(float32\[1, 5\], float32\[4, 3\]\)"):
        import_onnx(path)


def test_embedding_and_head(build: Build) -> None:
    nodes = [
        helper.make_node("Gather", ["embed.weight", "ids"], ["x"], "embed"),
        helper.make_node("MatMul", ["x", "onnx::MatMul_9"], ["logits"], "/lm_head/MatMul"),
    ]
    constants = {"embed.weight": normal(50, 8), "onnx::MatMul_9": normal(8, 50)}
    path = build(nodes, {"ids": ["batch", "sequence"]}, ["logits"], constants, ids=("ids",))
    model = import_onnx(path)
    assert model.workload.layers[-1] == Linear(name="lm_head", out_features=50, in_features=8, head=True)
    assert model.skipped == (("embed", "embedding: a table look-up, stays in float32"),)
    same_as_runtime(path, {"ids": np.array([[1, 49, 7]])})


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    source = """<ir_version: 10, opset_import: ["" : 18, "own" : 1]>
        g (float[n, 4] x) => (float[n, 4] y) <float[4, 4] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}>
        { y = own.layer(x, w) }
        <domain: "own", opset_import: ["" : 18]> layer (a, b) => (c) { d = MatMul(a, b)  c = Relu(d) }"""
    path = tmp_path / "functions.onnx"
    path.write_bytes(onnx.parser.parse_model(source).SerializeToString())
    assert len(import_onnx(path).weights) == 1
    same_as_runtime(path, {"x": normal(2, 4)})
