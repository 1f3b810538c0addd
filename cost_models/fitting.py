"""Fit curves and residuals to measurements: the statistics behind `calibrate`, whatever is measured.

Four curve parameters by Nelder-Mead on the mean |log error|; length scales, amplitude and noise by marginal likelihood
on a random subset; residuals at far-apart anchors as the posterior mean given every row; bounds from out-of-fold
errors, whole groups of rows left out at a time. Needs SciPy.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from sparsefab.cost_models.gemm import Curve, Floats, Residual, matern

__all__ = ["ANCHORS", "Fitted", "fit_curve", "fit_rows", "folds_of"]

ANCHORS, HYPER_ROWS, FOLDS = 400, 800, 5
NOMINAL = 0.90
HUBER_PASSES = 6
_HYPER_BOUND = (-4.5, 4.5)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """A curve, a residual, bounds a regime, and what the fit reached out of fold."""

    curve: Curve
    residual: Residual
    anchor_rows: NDArray[np.intp]
    bounds: tuple[tuple[float, float], ...]
    mean_error: float
    coverage: float
    median_spread: float


def fit_curve(memory_s: Floats, compute_s: Floats, seconds: Floats) -> Curve:
    """Return the curve with the least mean |log error|; two starts, since the launch constant has two basins."""
    target = np.log(seconds)

    def loss(logs: Floats) -> float:
        return float(np.abs(np.log(_curve(logs).seconds(memory_s, compute_s)) - target).mean())

    starts = [np.log([launch, 0.8, 0.7, 1.5]) for launch in (2e-6, 8e-6)]
    options = {"maxiter": 2000, "xatol": 1e-3, "fatol": 1e-5}
    best = min(
        (minimize(loss, start, method="Nelder-Mead", options=options) for start in starts), key=lambda run: run.fun
    )
    return _curve(best.x)


def _curve(logs: Floats) -> Curve:
    launch, memory, compute, exponent = (float(value) for value in np.exp(logs))
    return Curve(launch_s=launch, memory_efficiency=memory, compute_efficiency=compute, exponent=exponent)


def _hyperparameters(points: Floats, values: Floats, seed: int) -> tuple[Floats, float, float]:
    """Length scales, amplitude and noise that maximize the marginal likelihood on a random subset."""
    chosen = np.random.default_rng(seed).choice(len(points), min(HYPER_ROWS, len(points)), replace=False)
    x, y, axes = points[chosen], values[chosen], points.shape[1]

    def negative_log_likelihood(logs: Floats) -> float:
        covariance = np.exp(2 * logs[axes]) * matern(x, x, np.exp(logs[:axes]))
        covariance[np.diag_indices(len(x))] += np.exp(2 * logs[axes + 1])
        try:
            factor = cho_factor(covariance, lower=True)
        except np.linalg.LinAlgError:
            return 1e9
        return float(0.5 * y @ cho_solve(factor, y) + np.log(np.diag(factor[0])).sum())

    start = np.log([2.0] * axes + [float(y.std()) + 0.01, 0.05])
    run = minimize(
        negative_log_likelihood, start, method="L-BFGS-B", bounds=[_HYPER_BOUND] * (axes + 2), options={"maxiter": 25}
    )
    return np.exp(run.x[:axes]), float(np.exp(run.x[axes])), float(np.exp(run.x[axes + 1]))


def _spread(points: Floats, scales: Floats, count: int) -> NDArray[np.intp]:
    """Indices of `count` points, each the farthest from those before it."""
    scaled, chosen = points / scales, [0]
    distance = np.full(len(points), np.inf)
    while len(chosen) < min(count, len(points)):
        distance = np.minimum(distance, ((scaled - scaled[chosen[-1]]) ** 2).sum(1))
        if distance.max() == 0.0:
            break
        chosen.append(int(distance.argmax()))
    return np.asarray(chosen)


def _residual(
    points: Floats, values: Floats, scales: Floats, amplitude: float, noise: float, anchors: NDArray[np.intp]
) -> Residual:
    """Posterior mean at the anchors given every row (subset of regressors), rows far off weighing less (Huber)."""
    at = points[anchors]
    cross, own = matern(points, at, scales), matern(at, at, scales)
    prior = (noise / amplitude) ** 2 * own + 1e-8 * np.eye(len(at))
    trust = np.ones(len(values))
    weights: Floats = np.zeros(len(at))
    for _ in range(HUBER_PASSES):
        weighted = cross * trust[:, None]
        weights = np.asarray(np.linalg.solve(weighted.T @ cross + prior, weighted.T @ values), np.float64)
        trust = 1.0 / np.maximum(np.abs(values - cross @ weights) / noise, 1.0)
    return Residual.at(at, own @ weights, scales, amplitude, noise)


def folds_of(groups: Floats, count: int, seed: int) -> NDArray[np.intp]:
    """Return a fold for every row of float64[rows, keys], the same for all rows of one group."""
    keys, inverse = np.unique(groups, axis=0, return_inverse=True)
    return np.random.default_rng(seed).permutation(len(keys))[inverse] % count


def _bounds(
    errors: Floats, deviation: Floats, regime: NDArray[np.intp], regimes: int, group: NDArray[np.intp]
) -> tuple[tuple[float, float], ...]:
    """Return the factors of the deviation that hold NOMINAL of the out-of-fold errors of each regime.

    The quantiles are those of split-conformal prediction with as many samples as there are groups: the errors of one
    group go together.
    """
    ratio, tail = errors / deviation, (1.0 - NOMINAL) / 2.0
    bounds = []
    for index in range(regimes):
        own = regime == index
        own = np.ones_like(own) if own.sum() < 60 else own  # too few to stratify
        count = len(np.unique(group[own]))
        level = min(1.0, (1.0 - tail) * (count + 1) / count)
        low, high = np.quantile(ratio[own], [1.0 - level, level])
        bounds.append((round(min(float(low), -0.1), 3), round(max(float(high), 0.1), 3)))
    return tuple(bounds)


def fit_rows(
    points: Floats,
    memory_s: Floats,
    compute_s: Floats,
    seconds: Floats,
    groups: Floats,
    regimes: int,
    classify: Callable[[Curve], NDArray[np.intp]],
    *,
    anchors: int = ANCHORS,
    seed: int = 0,
) -> Fitted:
    """Fit one table of measurements.

    Parameters
    ----------
    points : float64[rows, axes]                Coordinates of the residual.
    memory_s, compute_s : float64[rows]         Data-sheet times.
    seconds : float64[rows]                     Measured times.
    groups : float64[rows, keys]                Rows that agree here are left out together.
    classify : Callable                         Regime of each row under a curve, below `regimes`.
    """
    curve = fit_curve(memory_s, compute_s, seconds)
    residual = np.log(seconds / curve.seconds(memory_s, compute_s))
    scales, amplitude, noise = _hyperparameters(points, residual, seed)
    fold = folds_of(groups, FOLDS, seed)
    errors, deviation = np.zeros(len(seconds)), np.zeros(len(seconds))
    for index in range(FOLDS):
        kept, left = fold != index, fold == index
        own = fit_curve(memory_s[kept], compute_s[kept], seconds[kept])
        values = np.log(seconds[kept] / own.seconds(memory_s[kept], compute_s[kept]))
        chosen = _spread(points[kept], scales, anchors)
        part = _residual(points[kept], values, scales, amplitude, noise, chosen)
        shift, deviation[left] = part.predict(points[left])
        errors[left] = np.log(seconds[left] / own.seconds(memory_s[left], compute_s[left])) - shift
    regime = classify(curve)
    group = np.unique(groups, axis=0, return_inverse=True)[1].reshape(-1)
    bounds = _bounds(errors, deviation, regime, regimes, group)
    chosen = _spread(points, scales, anchors)
    factor = np.asarray(bounds)[regime]
    inside = (errors >= factor[:, 0] * deviation) & (errors <= factor[:, 1] * deviation)
    return Fitted(
        curve=curve,
        residual=_residual(points, residual, scales, amplitude, noise, chosen),
        anchor_rows=chosen,
        bounds=bounds,
        mean_error=float(np.abs(np.expm1(-errors)).mean()),
        coverage=float(inside.mean()),
        median_spread=float(np.median(np.exp((factor[:, 1] - factor[:, 0]) * deviation))),
    )
