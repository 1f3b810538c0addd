"""The evaluation's fast products, the Numba reference on packed bytes, and Python integers: equal to the bit.

Every format of the catalogue, as weights against int8 and uint8 activations and as activations of itself.
"""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsefab.formats import (
    CATALOG,
    IntFormat,
    Requantizer,
    StaticScale,
    get_format,
    parse_pattern,
    requantize_scalar,
)
from sparsefab.models.compress import CompressedLayer, Recipe, Rule, compress, magnitude_mask, round_to_nearest
from sparsefab.models.evaluate import BitTrueRunner, agreement, calibrate, reference_layer
from sparsefab.models.evaluate.products import ExactWeights
from sparsefab.models.evaluate.runner import OutputCodes, quantize_input, static_bias
from sparsefab.models.execute import execute
from sparsefab.models.graph import Graph, Node, Value
from sparsefab.models.model import Model
from sparsefab.sim.reference.linear import limbs_to_float32, requantize_codes
from sparsefab.workload import Convolution, Linear, Workload

ROWS, COLUMNS, TOKENS = 8, 80, 3


def one_layer(weights: np.ndarray, bias: np.ndarray | None = None) -> Model:
    """A model that is a single linear layer called 'fc'."""
    rows, columns = weights.shape
    inputs = ("x",) if bias is None else ("x", "b")
    node = Node(op="MatMul", name="fc", inputs=inputs, outputs=("y",), layer="fc")
    return Model(
        name="one",
        weights={"fc": weights},
        initializers={} if bias is None else {"b": bias},
        workload=Workload(
            name="one",
            family="graph",
            layers=(Linear(name="fc", out_features=rows, in_features=columns, bias=bias is not None),),
        ),
        graph=Graph(
            nodes=(node,),
            inputs=(Value(name="x", dtype="float32", shape=("n", columns)),),
            outputs=(Value(name="y", dtype="float32", shape=("n", rows)),),
        ),
    )


def exact_float32(value: Fraction) -> np.float32:
    """Round a rational to float32, to nearest, ties to even, by comparing the neighbours of a first guess."""
    guess = np.float32(float(value))
    around = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    return min(around, key=lambda f: (abs(Fraction(float(f)) - value), int(f.view(np.uint32)) & 1))


def own_quantization(layer: CompressedLayer, x: np.ndarray) -> tuple[list[list[int]], list[np.float32]]:
    """Activation integers and scales by the words of the architecture page, in rational arithmetic."""
    fmt, integers, scales = layer.activations, [], []
    values = [Fraction(float(v)) for v in fmt.decode(np.arange(1 << fmt.bits)) if np.isfinite(v)]
    if isinstance(fmt, IntFormat):
        values = [Fraction(v) for v in range(-fmt.code_max if fmt.signed else 0, fmt.code_max + 1)]
    grid = fmt.fixed_point().exponent
    for token in x:
        if layer.static is None:
            peak = max(abs(np.float32(v)) for v in token)
            scale = peak / np.float32(max(values)) if peak > 0 else np.float32(1)
            zero_point = 0
        else:
            scale, zero_point = np.float32(layer.static.scale), layer.static.zero_point
        row = []
        for v in token:
            quotient = Fraction(float(np.float32(v) / scale))
            if isinstance(fmt, IntFormat):
                code = min(max(round(quotient) + zero_point, int(min(values))), int(max(values)))
                row.append(code - zero_point)
            else:
                near = min(abs(quotient - value) for value in values)
                found = [value for value in values if abs(quotient - value) == near]
                chosen = found[0]
                if len(set(found)) > 1:  # a tie: the even code
                    chosen = next(f for f in found if fmt.encode_scalar(float(f)) % 2 == 0)
                row.append(int(chosen / Fraction(2) ** grid))
        integers.append(row)
        scales.append(np.float32(np.ldexp(scale, grid)))
    return integers, scales


