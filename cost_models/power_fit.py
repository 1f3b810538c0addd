"""Fit the terms of a board's power to what its meter read under load.

    P = min(limit, static + memory * use of bandwidth + compute * use of peak)

`static` is the idle board; the others are the least squares of the relative errors, none negative. Loads at the limit
say only that a term is large enough, so the smallest terms that explain them are taken. Needs SciPy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from sparsefab.cost_models.gemm import Floats
from sparsefab.cost_models.roofline import data_sheet_times
from sparsefab.targets import Device

__all__ = ["PowerFit", "fit_power", "power_samples"]

_SHRINK = 1e-3  # weight of the squared terms over the limit, far below the meter's own scatter


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PowerFit:
    """Terms in watts, the mean error on loads left out one at a time, and the samples.

    samples : float64[loads, 3]     Use of bandwidth, use of peak, watts.
    """

    static_w: float
    memory_w: float
    compute_w: float
    mean_error: float
    samples: Floats


def power_samples(rows: Sequence[dict[str, object]], device: Device) -> Floats:
    """Return float64[loads, 3] of rows as `measure_power` gives them: uses of the data sheet's rates, and watts."""
    table = []
    for row in rows:
        kernel, watts = str(row["dtype"]), float(str(row["watts"]))
        if not kernel:
            table.append((0.0, 0.0, watts))
            continue
        m, n, k = (np.array([float(str(row[name]))]) for name in "mnk")
        memory_s, compute_s = data_sheet_times(device, kernel, m, n, k)
        seconds = float(str(row["latency_ms"])) * 1e-3
        table.append((float(memory_s[0]) / seconds, float(compute_s[0]) / seconds, watts))
    return np.array(table, np.float64).reshape(-1, 3)


def fit_power(samples: Floats, limit_w: float) -> PowerFit:
    """Fit float64[loads, 3]: uses and watts; the least watts are those of the idle board."""
    terms = _terms(samples, limit_w)
    errors = []
    for left in range(len(samples)):
        kept = np.arange(len(samples)) != left
        if samples[left, :2].any():  # an idle board says nothing of the others
            watts = _watts(_terms(samples[kept], limit_w), samples[left : left + 1], limit_w)[0]
            errors.append(abs(watts / samples[left, 2] - 1.0))
    static, memory, compute = (float(term) for term in terms)
    return PowerFit(
        static_w=static, memory_w=memory, compute_w=compute, mean_error=float(np.mean(errors)), samples=samples
    )


def _watts(terms: Floats, samples: Floats, limit_w: float) -> Floats:
    uses = np.clip(samples[:, :2], 0.0, 1.0)
    return np.asarray(np.minimum(limit_w, terms[0] + uses @ terms[1:]), np.float64)


def _terms(samples: Floats, limit_w: float) -> Floats:
    static = float(samples[:, 2].min())

    def loss(logs: Floats) -> float:
        watts = _watts(np.array([static, *np.exp(logs)]), samples, limit_w)
        shrink = _SHRINK * float((np.exp(2.0 * logs)).sum()) / limit_w**2
        return float(((watts / samples[:, 2] - 1.0) ** 2).sum()) + shrink

    starts = [np.log(np.array([a, b]) * limit_w) for a in (0.3, 0.7) for b in (0.5, 1.2)]
    best = min((minimize(loss, start, method="Nelder-Mead") for start in starts), key=lambda run: float(run.fun))
    return np.array([static, *np.exp(best.x)])
