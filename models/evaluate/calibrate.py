"""Static activation scales from the ranges that calibration data shows."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.formats import IntFormat, StaticScale
from sparsefab.models.compress import CompressedModel
from sparsefab.models.execute import execute

__all__ = ["calibrate"]

Feeds = Mapping[str, NDArray[Any]]


def calibrate(compressed: CompressedModel, feeds: Iterable[Feeds]) -> CompressedModel:
    """Give every static layer the scale of its input's range over calibration data, found on the float model.

    Raises
    ------
    ModelError                      If there is no calibration data.
    """
    wanted = set(compressed.uncalibrated)
    if not wanted:
        return compressed
    ranges: dict[str, tuple[float, float]] = {}

    def observe(layer: str, x: NDArray[np.float32], /) -> None:
        if layer in wanted:
            low, high = ranges.get(layer, (0.0, 0.0))
            ranges[layer] = min(low, float(x.min())), max(high, float(x.max()))

    for feed in feeds:
        execute(compressed.model, feed, observer=observe)
    if missing := sorted(wanted - set(ranges)):
        raise ModelError(f"calibration data never reached layer {missing[0]}; give at least one sample")
    scales = {}
    for name, (low, high) in ranges.items():
        fmt = compressed.layers[name].activations
        if isinstance(fmt, IntFormat):
            scales[name] = StaticScale.of_range(low, high, fmt)
    return compressed.with_static(scales)
