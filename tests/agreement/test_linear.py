"""The evaluation's fast products, the Numba reference on packed bytes, and Python integers: equal to the bit.

Every format of the catalogue, as weights against int8 and uint8 activations and as activations of itself.
"""

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import product
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsefab.formats import (
    CATALOG,
    BlockFormat,
    FloatFormat,
    IntFormat,
    QuantTensor,
    Requantizer,
    StaticScale,
    get_format,
    parse_pattern,
    requantize_scalar,
)
from sparsefab.models.compress import CompressedLayer, Recipe, Rule, compress, magnitude_mask, round_to_nearest
from sparsefab.models.evaluate import BitTrueRunner, agreement, calibrate, reference_layer
from sparsefab.models.evaluate.digits import DigitWeights, digits_to_float32, digits_to_int64, shift_right
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


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token, or a row of weights, in rational terms: integers on the grid, and what its blocks' scales say."""

    integers: list[int]
    multipliers: list[int]
    exponents: list[int]  # of MX blocks, less that of the token's largest
    scale: np.float32


def nearest(value: Fraction, fmt: IntFormat | FloatFormat) -> Fraction:
    """The value of a format nearest to a rational; of two, that with the even code; beyond the largest, the largest."""
    if isinstance(fmt, IntFormat):
        return Fraction(min(max(round(value), -fmt.code_max if fmt.signed else 0), fmt.code_max))
    values = finite_values(fmt)
    above = bisect_left(values, value)
    around = values[max(above - 1, 0) : above + 1]
    near = min(abs(value - v) for v in around)
    found = [v for v in around if abs(value - v) == near]
    return found[0] if len(found) == 1 else next(v for v in found if fmt.encode_scalar(float(v)) % 2 == 0)


@lru_cache
def finite_values(fmt: FloatFormat) -> list[Fraction]:
    """Every finite value once."""
    decoded = (fmt.decode_scalar(code) for code in range(1 << fmt.bits))
    return sorted({Fraction(v) for v in decoded if np.isfinite(v)})


@lru_cache
def lowest_bit(fmt: IntFormat | FloatFormat) -> Fraction:
    """The grid that all values lie on."""
    if isinstance(fmt, IntFormat):
        return Fraction(1)
    return min(Fraction(v.numerator & -v.numerator, v.denominator) for v in finite_values(fmt) if v)


@lru_cache
def unit(fmt: IntFormat | FloatFormat) -> Fraction:
    """What accumulators count in, by the words of `DecodeTable.unit_exponent`."""
    if isinstance(fmt, IntFormat):
        return Fraction(1)
    grid, largest = lowest_bit(fmt), max(finite_values(fmt))
    if largest / grid < 2**63:
        return grid
    return min(max(Fraction(1), grid * 2**63), Fraction(2) ** (floor_log2(largest)))


def floor_log2(value: Fraction) -> int:
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    return exponent if value >= Fraction(2) ** exponent else exponent - 1


def own_quantization(layer: CompressedLayer, x: np.ndarray) -> list[Token]:
    """Activation integers and scales by the words of the architecture page, in rational arithmetic."""
    fmt = layer.activations
    if isinstance(fmt, BlockFormat):
        return [own_blocks(fmt, token) for token in x]
    tokens = []
    for token in x:
        zero_point = 0
        if layer.static is None:
            peak = max(abs(np.float32(v)) for v in token)
            largest = fmt.code_max if isinstance(fmt, IntFormat) else max(finite_values(fmt))
            if unit(fmt) > lowest_bit(fmt):  # a wide grid: the unit takes the largest magnitude
                largest = unit(fmt)
            scale = peak / np.float32(float(largest)) if peak > 0 else np.float32(1)
        else:
            scale, zero_point = np.float32(layer.static.scale), layer.static.zero_point
        row = []
        for v in token:
            quotient = Fraction(float(np.float32(v) / scale))
            if layer.static is not None:
                assert isinstance(fmt, IntFormat)
                row.append(min(max(round(quotient) + zero_point, 0), fmt.code_max) - zero_point)
            else:
                row.append(int(nearest(quotient, fmt) / lowest_bit(fmt)))
        tokens.append(Token(integers=row, multipliers=[1], exponents=[0], scale=np.float32(float(unit(fmt))) * scale))
    return tokens


