"""Paired bootstrap: the interval of a difference between two models judged on the same samples."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "bootstrap", "paired_bootstrap"]

RESAMPLES = 1000
LEVEL = 0.95

Records = NDArray[np.float64]
Interval = tuple[float, float]


def _interval(values: NDArray[np.float64]) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])  # a correlation of one document many times is not a number
    return float(low), float(high)


def paired_bootstrap(
    metric: Callable[[Records], float], baseline: Records, records: Records, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """Return the 95 % percentile interval of metric(records) - metric(baseline), resampling samples in pairs.

    Raises
    ------
    ValueError                      If the two are not records of the same samples.
    """
    if len(baseline) != len(records):
        raise ValueError(f"records of {len(records)} samples cannot be paired with {len(baseline)}")
    rng = np.random.default_rng(seed)
    picks = (rng.integers(0, len(records), len(records)) for _ in range(resamples))
    return _interval(np.array([metric(records[pick]) - metric(baseline[pick]) for pick in picks]))


def bootstrap(metric: Callable[[Records], float], records: Records, seed: int, resamples: int = RESAMPLES) -> Interval:
    """Return the 95 % percentile interval of metric(records)."""
    rng = np.random.default_rng(seed)
    picks = (rng.integers(0, len(records), len(records)) for _ in range(resamples))
    return _interval(np.array([metric(records[pick]) for pick in picks]))
