"""Static activation scales from the ranges that calibration data shows."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.formats import BlockFormat, IntFormat, QuantTensor, StaticScale
from sparsefab.models.compress import CompressedLayer, CompressedModel
from sparsefab.models.evaluate.layer_product import has_integer_bias
from sparsefab.models.execute import execute

__all__ = ["calibrate", "coarse_rows"]

BIAS_LIMIT = 1 << 30

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
    calibrated = compressed.with_static(scales)
    layers = {
        name: replace(layer, tensor=coarse_rows(layer, compressed.model.bias(name)))
        for name, layer in calibrated.layers.items()
    }
    return replace(calibrated, layers=layers)


def coarse_rows(layer: CompressedLayer, bias: NDArray[np.float32] | None) -> QuantTensor:
    """Coarsen the scale of rows whose bias would not fit the accumulator: 2^30 units of row scale x activation scale.

    Fraction bits of MX, and the bits of NVFP4's multipliers, come on top of the 30.

    Such a row's weights are a billionth of its bias (a dead channel, after folding a batch norm); they become 0 or 1.
    """
    tensor = layer.tensor
    if bias is None or layer.static is None or not has_integer_bias(layer):
        return tensor
    unit = tensor.accumulator_scale.astype(np.float64) * layer.static.scale
    finer = 0
    if isinstance(tensor.format, BlockFormat):
        finer = tensor.fraction_bits if tensor.format.is_mx else tensor.format.scale.decode_table().largest.bit_length()
    factor = np.abs(bias.astype(np.float64)) / unit / (BIAS_LIMIT << finer)
    coarse = factor > 1
    if not coarse.any():
        return tensor
    factor = np.where(coarse, factor * (1 + 2.0**-20), 1.0)
    if isinstance(tensor.format, BlockFormat):
        return _coarse_blocks(tensor, tensor.format, factor)
    values = tensor.format.decode(tensor.codes)
    zero = tensor.per_weight(tensor.zero_points, 0).astype(np.float64)
    fine = (values - zero) / factor[:, None]
    whole: NDArray[np.float64] = np.rint(fine) + zero if isinstance(tensor.format, IntFormat) else fine
    codes = np.where(coarse[:, None], tensor.format.encode(whole), tensor.codes)
    scales = (tensor.row_scales.astype(np.float64) * factor).astype(np.float32)
    outliers = None
    if tensor.outliers is not None:
        outliers = np.rint(tensor.outliers / factor[:, None]).astype(np.int16)
    row_scales = np.where(coarse, scales, tensor.row_scales)
    return replace(tensor, codes=codes.astype(np.int16), row_scales=row_scales, outliers=outliers)


def _coarse_blocks(tensor: QuantTensor, fmt: BlockFormat, factor: NDArray[np.float64]) -> QuantTensor:
    """The same for block formats: MX exponents rise by powers of two, NVFP4's outer scales as far as they must."""
    assert tensor.block_scales is not None
    scales, outer = tensor.block_scales, None
    if fmt.is_mx:
        steps = np.ceil(np.log2(factor)).astype(np.int64)
        scales = np.minimum(scales + steps[:, None], fmt.scale.max_code).astype(np.uint8)
        factor = np.exp2(steps.astype(np.float64))
    else:
        factor = factor if fmt.row_scales else np.full_like(factor, factor.max())
        outer = (tensor.row_scales.astype(np.float64) * factor).astype(np.float32)
    codes = fmt.encode(fmt.decode(tensor.codes) / factor[:, None]).astype(np.int16)
    codes = np.where(factor[:, None] > 1, codes, tensor.codes)
    return QuantTensor.of_blocks(codes, fmt, scales, outer, tensor.pattern, tensor.mask)