def own_blocks(fmt: BlockFormat, token: np.ndarray) -> Token:
    """A token in MX or NVFP4 blocks, by the words of the OCP specification and of NVIDIA's recipe."""
    element, outer = fmt.element, np.float32(1)
    grid = Fraction(1, 2 ** (element.bits - 2)) if isinstance(element, IntFormat) else lowest_bit(element)
    top = grid * element.code_max if isinstance(element, IntFormat) else max(finite_values(element))
    if not fmt.is_mx and np.abs(token).max() > 0:
        outer = np.abs(token).max() / np.float32(6 * 448)
    values = [Fraction(float(np.float32(v) / outer)) for v in token]
    integers, multipliers, exponents = [], [], []
    for start in range(0, len(values), fmt.block_size):
        block = values[start : start + fmt.block_size]
        peak = max(abs(v) for v in block)
        if fmt.is_mx:
            exponent = -127
            if peak:
                exponent = floor_log2(peak) - floor_log2(top)
                if fmt.scale_rounding == "up" and peak > top * Fraction(2) ** exponent:
                    exponent += 1
            exponent = min(max(exponent, -127), 127)
            step, multiplier = Fraction(2) ** exponent, 1
        else:
            step, exponent = nearest(peak / 6, fmt.scale), 0
            multiplier = int(step * 512)
        for v in block:
            if isinstance(element, IntFormat):
                integers.append(int(nearest(v / step / grid, element)))
            else:
                integers.append(int(nearest(v / step if step else Fraction(0), element) / grid))
        multipliers.append(multiplier)
        exponents.append(exponent if any(integers[start:]) else None)
    largest = max((e for e in exponents if e is not None), default=0) if fmt.is_mx else 0
    scale = outer * np.float32(float(grid * Fraction(2) ** largest / (1 if fmt.is_mx else 512)))
    below = [largest - e if e is not None and fmt.is_mx else 0 for e in exponents]
    return Token(integers=integers, multipliers=multipliers, exponents=below, scale=scale)


def own_weights(tensor: QuantTensor) -> list[Token]:
    """Rows of weights from codes and scales alone."""
    fmt, rows = tensor.format, []
    element = fmt.element if isinstance(fmt, BlockFormat) else fmt
    stored = tensor.stored_mask
    patterns = fmt.to_pattern(tensor.codes)
    for r in range(tensor.shape[0]):
        integers = []
        for i in range(tensor.shape[1]):
            group = i // tensor.group_size
            zero = 0 if tensor.zero_points is None else int(tensor.zero_points[r, group])
            if isinstance(element, IntFormat):
                value = int(tensor.codes[r, i]) - zero
            else:
                value = int(Fraction(element.decode_scalar(int(patterns[r, i]))) / lowest_bit(element))
            integers.append(value if stored[r, i] else 0)
        multipliers, exponents = [1], [0]
        if tensor.group_multipliers is not None:
            multipliers = [int(m) for m in tensor.group_multipliers[r]]
            exponents = [0] * len(multipliers)
        scale = tensor.row_scales[r] * np.float32(float(unit(element)))
        if isinstance(fmt, BlockFormat):
            assert tensor.block_scales is not None
            codes = [int(c) for c in tensor.block_scales[r]]
            size = fmt.block_size
            loud = [any(integers[b * size : (b + 1) * size]) for b in range(len(codes))]
            grid = 2.0 ** (2 - fmt.bits) if isinstance(element, IntFormat) else float(lowest_bit(element))
            if fmt.is_mx:
                largest = max((c - 127 for c, some in zip(codes, loud, strict=True) if some), default=0)
                exponents = [largest - (c - 127) if some else 0 for c, some in zip(codes, loud, strict=True)]
                multipliers = [1] * len(codes)
                scale = np.float32(2.0**largest * grid * 2.0**-fmt.fraction_bits)
            else:
                multipliers = [int(Fraction(fmt.scale.decode_scalar(c)) * 512) for c in codes]
                exponents = [0] * len(codes)
                scale = tensor.row_scales[r] * np.float32(grid / 512)
        rows.append(Token(integers=integers, multipliers=multipliers, exponents=exponents, scale=scale))
    return rows


