"""Binary16 products: the written-out rounding against NumPy's, both kernels against the reference."""

import re
from dataclasses import replace

import numpy as np
import pytest
from numba import njit

from sparsefab.errors import LayoutError
from sparsefab.formats.halves import pack_half, unpack_half
from sparsefab.kernels_cpu.half import HalfProduct, half_panels, half_rows, native_halves
from sparsefab.kernels_cpu.panels import aligned_empty
from sparsefab.kernels_cpu.threads import available_threads
from sparsefab.sim.reference.half import HALF_RUN, half_fma, half_linear, half_round
from tests.unit.kernels_cpu.test_assembly import innermost_loops

NATIVE = [
    pytest.param(True, marks=pytest.mark.skipif(not native_halves(), reason="needs AVX512-FP16")),
    False,
]


@njit
def rounded(values):
    result = np.empty_like(values)
    for i in range(values.size):
        result[i] = half_round(values[i])
    return result


def problem(rows, columns, tokens, density=0.3, scale=1.0, seed=0):
    random = np.random.default_rng(seed)
    kept = np.repeat(random.random((-(-rows // 4), columns)) < density, 4, axis=0)[:rows]
    weights = (random.normal(0, scale, (rows, columns)) * kept).astype(np.float16)
    x = random.normal(0, scale, (tokens, columns)).astype(np.float16)
    bias = random.normal(0, 1, rows).astype(np.float32)
    return weights, kept, x, bias


def by_numpy(weights, kept, x, bias):
    """The same sums with NumPy's binary16, in its own way: a step of all rows and tokens at a time."""
    result = np.empty((len(x), len(weights)), np.float32)
    for row in range(len(weights)):
        stored = np.flatnonzero(kept[row])
        total = np.full(len(x), bias[row], np.float32)
        for begin in range(0, len(stored), HALF_RUN):
            run = np.zeros(len(x), np.float16)
            for k in stored[begin : begin + HALF_RUN]:
                with np.errstate(over="ignore", invalid="ignore"):
                    exact = weights[row, k].astype(np.float64) * x[:, k].astype(np.float64) + run.astype(np.float64)
                    run = exact.astype(np.float16)
            total = total + run.astype(np.float32)
        result[:, row] = total
    return result


def test_rounding_is_that_of_numpy():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = np.sort(every[np.isfinite(every)].astype(np.float64))
    middles = (finite[1:] + finite[:-1]) / 2
    values = np.concatenate([finite, middles, np.nextafter(middles, np.inf), np.nextafter(middles, -np.inf)])
    values = np.concatenate([values, [65519.99, 65520.0, -65520.0, 1e300, np.inf, -np.inf, 1e-300]])
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).astype(np.float64)
    np.testing.assert_array_equal(rounded(values), expected)


def test_a_fused_step_rounds_once():
    """Exact rationals decide: products whose sum with the accumulator needs more bits than binary64 has."""
    from fractions import Fraction

    random = np.random.default_rng(1)
    bits = random.integers(0, 1 << 16, (5_000, 3)).astype(np.uint16)
    every = np.sort(np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64))
    for a, b, c in bits.view(np.float16).astype(np.float64):
        if not np.isfinite([a, b, c]).all():
            continue
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        found = half_fma(a, b, c)
        if abs(exact) >= 65520:
            assert abs(found) == np.inf
            continue
        at = int(np.searchsorted(every, float(abs(exact))))
        near = [Fraction(value) for value in every[max(at - 2, 0) : at + 2]]
        least = min(abs(value - abs(exact)) for value in near)
        assert abs(Fraction(abs(found)) - abs(exact)) == least


@pytest.mark.parametrize("native", NATIVE)
@pytest.mark.parametrize(
    ("rows", "columns", "tokens", "density", "scale"),
    [
        (8, 40, 5, 0.3, 1),
        (6, 200, 130, 0.9, 1),
        (4, 64, 3, 1, 1),
        (5, 129, 2, 1, 1e-3),
        (4, 70, 4, 1, 60),
        (3, 9, 1, 0, 1),
    ],
)
def test_both_kernels_are_the_reference(native, rows, columns, tokens, density, scale):
    """Runs of 64 and their ends, subnormal products, sums beyond binary16, empty rows."""
    weights, kept, x, bias = problem(rows, columns, tokens, density, scale)
    expected = half_linear(weights.astype(np.float64), kept, x.astype(np.float64), bias)
    np.testing.assert_array_equal(expected, by_numpy(weights, kept, x, bias))
    product = HalfProduct(pack_half(weights, kept), bias=bias, native=native)
    for threads in (1, min(2, available_threads())):
        result = product.run(half_panels(x), threads=threads)
        np.testing.assert_array_equal(half_rows(result, tokens=tokens, outputs=rows), expected)


def test_sums_are_near_the_exact_ones():
    weights, kept, x, bias = problem(16, 1000, 8)
    result = half_rows(HalfProduct(pack_half(weights, kept), bias=bias).run(half_panels(x)), tokens=8, outputs=16)
    exact = bias + x.astype(np.float64) @ weights.astype(np.float64).T
    assert np.abs(result - exact).max() < 5e-3 * np.abs(exact).max()


def test_packing_is_undone_and_weights_lie_twice():
    weights, kept, _, _ = problem(7, 20, 1)
    packed = pack_half(weights, kept)
    matrix, found = unpack_half(packed)
    np.testing.assert_array_equal(matrix, weights)
    np.testing.assert_array_equal(found, kept)
    np.testing.assert_array_equal(packed.values >> 16, packed.values & 0xFFFF)
    assert packed.nbytes == 20 * len(packed.offsets) + 8 * 3


def test_wrong_arguments_are_named():
    weights, kept, x, bias = problem(8, 12, 3)
    packed = pack_half(weights, kept)
    with pytest.raises(LayoutError, match="must be finite"):
        pack_half(np.full((4, 2), np.nan, np.float16), np.ones((4, 2), np.bool_))
    with pytest.raises(LayoutError, match="float16"):
        pack_half(weights.astype(np.float32), kept)
    with pytest.raises(LayoutError, match="offsets must hold multiples of 256"):
        replace(packed, offsets=packed.offsets + np.int32(1))
    with pytest.raises(LayoutError, match="must rise from 0"):
        replace(packed, pointers=packed.pointers + 1)
    with pytest.raises(ValueError, match="bias must be float32"):
        HalfProduct(packed, bias=bias[:-1])
    product = HalfProduct(packed)
    with pytest.raises(TypeError, match="activations must be an array of float16"):
        product.run(half_panels(x).view(np.int16))
    with pytest.raises(ValueError, match="12 or more"):
        product.run(aligned_empty((1, 11, 128), np.float16))
    with pytest.raises(ValueError, match="out must be writable, of shape"):
        product.run(half_panels(x), out=aligned_empty((1, 4, 128), np.float32))
    with pytest.raises(ValueError, match="64-byte boundary"):
        product.run(np.zeros(13 * 128 + 1, np.float16)[1:].reshape(1, 13, 128))


@pytest.mark.skipif(not native_halves(), reason="needs AVX512-FP16")
def test_the_loop_is_16_fused_steps_and_four_broadcasts():
    weights, kept, x, _ = problem(4, 8, 1)
    product = HalfProduct(pack_half(weights, kept))
    options = {key: value for key, value in product._kernel.targetoptions.items() if key != "nopython"}
    product._kernel = njit(**options)(product._kernel.py_func)
    product.run(half_panels(x))
    (loop,) = innermost_loops(max(product._kernel.inspect_asm().values(), key=len), "vfmadd231ph")
    assert len([line for line in loop if re.match(r"vfmadd231ph\s.*zmm", line)]) == 16
    assert len([line for line in loop if re.match(r"v(pbroadcastd|broadcastss)\s.*\(.*zmm", line)]) == 4
    assert not [line for line in loop if "rsp" in line or line.startswith("vpbroadcastw")]
