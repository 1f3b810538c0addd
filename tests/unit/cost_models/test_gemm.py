"""The product model: limits of the curve, the residual as an interpolation, bounds that behave."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsefab.cost_models.anchors import load_gemm
from sparsefab.cost_models.gemm import REGIMES, Curve, GemmFit, Residual, classify, coordinates, matern

times = st.floats(1e-7, 1e-1)


@settings(max_examples=100, deadline=None)
@given(memory=times, compute=times, exponent=st.floats(0.5, 60))
def test_a_curve_lies_between_its_limits(memory: float, compute: float, exponent: float) -> None:
    curve = Curve(launch_s=2e-6, memory_efficiency=0.8, compute_efficiency=0.7, exponent=exponent)
    seconds = float(curve.seconds(np.array([memory]), np.array([compute]))[0])
    a, b = memory / 0.8, compute / 0.7
    direct = 2e-6 + (a**exponent + b**exponent) ** (1 / exponent) if exponent < 20 else None
    assert seconds >= 2e-6 + max(a, b) * (1 - 1e-12)
    if exponent >= 1:
        assert seconds <= 2e-6 + (a + b) * (1 + 1e-12)
    if direct is not None:
        assert seconds == pytest.approx(direct, rel=1e-9)


def test_a_large_exponent_is_the_roofline() -> None:
    curve = Curve(launch_s=0.0, memory_efficiency=1.0, compute_efficiency=1.0, exponent=500.0)
    memory, compute = np.array([1e-3, 5e-3]), np.array([4e-3, 2e-3])
    np.testing.assert_allclose(curve.seconds(memory, compute), [4e-3, 5e-3], rtol=2e-3)


def test_matern_against_its_definition() -> None:
    left, right, scales = np.array([[0.0, 1.0]]), np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([4.0, 1.0])
    distance = 2.0 / 4.0
    expected = (1 + np.sqrt(3) * distance) * np.exp(-np.sqrt(3) * distance)
    np.testing.assert_allclose(matern(left, right, scales), [[expected, 1.0]])


def make_residual() -> tuple[Residual, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    points, values = rng.uniform(0, 12, (40, 3)), rng.normal(0, 0.2, 40)
    residual = Residual.at(points, values, np.array([3.0, 3.0, 3.0]), 0.2, 0.02)
    return residual, points, values


def test_the_residual_passes_through_its_anchors() -> None:
    residual, points, values = make_residual()
    got, deviation = residual.predict(points)
    np.testing.assert_allclose(got, values, atol=2e-3)
    far, wide = residual.predict(points + 200.0)
    np.testing.assert_allclose(far, 0.0, atol=1e-12)
    np.testing.assert_allclose(wide, np.hypot(0.2, 0.02), rtol=1e-9)
    assert deviation.max() < wide.min()


def test_bounds_hold_the_value_and_widen_with_distance() -> None:
    residual, points, _ = make_residual()
    fit_points = coordinates(*(2.0**points.T))
    residual = Residual.at(fit_points, residual.values, np.full(5, 3.0), 0.2, 0.02)
    bounds = dict.fromkeys(REGIMES, (-1.6, 1.7))
    curve = Curve(launch_s=3e-6, memory_efficiency=0.8, compute_efficiency=0.8, exponent=2.0)
    fit = GemmFit(device="x", kernel="fp16", curve=curve, residual=residual, bounds=bounds)
    m, n, k = np.array([1.0, 64.0, 4096.0, 2.0**40]), np.full(4, 4096.0), np.full(4, 4096.0)
    value, low, high = fit.seconds(m, n, k, n * k * 1e-12, m * n * k * 1e-14)
    assert (low <= value).all()
    assert (value <= high).all()
    assert (high / low)[3] > (high / low)[:3].max()


def test_regimes() -> None:
    curve = Curve(launch_s=5e-6, memory_efficiency=1.0, compute_efficiency=1.0, exponent=2.0)
    m = np.array([16.0, 256.0, 256.0, 8192.0])
    n = np.array([4096.0, 64.0, 4096.0, 4096.0])
    memory, compute = np.array([2e-5, 1e-6, 2e-5, 1e-5]), np.array([1e-6, 1e-6, 1e-5, 9e-4])
    assert [REGIMES[i] for i in classify(m, n, n, curve, memory, compute)] == ["decode", "launch", "memory", "compute"]


def test_remembered_shapes_are_the_vectorized_ones() -> None:
    fit = load_gemm().gemm["h200", "fp16"]
    rng = np.random.default_rng(2)
    m, n, k = (2.0 ** rng.integers(0, 13, 200) for _ in range(3))
    memory_s, compute_s = n * k * 1e-12, m * n * k * 1e-14
    together = fit.seconds(m, n, k, memory_s, compute_s)
    few = fit.seconds(m[:20], n[:20], k[:20], memory_s[:20], compute_s[:20])
    for whole, part in zip(together, few, strict=True):
        np.testing.assert_allclose(whole[:20], part, rtol=1e-9)