def oracle(layer: CompressedLayer, x: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """The meaning of a layer in Python integers, one output at a time; it quantizes activations by itself."""
    tensor = layer.tensor
    formats = [tensor.format, layer.activations]
    mx = [fmt for fmt in formats if isinstance(fmt, BlockFormat) and fmt.is_mx]
    fraction = mx[0].fraction_bits if mx else 0
    moved = Fraction(2) ** (fraction if mx and mx[0] is not tensor.format else 0)  # where F is the activations'
    plain = [fmt for fmt in formats if not isinstance(fmt, BlockFormat)]
    counted = np.prod([lowest_bit(fmt) / unit(fmt) for fmt in plain]) if plain else Fraction(1)
    weights, tokens = own_weights(tensor), own_quantization(layer, x)
    w_size = tensor.group_size
    x_size = layer.activations.block_size if isinstance(layer.activations, BlockFormat) else tensor.shape[1]
    integer_bias = layer.static is not None and counted == 1 and widest(layer, weights, fraction) <= 62
    result = np.empty((len(x), tensor.shape[0]), np.float32)
    for t, token in enumerate(tokens):
        for r, row in enumerate(weights):
            sums: dict[tuple[int, int], int] = {}
            for i, (w, a) in enumerate(zip(row.integers, token.integers, strict=True)):
                place = (i // w_size if len(row.multipliers) > 1 else 0, i // x_size)
                sums[place] = sums.get(place, 0) + w * a
            acc = 0
            for (group, block), total in sums.items():
                total *= row.multipliers[group] * token.multipliers[block]
                shift = fraction - row.exponents[group] - token.exponents[block]
                acc += floor(total * Fraction(2) ** shift)
            if tensor.outliers is not None:
                acc += sum(int(o) * a for o, a in zip(tensor.outliers[r], token.integers, strict=True))
            if integer_bias and bias is not None:
                counts = float(row.scale) * layer.static.scale
                acc += round(Fraction(float(np.float64(bias[r]) / counts)))
            token_scale = np.float32(token.scale * np.float32(float(1 / moved)))
            value = exact_float32(Fraction(acc) * counted) * row.scale * token_scale
            result[t, r] = value if integer_bias or bias is None else value + bias[r]
    return result


def widest(layer: CompressedLayer, weights: list[Token], fraction: int) -> int:
    """Bits that an accumulator may need, sign included."""
    size, columns = layer.tensor.group_size, layer.tensor.shape[1]
    most = max(
        abs(w) * row.multipliers[i // size if len(row.multipliers) > 1 else 0]
        for row in weights
        for i, w in enumerate(row.integers)
    )
    assert layer.static is not None
    assert isinstance(layer.activations, IntFormat)
    largest = max(layer.static.zero_point, layer.activations.code_max - layer.static.zero_point)
    return (max(most, 1) * largest * columns << fraction).bit_length() + 1


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


@pytest.mark.parametrize("activations", ["int8", "uint8"])
@pytest.mark.parametrize(
    ("name", "group_size", "pattern"),
    [("uint3", 32, "dense"), ("int4sym", 16, "1x16@0.5"), ("int4", None, "2:4"), ("int8", None, "unstructured@0.3")],
)
def test_outliers_beside_the_rest(
    name: str, group_size: int | None, pattern: str, activations: str, rng: np.random.Generator
) -> None:
    weights, x, bias = rng.standard_t(2, (8, 96)), rng.normal(0, 1, (3, 96)), rng.normal(0, 1, 8)
    rule = Rule(weights=name, group_size=group_size, pattern=pattern, outliers=0.05, activations=activations)
    check(weights.astype(np.float32), rule, x.astype(np.float32), bias.astype(np.float32))


@pytest.mark.parametrize("group_size", [None, 32])
@pytest.mark.parametrize("name", sorted(CATALOG))
def test_every_format_as_weights(name: str, group_size: int | None, rng: np.random.Generator) -> None:
    weights = rng.normal(0, 0.1, (ROWS, COLUMNS)).astype(np.float32)
    x = rng.normal(0, 1, (TOKENS, COLUMNS)).astype(np.float32)
    bias = rng.normal(0, 1, ROWS).astype(np.float32)
    if isinstance(CATALOG[name], BlockFormat):
        group_size = None
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


BLOCK_NAMES = [name for name, fmt in CATALOG.items() if isinstance(fmt, BlockFormat)]
VARIANTS = ("mxfp4-up", "mxfp4-f0", "mxint8-f3-b16", "mxint4", "nvfp4-row", "nvfp4-b32", "mxfp6_e1m4-up-f32")


@pytest.mark.parametrize("activations", ["int4", "e4m3fn", "e5m2", *BLOCK_NAMES])
@pytest.mark.parametrize("weights", ["int8", "uint4", "e5m2", *BLOCK_NAMES])
def test_blocks_meet_everything(weights: str, activations: str, rng: np.random.Generator) -> None:
    """Every pair of block formats, and of one with another; blocks and groups that do not nest; outliers, silence."""
    w = rng.normal(0, 0.1, (4, 70)).astype(np.float32) * np.exp2(rng.integers(-12, 12, (4, 70))).astype(np.float32)
    w[1], w[2, :32], w[3, 40:] = 0, 0, 0
    x = rng.normal(0, 1, (3, 70)).astype(np.float32) * np.exp2(rng.integers(-9, 9, (3, 70))).astype(np.float32)
    x[0, :32], x[1] = 0, 0
    group_size = None if isinstance(get_format(weights), BlockFormat) else 20
    check(w, Rule(weights=weights, activations=activations, group_size=group_size), x, np.ones(4, np.float32))


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_of_blocks(name: str, rng: np.random.Generator) -> None:
    w = rng.normal(0, 0.1, (6, 100)).astype(np.float32) * np.exp2(rng.integers(-6, 6, (6, 100))).astype(np.float32)
    x = rng.normal(0, 1, (3, 100)).astype(np.float32) * np.exp2(rng.integers(-6, 6, (3, 100))).astype(np.float32)
    for activations in ("uint8", name):
        check(w, Rule(weights=name, activations=activations, pattern="2:4"), x, np.ones(6, np.float32))
    check(w, Rule(weights="int4", activations=name), x)


ANY_RANGE = ("e8m3 e8m3", "e7m2 int8", "e7m2 uint8", "int8 e8m6", "e6m8 mxfp4", "e8m2 nvfp4", "e6m1 uint8",
             "e5m8 uint16", "e4m3b90 e4m3b-60", "int16 e8m0", "e8m3 mxfp8_e5m2", "int16 int16")  # fmt: skip


@pytest.mark.parametrize("pair", ANY_RANGE)
def test_formats_of_any_range(pair: str, rng: np.random.Generator) -> None:
    """Grids of hundreds of bits: sums are digits, rounded once; values from 2^-60 to 2^60."""
    weights, activations = pair.split()
    w = rng.normal(0, 0.1, (4, 40)).astype(np.float32) * np.exp2(rng.integers(-30, 30, (4, 40))).astype(np.float32)
    x = rng.normal(0, 1, (3, 40)).astype(np.float32) * np.exp2(rng.integers(-30, 30, (3, 40))).astype(np.float32)
    for group_size in (None, 16):
        check(w, Rule(weights=weights, activations=activations, group_size=group_size), x, np.ones(4, np.float32))


def test_the_window_s_width_decides_what_is_lost(rng: np.random.Generator) -> None:
    """With many fraction bits a layer is the float64 product of its dequantized operands; with none it is not."""
    w = rng.normal(0, 0.1, (8, 256)) * np.repeat(np.exp2(rng.integers(-4, 4, (8, 8))), 32, axis=1)
    x = rng.normal(0, 1, (5, 256)) * np.repeat(np.exp2(rng.integers(-4, 4, (5, 8))), 32, axis=1)
    w, x = w.astype(np.float32), x.astype(np.float32)
    lost = {}
    for bits in (0, 4, 16):
        name = f"mxfp4-f{bits}" if bits != 16 else "mxfp4"
        compressed = compress(one_layer(w), Recipe(name="r", rules=(Rule(weights=name, activations=name),)))
        layer = compressed.layers["fc"]
        codes = quantize_input(layer, x)
        steps = np.ldexp(codes.token_scales.astype(np.float64)[:, None], -codes.per_input(codes.shifts))
        exact = (codes.integers * steps) @ layer.tensor.dequantize().astype(np.float64).T
        got = BitTrueRunner(compressed)("fc", x)
        lost[bits] = np.abs(got - exact.astype(np.float32)).max()
    assert lost[16] == 0 < lost[4] < lost[0]


@given(st.integers(-(2**95), 2**95), st.integers(-260, 30))
@settings(max_examples=300)
def test_limbs_round_once(value: int, exponent: int) -> None:
    digits = [(value >> (16 * k)) & 0xFFFF for k in range(7)] + [value >> 112]
    got = limbs_to_float32(np.array([[digits]], np.int64), exponent)[0, 0]
    assert got == exact_float32(Fraction(value) * Fraction(2) ** exponent)


def digits_of(value: int, bits: int, count: int) -> list[np.ndarray]:
    """A Python integer as the module's digits."""
    parts = [(value >> (bits * k)) & ((1 << bits) - 1) for k in range(count)] + [value >> (bits * count)]
    return [np.array([[part]], np.int64) for part in parts]


@given(st.integers(-(2**95), 2**95), st.integers(-260, 30), st.integers(14, 20))
@settings(max_examples=300)
def test_digits_round_once(value: int, exponent: int, bits: int) -> None:
    got = digits_to_float32(digits_of(value, bits, 7), bits, exponent)[0, 0]
    assert got == exact_float32(Fraction(value) * Fraction(2) ** exponent)


def test_what_lies_just_off_a_tie_decides() -> None:
    """A float32, even or odd, and a half, give or take one unit of any weight below."""
    for below in range(1, 80):
        for mantissa, off in product((2**23, 2**23 + 1), (-1, 0, 1)):
            value = ((2 * mantissa + 1) << below) + off
            want = exact_float32(Fraction(value))
            assert limbs_to_float32(np.array([[[d[0, 0] for d in digits_of(value, 16, 7)]]], np.int64), 0)[0, 0] == want
            for bits in (14, 17, 18, 20):
                assert digits_to_float32(digits_of(value, bits, 8), bits, 0)[0, 0] == want
                assert digits_to_float32(digits_of(-value, bits, 8), bits, 0)[0, 0] == -want


@given(st.integers(-(2**80), 2**80), st.integers(0, 300), st.integers(14, 20))
@settings(max_examples=300)
def test_digits_shift_to_the_floor(value: int, shift: int, bits: int) -> None:
    shifted = shift_right(digits_of(value, bits, 6), np.array([[shift]]), bits)
    assert sum(int(d[0, 0]) << (bits * k) for k, d in enumerate(shifted)) == value >> shift
    if abs(value >> shift) < 2**62:
        assert digits_to_int64(shifted, bits)[0, 0] == value >> shift


@given(
    st.lists(st.tuples(st.integers(-(2**33), 2**33), st.integers(0, 250)), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
@settings(max_examples=100, deadline=None)
def test_wide_products_round_once(weights: list[tuple[int, int]], random) -> None:
    x = [(random.randrange(-(2**32), 2**32), random.randrange(250)) for _ in weights]
    w_array, x_array = (np.array([pairs], np.int64) for pairs in (weights, x))
    prepared = DigitWeights.of(w_array[..., 0], w_array[..., 1])
    got = digits_to_float32(prepared.accumulate(x_array[..., 0], x_array[..., 1]), prepared.bits, -490)[0, 0]
    total = sum((a << e) * (b << f) for (a, e), (b, f) in zip(weights, x, strict=True))
    assert got == exact_float32(Fraction(total) / 2**490)


@given(st.integers(1, 2**44), st.integers(1, 2**20), st.integers(1, 600), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_every_exact_product_is_exact(largest: int, activation: int, columns: int, seed: int) -> None:
    """float32, float64 and int64 sums against Python integers, at the edges of each method."""
    if (largest * activation * columns).bit_length() > 62 or (largest * activation * 128).bit_length() > 53:
        return
    random = np.random.default_rng(seed)
    w, x = (
        random.integers(-largest, largest + 1, (2, columns)),
        random.integers(-activation, activation + 1, (2, columns)),
    )
    w[0], x[0] = largest, activation
    sums = ExactWeights.of(w, activation).accumulate(x)
    for t in range(2):
        for r in range(2):
            assert int(sums[t, r]) == sum(int(a) * int(b) for a, b in zip(x[t], w[r], strict=True))


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