def oracle(layer: CompressedLayer, x: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """The meaning of a layer in Python integers, one output at a time; it quantizes activations by itself."""
    tensor = layer.tensor
    weights, (activations, token_scales) = tensor.integers(), own_quantization(layer, x)
    result = np.empty((len(x), tensor.shape[0]), np.float32)
    for t in range(len(x)):
        for r in range(tensor.shape[0]):
            acc = sum(int(w) * int(a) for w, a in zip(weights[r], activations[t], strict=True))
            if layer.static is not None and bias is not None:
                unit = float(tensor.accumulator_scale[r]) * layer.static.scale
                acc += round(Fraction(float(np.float64(bias[r]) / unit)))
            value = exact_float32(Fraction(acc)) * tensor.accumulator_scale[r] * token_scales[t]
            result[t, r] = value + bias[r] if layer.static is None and bias is not None else value
    return result


def check(weights: np.ndarray, rule: Rule, x: np.ndarray, bias: np.ndarray | None = None) -> None:
    compressed = compress(one_layer(weights, bias), Recipe(name="r", rules=(rule,)))
    if compressed.uncalibrated:
        fmt = compressed.layers["fc"].activations
        assert isinstance(fmt, IntFormat)
        compressed = compressed.with_static({"fc": StaticScale.of_range(float(x.min()), float(x.max()), fmt)})
    layer = compressed.layers["fc"]
    fast = BitTrueRunner(compressed)("fc", x)
    reference, _ = reference_layer(layer, x, bias)
    exact = oracle(layer, x, bias)
    np.testing.assert_array_equal(reference.view(np.uint32), exact.view(np.uint32), err_msg="reference")
    assert fast is not None
    np.testing.assert_array_equal(fast.view(np.uint32), exact.view(np.uint32), err_msg="fast")


@pytest.fixture(scope="module")
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize("group_size", [None, 32])
@pytest.mark.parametrize("name", sorted(CATALOG))
def test_every_format_as_weights(name: str, group_size: int | None, rng: np.random.Generator) -> None:
    weights = rng.normal(0, 0.1, (ROWS, COLUMNS)).astype(np.float32)
    x = rng.normal(0, 1, (TOKENS, COLUMNS)).astype(np.float32)
    bias = rng.normal(0, 1, ROWS).astype(np.float32)
    for activations in ("int8", "uint8"):
        check(weights, Rule(weights=name, group_size=group_size, activations=activations), x, bias)


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_every_format_as_activations(name: str, rng: np.random.Generator) -> None:
    weights = rng.normal(0, 0.1, (ROWS, COLUMNS)).astype(np.float32)
    x = rng.normal(0, 1, (TOKENS, COLUMNS)).astype(np.float32)
    for weight_name in ("int4", name):
        check(weights, Rule(weights=weight_name, activations=name), x)


PATTERNS = ("2:4", "4:8", "2:16", "0:4", "4:16 pairs", "4x1@0.5", "4x4@0.3", "unstructured@0.4")


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", ["int8", "uint4", "e2m1", "e5m2"])
def test_every_pattern(name: str, pattern: str, rng: np.random.Generator) -> None:
    weights = rng.normal(0, 0.1, (ROWS, COLUMNS)).astype(np.float32)
    x = rng.normal(0, 1, (TOKENS, COLUMNS)).astype(np.float32)
    for group_size in (None, 16):
        check(weights, Rule(weights=name, pattern=pattern, group_size=group_size), x)


def test_extremes_and_silence(rng: np.random.Generator) -> None:
    """Full-scale operands, a row of zeros, a token of zeros, one outlier."""
    weights = np.ones((ROWS, COLUMNS), np.float32)
    weights[1], weights[2] = 0, -1
    weights[3, 7] = 1e6
    x = np.full((TOKENS, COLUMNS), -3, np.float32)
    x[1] = 0
    for name in ("int8", "e5m2", "int3"):
        for activations in ("int8", "uint8", "e5m2"):
            check(weights, Rule(weights=name, activations=activations, group_size=16), x)


@given(st.integers(-(2**95), 2**95))
@settings(max_examples=300)
def test_limbs_round_once(value: int) -> None:
    digits = [(value >> (16 * k)) & 0xFFFF for k in range(7)] + [value >> 112]
    got = limbs_to_float32(np.array([[digits]], np.int64))[0, 0]
    assert got == exact_float32(Fraction(value))


@given(st.lists(st.integers(-(2**39), 2**39), min_size=1, max_size=40), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_wide_products_round_once(weights: list[int], random) -> None:
    x = [random.randrange(-(2**32), 2**32) for _ in weights]
    prepared = ExactWeights.of(np.array([weights], np.int64), 2**32)
    got = prepared.accumulate_float32(np.array([x], np.int64))[0, 0]
    assert got == exact_float32(Fraction(sum(a * b for a, b in zip(weights, x, strict=True))))


@given(st.integers(-(2**40), 2**40), st.floats(2.0**-30, 4.0), st.integers(0, 255))
def test_numba_requantizer_equals_specification(acc: int, ratio: float, zero_point: int) -> None:
    c = Requantizer.of(np.array([ratio]), zero_point, 0, 255)
    got = requantize_codes(np.array([[acc]], np.int64), c.multipliers, c.shifts, zero_point, 0, 255)[0, 0]
    assert got == requantize_scalar(acc, int(c.multipliers[0]), int(c.shifts[0]), zero_point, 0, 255)


def test_codes_out_are_the_requantizers(rng: np.random.Generator) -> None:
    """Two layers with a ReLU between: the first leaves as codes, and the reference makes the same ones."""
    weights = [rng.normal(0, 0.2, (16, 32)).astype(np.float32), rng.normal(0, 0.2, (4, 16)).astype(np.float32)]
    nodes = (
        Node(op="MatMul", name="a", inputs=("x",), outputs=("h",), layer="a"),
        Node(op="Relu", name="r", inputs=("h",), outputs=("g",)),
        Node(op="MatMul", name="b", inputs=("g",), outputs=("y",), layer="b"),
    )
    layers = (Linear(name="a", out_features=16, in_features=32), Linear(name="b", out_features=4, in_features=16))
    model = Model(
        name="two",
        weights=dict(zip("ab", weights, strict=True)),
        initializers={},
        workload=Workload(name="two", family="graph", layers=layers),
        graph=Graph(
            nodes=nodes,
            inputs=(Value(name="x", dtype="float32", shape=("n", 32)),),
            outputs=(Value(name="y", dtype="float32", shape=("n", 4)),),
        ),
    )
    x = rng.normal(0, 1, (50, 32)).astype(np.float32)
    compressed = compress(model, Recipe(name="r", rules=(Rule(),)))
    compressed = compressed.with_static(
        {
            "a": StaticScale.of_range(float(x.min()), float(x.max()), get_format("uint8")),
            "b": StaticScale.of_range(0.0, 2.0, get_format("uint8")),
        }
    )
    runner = BitTrueRunner(compressed)
    assert isinstance(runner.output_codes["a"], OutputCodes)
    assert set(runner.output_codes) == {"a"}
    assert runner.output_codes["a"].relu
    results = agreement(runner, {"x": x}, tokens=50)
    assert [(r.layer, r.outputs, r.mismatches) for r in results] == [("a", 800, 0), ("b", 200, 0)]


def test_a_planted_difference_is_seen(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """One accumulator off by one must show."""
    weights = rng.normal(0, 0.1, (ROWS, COLUMNS)).astype(np.float32)
    compressed = compress(one_layer(weights), Recipe(name="r", rules=(Rule(activations="int8"),)))
    original = ExactWeights.accumulate_float32

    def off_by_one(self: ExactWeights, activations: np.ndarray) -> np.ndarray:
        sums = original(self, activations)
        sums[0, 0] += 1
        return sums

    monkeypatch.setattr(ExactWeights, "accumulate_float32", off_by_one)
    results = agreement(BitTrueRunner(compressed), {"x": rng.normal(0, 1, (TOKENS, COLUMNS)).astype(np.float32)})
    assert [r.mismatches for r in results] == [1]


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("activations", ["int8", "uint8", "e4m3fn", "e2m1"])
@pytest.mark.parametrize("weights", ["int8", "int4", "e4m3fn"])
def test_convolutions_with_groups(weights: str, activations: str, groups: int, rng: np.random.Generator) -> None:
    """Two images of different size of value: each has one dynamic scale, whatever window reads a pixel."""
    kernel = rng.normal(0, 0.2, (16, 8 // groups * 9)).astype(np.float32)
    bias = rng.normal(0, 1, 16).astype(np.float32)
    node = Node(op="Conv", name="c", inputs=("x", "b"), outputs=("y",), layer="c",
                attributes={"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "group": groups})  # fmt: skip
    layer = Convolution(name="c", out_channels=16, in_channels=8, kernel=(3, 3), padding=(1, 1, 1, 1), groups=groups,
                        out_height=5, out_width=6, bias=True)  # fmt: skip
    model = Model(
        name="conv", weights={"c": kernel}, initializers={"b": bias},
        workload=Workload(name="conv", family="cnn", layers=(layer,)),
        graph=Graph(nodes=(node,), inputs=(Value(name="x", dtype="float32", shape=("n", 8, 5, 6)),),
                    outputs=(Value(name="y", dtype="float32", shape=("n", 16, 5, 6)),)),
    )  # fmt: skip
    images = rng.normal(0, 1, (2, 8, 5, 6)).astype(np.float32) * np.array([1, 9], np.float32)[:, None, None, None]
    compressed = compress(model, Recipe(name="r", rules=(Rule(weights=weights, activations=activations),)))
    if compressed.uncalibrated:
        static = StaticScale.of_range(float(images.min()), float(images.max()), IntFormat(bits=8, signed=False))
        compressed = compressed.with_static({"c": static})
    runner = BitTrueRunner(compressed)
    [result] = agreement(runner, {"x": images}, tokens=60)
    assert (result.outputs, result.mismatches) == (60 * 16, 0)
    # a scale an image: the same image alone gives the same numbers
    both = execute(model, {"x": images}, runner=runner)["y"]
    np.testing.assert_array_equal(execute(model, {"x": images[1:]}, runner=runner)["y"], both[1:])
    if activations == "int8":
        seen: list[np.ndarray] = []
        execute(model, {"x": images}, observer=lambda name, x: seen.append(x))
        codes = quantize_input(compressed.layers["c"], np.concatenate(seen).reshape(60, -1))
        assert len(np.unique(codes.token_scales)) == 2


def test_a_dead_channel_with_a_bias_gets_a_coarser_scale(rng: np.random.Generator) -> None:
    """Weights of 1e-30 beside a bias of 1: the bias survives, and its codes fit 31 bits."""
    weights = rng.normal(0, 0.1, (ROWS, COLUMNS)).astype(np.float32)
    weights[3] *= np.float32(1e-30)
    bias = np.ones(ROWS, np.float32)
    compressed = compress(one_layer(weights, bias), Recipe(name="r", rules=(Rule(activations="uint8"),)))
    x = rng.uniform(0, 1, (TOKENS, COLUMNS)).astype(np.float32)
    compressed = calibrate(compressed, [{"x": x}])
    layer = compressed.layers["fc"]
    assert np.abs(static_bias(layer, bias)).max() <= 1 << 30
    y = BitTrueRunner(compressed)("fc", x)
    assert y is not None
    np.testing.assert_allclose(y[:, 3], 1.0, rtol=1e-6)
    reference, _ = reference_layer(layer, x, bias)
    np.testing.assert_array_equal(y, reference)


def test_masks_obey_their_patterns(rng: np.random.Generator) -> None:
    weights = rng.normal(0, 1, (16, 64)).astype(np.float32)
    for text, density in (
        ("2:4", 0.5), ("2:4 pairs", 0.5), ("N:16@0.4", 0.375), ("4x1@0.25", 0.25), ("unstructured@0.3", 0.3),
    ):  # fmt: skip
        pattern = parse_pattern(text)
        mask = magnitude_mask(weights, pattern)
        assert mask is not None
        assert pattern.holds(mask)
        assert mask.mean() == pytest.approx(density, abs=0.01)
        kept, dropped = np.abs(weights[mask]), np.abs(weights[~mask])
        assert kept.mean() > dropped.mean()


@pytest.mark.parametrize("name", ["int4", "uint4", "int8", "e2m1", "e4m3"])
def test_rounding_error_is_within_half_a_step(name: str, rng: np.random.Generator) -> None:
    """|w - Q(w)| <= step / 2, and quantizing twice changes nothing."""
    weights = rng.normal(0, 1, (16, 64)).astype(np.float32)
    tensor = round_to_nearest(weights, get_format(name))
    restored = tensor.dequantize()
    fmt = get_format(name)
    if isinstance(fmt, IntFormat):
        # a zero point is rounded to an integer, which may shift an end of the range by half a step
        bound = 0.5 if fmt.signed else 1.0
        assert (np.abs(weights - restored) <= tensor.row_scales[:, None] * (bound + 1e-5)).all()
    again = round_to_nearest(restored, fmt)
    if isinstance(fmt, IntFormat) and fmt.signed:
        np.testing.assert_allclose(again.dequantize(), restored, rtol=1e-6)
    clipped = round_to_nearest(weights, fmt, clip=True)
    error = [float(np.square(t.dequantize() - weights, dtype=np.float64).sum()) for t in (tensor, clipped)]
    assert error[1] <= error[0] * (1 + 1e-6)
