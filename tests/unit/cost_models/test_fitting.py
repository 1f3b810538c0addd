"""Fits recover what generated the data, and their intervals cover what they were not shown."""

import numpy as np
import pytest

from sparsefab.cost_models import fitting
from sparsefab.cost_models.fitting import fit_curve, fit_rows, folds_of
from sparsefab.cost_models.gemm import Curve, classify, coordinates

TRUTH = Curve(launch_s=4e-6, memory_efficiency=0.8, compute_efficiency=0.65, exponent=1.8)


def shapes(count: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(5)
    m = 2.0 ** rng.integers(0, 13, count)
    n, k = (rng.choice([512, 768, 1024, 2048, 3072, 4096, 6144, 8192], count).astype(float) for _ in range(2))
    memory_s, compute_s = 2 * (m * k + n * k + m * n) / 2e12, 2 * m * n * k / 3e14
    return m, n, k, memory_s, compute_s


def test_the_curve_is_recovered() -> None:
    *_, memory_s, compute_s = shapes(400)
    got = fit_curve(memory_s, compute_s, TRUTH.seconds(memory_s, compute_s))
    for name in ("launch_s", "memory_efficiency", "compute_efficiency", "exponent"):
        assert getattr(got, name) == pytest.approx(getattr(TRUTH, name), rel=0.03)


def test_folds_keep_groups_together() -> None:
    groups = np.repeat(np.arange(30.0), 7)[:, None]
    fold = folds_of(groups, 5, 0)
    assert all(len(set(fold[groups[:, 0] == group])) == 1 for group in range(30))
    assert set(fold) == set(range(5))


def test_a_smooth_residual_is_learnt_and_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "HYPER_ROWS", 150)
    m, n, k, memory_s, compute_s = shapes(700)
    noise = np.random.default_rng(1).normal(0, 0.03, len(m))
    bump = 0.3 * np.sin(np.log2(m)) + 0.1 * np.cos(np.log2(n))
    seconds = TRUTH.seconds(memory_s, compute_s) * np.exp(bump + noise)
    fit = fit_rows(
        coordinates(m, n, k), memory_s, compute_s, seconds, np.stack([n, k], axis=1), 4,
        lambda curve: classify(m, n, k, curve, memory_s, compute_s), anchors=120,
    )  # fmt: skip
    assert fit.mean_error < 0.06  # without the residual the bump alone is 0.2
    assert 0.87 <= fit.coverage <= 0.97  # few groups make wider bounds, as split-conformal prediction has it
    assert len(fit.anchor_rows) <= 120
