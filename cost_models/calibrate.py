"""Fit the GPU product model to a table of measured kernels and write what ships: parameters, anchors, bounds.

    python -m sparsefab.cost_models.calibrate gpu_gemm_measured.parquet

The table has columns gpu, dtype, m, n, k, latency_ms and source. One (n, k) in eight is kept out of everything below
and shipped as the held-out set. On the rest: four curve parameters by Nelder-Mead on the mean |log error|; length
scales, amplitude and noise by marginal likelihood on a random subset; residuals at a few hundred far-apart anchors as the
posterior mean given every measurement; bounds from out-of-fold errors, whole (n, k) left out at a time. Needs SciPy
and pandas.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from sparsefab.cost_models.anchors import GEMM_FILE
from sparsefab.cost_models.gemm import REGIMES, Curve, Floats, GemmFit, Residual, classify, coordinates, matern
from sparsefab.cost_models.roofline import data_sheet_times
from sparsefab.targets import load_device

__all__ = ["fit_curve", "fit_pair", "main"]

log = logging.getLogger(__name__)

#: Device keys and dtypes of the measured table, in this project's names.
DEVICES = {
    "a100_sxm": "a100",
    "h100_sxm": "h100",
    "h200_sxm": "h200",
    "l40s": "l40s",
    "b200_sxm": "b200",
    "gb200": "gb200",
}
KERNELS = {
    "bfloat16": "fp16",
    "int4_wo": "int4_wo",
    "int8_wo": "int8_wo",
    "sq": "sq",
    "fp8": "fp8",
    "fp8_block": "fp8_block",
}

ANCHORS, HYPER_ROWS, FOLDS, HELD_OUT_ROWS = 300, 450, 5, 80
NOMINAL = 0.90
_HYPER_BOUND = (-4.5, 4.5)


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
    """Posterior mean at the anchors given every row (subset of regressors)."""
    at = points[anchors]
    cross, own = matern(points, at, scales), matern(at, at, scales)
    ratio = (noise / amplitude) ** 2
    weights = np.linalg.solve(cross.T @ cross + ratio * own + 1e-8 * np.eye(len(at)), cross.T @ values)
    return Residual.at(at, own @ weights, scales, amplitude, noise)


def _folds(n: Floats, k: Floats, count: int, seed: int) -> NDArray[np.intp]:
    """Return a fold for every row, the same for all rows of one (n, k)."""
    keys, inverse = np.unique(np.stack([n, k]), axis=1, return_inverse=True)
    return np.random.default_rng(seed).permutation(keys.shape[1])[inverse] % count


def _bounds(errors: Floats, deviation: Floats, regime: NDArray[np.intp]) -> dict[str, list[float]]:
    """Return the factors of the deviation that hold NOMINAL of the out-of-fold errors of each regime."""
    ratio, tail = errors / deviation, (1.0 - NOMINAL) / 2.0
    bounds = {}
    for index, name in enumerate(REGIMES):
        own = ratio[regime == index]
        own = ratio if len(own) < 60 else own  # too few to stratify
        low, high = np.quantile(own, [tail, 1.0 - tail])
        bounds[name] = [round(min(float(low), -0.1), 3), round(max(float(high), 0.1), 3)]
    return bounds


def fit_pair(
    m: Floats,
    n: Floats,
    k: Floats,
    memory_s: Floats,
    compute_s: Floats,
    seconds: Floats,
    *,
    device: str,
    kernel: str,
    seed: int = 0,
) -> tuple[GemmFit, dict[str, float]]:
    """Fit one (device, kernel family).

    Parameters
    ----------
    m, n, k : float64[shapes]                   Products [m, k] x [k, n].
    memory_s, compute_s : float64[shapes]       Data-sheet times.
    seconds : float64[shapes]                   Measured times.

    Returns
    -------
    GemmFit, figures                            `figures`: out-of-fold mean_error, coverage, median_spread.
    """
    points = coordinates(m, n, k)
    curve = fit_curve(memory_s, compute_s, seconds)
    residual = np.log(seconds / curve.seconds(memory_s, compute_s))
    scales, amplitude, noise = _hyperparameters(points, residual, seed)
    fold = _folds(n, k, FOLDS, seed)
    errors, deviation = np.zeros(len(m)), np.zeros(len(m))
    for index in range(FOLDS):
        inside, outside = fold != index, fold == index
        own = fit_curve(memory_s[inside], compute_s[inside], seconds[inside])
        values = np.log(seconds[inside] / own.seconds(memory_s[inside], compute_s[inside]))
        anchors = _spread(points[inside], scales, ANCHORS)
        part = _residual(points[inside], values, scales, amplitude, noise, anchors)
        shift, deviation[outside] = part.predict(points[outside])
        errors[outside] = np.log(seconds[outside] / own.seconds(memory_s[outside], compute_s[outside])) - shift
    regime = classify(m, n, k, curve, memory_s, compute_s)
    bounds = _bounds(errors, deviation, regime)
    final = _residual(points, residual, scales, amplitude, noise, _spread(points, scales, ANCHORS))
    factor = np.array([bounds[name] for name in REGIMES])[regime]
    inside = (errors >= factor[:, 0] * deviation) & (errors <= factor[:, 1] * deviation)
    figures = {
        "mean_error": float(np.abs(np.expm1(-errors)).mean()),
        "coverage": float(inside.mean()),
        "median_spread": float(np.median(np.exp((factor[:, 1] - factor[:, 0]) * deviation))),
    }
    pairs = {name: (low, high) for name, (low, high) in bounds.items()}
    return GemmFit(device=device, kernel=kernel, curve=curve, residual=final, bounds=pairs), figures


def _pair_entry(rows: pd.DataFrame, device: str, kernel: str) -> dict[str, object]:
    m, n, k = (rows[name].to_numpy(np.float64) for name in "mnk")
    seconds = rows["latency_ms"].to_numpy(np.float64) * 1e-3
    memory_s, compute_s = data_sheet_times(load_device(device), kernel, m, n, k)
    kept = _folds(n, k, 8, seed=7) == 0
    fit_rows = ~kept
    fit, figures = fit_pair(
        m[fit_rows],
        n[fit_rows],
        k[fit_rows],
        memory_s[fit_rows],
        compute_s[fit_rows],
        seconds[fit_rows],
        device=device,
        kernel=kernel,
    )
    log.info("%s %s: out-of-fold error %.3f, coverage %.3f, spread %.2f", device, kernel, *figures.values())
    shapes = np.round(2.0 ** fit.residual.anchors[:, :3]).astype(int)
    check = np.flatnonzero(kept)
    check = np.sort(np.random.default_rng(3).permutation(check)[:HELD_OUT_ROWS])
    return {
        "device": device,
        "kernel": kernel,
        "measured": str(rows["source"].iloc[0]),
        "rows": int(fit_rows.sum()),
        "curve": {
            name: float(f"{getattr(fit.curve, name):.5g}")
            for name in ("launch_s", "memory_efficiency", "compute_efficiency", "exponent")
        },
        "scales": [round(float(value), 4) for value in fit.residual.scales],
        "amplitude": round(fit.residual.amplitude, 5),
        "noise": round(fit.residual.noise, 5),
        "bounds": {name: list(pair) for name, pair in fit.bounds.items()},
        "out_of_fold": {name: round(value, 4) for name, value in figures.items()},
        "anchors": [
            [int(a), int(b), int(c), round(float(v), 4)]
            for (a, b, c), v in zip(shapes, fit.residual.values, strict=True)
        ],
        "held_out": [[int(m[i]), int(n[i]), int(k[i]), float(f"{seconds[i]:.5g}")] for i in check],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit every pair of a table and write the calibration file."""
    parser = argparse.ArgumentParser(prog="calibrate", description="Fit the GPU product model to measured kernels.")
    parser.add_argument("table", type=Path, help="Parquet: gpu, dtype, m, n, k, latency_ms, source")
    parser.add_argument("-o", "--output", type=Path, default=GEMM_FILE)
    parser.add_argument("--source", default="ai-dynamo/aiconfigurator@095f58a, gemm_perf tables of TensorRT-LLM")
    parser.add_argument("--licence", default="Apache-2.0")
    parser.add_argument("--date", required=True, help="of the fit, YYYY-MM-DD")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    table = pd.read_parquet(options.table)
    pairs = [
        _pair_entry(rows.reset_index(drop=True), DEVICES[str(gpu)], KERNELS[str(dtype)])
        for (gpu, dtype), rows in table.groupby(["gpu", "dtype"])
    ]
    head = {
        "source": options.source,
        "licence": options.licence,
        "date": options.date,
        "columns": "anchors: m, n, k, log residual; held_out: m, n, k, seconds; no (n, k) of held_out is in the fit",
    }
    lines = [json.dumps(pair, separators=(",", ":")) for pair in pairs]
    body = json.dumps(head)[:-1] + ', "pairs": [\n' + ",\n".join(lines) + "\n]}\n"
    options.output.write_text(body, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
