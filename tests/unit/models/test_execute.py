"""The executor: runners, observers, checks of inputs, and what it keeps in memory."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.execute import execute
from sparsefab.models.families.builder import Builder
from sparsefab.models.graph import Attribute, Graph, Node, Value
from sparsefab.models.model import Model
from sparsefab.models.operators.convolution import Geometry
from sparsefab.workload import Convolution, Linear, Workload

RNG = np.random.default_rng(5)
Floats = NDArray[np.float32]


def linear_model() -> Model:
    """Two linear layers with a ReLU between them."""
    b = Builder()
    x = b.linear("first", "x", RNG.standard_normal((5, 4), np.float32), RNG.standard_normal(5, np.float32))
    b.linear("second", b.add("Relu", [x], "relu"), RNG.standard_normal((3, 5), np.float32), output="y")
    return b.model(
        "mlp",
        "graph",
        [Value(name="x", dtype="float32", shape=("batch", 4))],
        [Value(name="y", dtype="float32", shape=("batch", 3))],
        {},
    )


def conv_model(groups: int, kernel: int = 3) -> Model:
    """One convolution of 6 to 12 channels with a bias."""
    weights = RNG.standard_normal((12, 6 // groups * kernel * kernel), np.float32)
    bias = RNG.standard_normal(12, np.float32)
    attributes: dict[str, Attribute] = {
        "kernel_shape": (kernel, kernel),
        "pads": (1, 0, 1, 2),
        "strides": (2, 1),
        "group": groups,
    }
    size = Geometry.of(attributes, 7, 8).size
    layer = Convolution(
        name="conv",
        out_channels=12,
        in_channels=6,
        kernel=(kernel, kernel),
        groups=groups,
        padding=(1, 0, 1, 2),
        stride=(2, 1),
        out_height=size[0],
        out_width=size[1],
        bias=True,
    )
    node = Node(op="Conv", name="conv", inputs=("x", "b"), outputs=("y",), attributes=attributes, layer="conv")
    return Model(
        name="conv",
        workload=Workload(name="conv", family="cnn", layers=(layer,)),
        graph=Graph(
            nodes=(node,),
            inputs=(Value(name="x", dtype="float32", shape=("batch", 6, 7, 8)),),
            outputs=(Value(name="y", dtype="float32", shape=("batch", 12, *size)),),
        ),
        weights={"conv": weights},
        initializers={"b": bias},
    )


def products(model: Model, seen: dict[str, list[tuple[int, ...]]]) -> Callable[[str, Floats], Floats]:
    """A runner that multiplies row by row, as its contract says."""

    def run(layer: str, x: Floats, /) -> Floats:
        seen.setdefault(layer, []).append(x.shape)
        weights = model.weights[layer]
        if x.ndim == 2:
            return np.array([weights @ row for row in x], np.float32)
        share = len(weights) // x.shape[1]
        return np.array([[weights[o] @ row[o // share] for o in range(len(weights))] for row in x], np.float32)

    return run


def test_linear_layers_by_hand() -> None:
    model, x = linear_model(), RNG.standard_normal((6, 4), np.float32)
    bias = model.bias("first")
    assert bias is not None
    hidden = np.maximum(x @ model.weights["first"].T + bias, 0)
    np.testing.assert_allclose(execute(model, {"x": x})["y"], hidden @ model.weights["second"].T, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_runner_takes_the_place_of_a_convolution(groups: int, kernel: int) -> None:
    model, x = conv_model(groups, kernel), RNG.standard_normal((2, 6, 7, 8), np.float32)
    seen: dict[str, list[tuple[int, ...]]] = {}
    plain = execute(model, {"x": x})["y"]
    np.testing.assert_allclose(execute(model, {"x": x}, products(model, seen))["y"], plain, rtol=1e-4, atol=1e-5)
    pixels = 2 * plain.shape[2] * plain.shape[3]
    inner = 6 // groups * kernel * kernel
    assert seen == {"conv": [(pixels, inner) if groups == 1 else (pixels, groups, inner)]}


def test_a_runner_may_leave_a_layer_or_add_the_bias() -> None:
    model, x = linear_model(), RNG.standard_normal((6, 4), np.float32)

    class Doubled:
        adds_bias = True

        def __call__(self, layer: str, x: Floats, /) -> Floats | None:
            return 2 * x @ model.weights[layer].T if layer == "first" else None

    hidden = np.maximum(2 * x @ model.weights["first"].T, 0)
    np.testing.assert_allclose(execute(model, {"x": x}, Doubled())["y"], hidden @ model.weights["second"].T, atol=1e-5)


def test_a_runner_that_leaves_a_convolution() -> None:
    model, x = conv_model(2), RNG.standard_normal((2, 6, 7, 8), np.float32)
    np.testing.assert_array_equal(execute(model, {"x": x}, lambda layer, x: None)["y"], execute(model, {"x": x})["y"])


def test_an_observer_sees_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsefab.models.operators.convolution._CHUNK_VALUES", 1)
    model, x = conv_model(1), RNG.standard_normal((3, 6, 7, 8), np.float32)
    parts: list[Floats] = []
    execute(model, {"x": x}, observer=lambda layer, x: parts.append(x.copy()))
    assert len(parts) == 3
    assert {part.shape[1] for part in parts} == {54}
    assert max(float(part.max()) for part in parts) == float(x.max())


def test_a_runner_of_the_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"must return \[1, 5\] for 'first', not \[1, 4\]"):
        execute(linear_model(), {"x": np.zeros((1, 4), np.float32)}, lambda layer, x: x)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "input 'x' is missing"),
        ({"x": np.zeros((2, 5))}, r"input 'x' must have shape \['batch', 4\], not \[2, 5\]"),
        ({"x": np.zeros(4)}, r"must have shape"),
        ({"x": np.zeros((2, 4)), "z": np.zeros(1)}, "no input 'z', only 'x'"),
    ],
)
def test_inputs_are_checked(feeds: dict[str, NDArray[Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        execute(linear_model(), feeds)


def test_lengths_of_one_name_agree() -> None:
    b = Builder()
    b.add("Add", ["x", "z"], "y")
    values = [Value(name=name, dtype="float32", shape=("batch", 4)) for name in "xz"]
    model = b.model("sum", "graph", values, [Value(name="y", dtype="float32", shape=("batch", 4))], {})
    with pytest.raises(ValueError, match="input 'z' must have shape"):
        execute(model, {"x": np.zeros((2, 4)), "z": np.zeros((3, 4))})


def test_only_what_is_asked_for_is_computed() -> None:
    model = linear_model()
    seen: dict[str, list[tuple[int, ...]]] = {}
    result = execute(model, {"x": np.ones((1, 4))}, products(model, seen), outputs=["relu"])
    assert list(result) == ["relu"]
    assert list(seen) == ["first"]
    with pytest.raises(ValueError, match="no tensor 'nothing'"):
        execute(model, {"x": np.ones((1, 4))}, outputs=["nothing"])


def test_a_graph_that_reads_what_nothing_makes() -> None:
    b = Builder()
    b.add("Add", ["x", "lost"], "y")
    model = b.model(
        "broken",
        "graph",
        [Value(name="x", dtype="float32", shape=("n",))],
        [Value(name="y", dtype="float32", shape=("n",))],
        {},
    )
    with pytest.raises(ModelError, match="Add 'y' reads 'lost'"):
        execute(model, {"x": np.ones(3)})


def test_intermediate_values_are_let_go() -> None:
    b, name = Builder(), "x"
    for index in range(50):
        name = b.add("Neg", [name], f"y{index}")
    model = b.model(
        "chain",
        "graph",
        [Value(name="x", dtype="float32", shape=("n",))],
        [Value(name=name, dtype="float32", shape=("n",))],
        {},
    )
    tracemalloc.start()
    execute(model, {"x": np.ones(250_000, np.float32)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 1_000_000


def test_a_model_whose_parts_disagree() -> None:
    layer = Linear(name="a", out_features=3, in_features=4)
    with pytest.raises(ValueError, match="disagree on a"):
        Model(
            name="m",
            workload=Workload(name="m", family="graph", layers=(layer,)),
            graph=Graph(nodes=(), inputs=(), outputs=()),
            weights={},
            initializers={},
        )


def test_with_weights_replaces_a_layer() -> None:
    model = linear_model()
    zero = model.with_weights({"second": np.zeros((3, 5), np.float32)})
    assert not execute(zero, {"x": np.ones((1, 4))})["y"].any()
    with pytest.raises(ModelError, match="no weight layer 'third'"):
        model.with_weights({"third": np.zeros((3, 5), np.float32)})
    with pytest.raises(ValueError, match=r"layer 'second' must be float32\[3, 5\]"):
        model.with_weights({"second": np.zeros((5, 3), np.float32)})


def test_a_graph_with_a_tensor_made_twice() -> None:
    node = Node(op="Neg", name="n", inputs=("x",), outputs=("x",))
    with pytest.raises(ValueError, match="'x' is made twice"):
        Graph(nodes=(node,), inputs=(Value(name="x", dtype="float32", shape=(1,)),), outputs=())
