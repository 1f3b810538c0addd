"""Operators that change the size of images: interpolation, and convolution turned around."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sparsefab.models.operators.attributes import (
    Array,
    Attributes,
    Inputs,
    Operator,
    integer,
    integers,
    number,
    optional,
    required,
    text,
)

__all__ = ["RESAMPLING"]

_NEAREST: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _resize(inputs: Inputs, attributes: Attributes) -> Array:
    x = required(inputs, 0)
    for key, allowed in (("antialias", 0), ("extrapolation_value", 0.0)):
        if attributes.get(key, allowed) != allowed:
            raise ValueError(f"attribute {key} is not supported")
    mode = text(attributes, "mode", "nearest")
    for axis, scale, length in _lengths(x.shape, inputs, attributes):
        if length == x.shape[axis] and scale == 1:
            continue
        places = _places(text(attributes, "coordinate_transformation_mode", "half_pixel"), scale, x.shape[axis], length)
        if mode == "nearest":
            rule = text(attributes, "nearest_mode", "round_prefer_floor")
            x = np.take(x, np.clip(_NEAREST[rule](places), 0, x.shape[axis] - 1).astype(np.int64), axis)
        elif mode in ("linear", "cubic"):
            weights = _weights(
                places,
                x.shape[axis],
                mode == "cubic",
                number(attributes, "cubic_coeff_a", -0.75),
                bool(integer(attributes, "exclude_outside", 0)),
            )
            x = np.moveaxis(np.moveaxis(x, axis, -1) @ weights.T.astype(np.float32), -1, axis)
        else:
            raise ValueError(f"attribute mode {mode!r} is not supported")
    return x


def _lengths(shape: tuple[int, ...], inputs: Inputs, attributes: Attributes) -> list[tuple[int, float, int]]:
    """Axis, scale and new length, from the input `scales` or `sizes`."""
    axes = integers(attributes, "axes", range(len(shape)))
    scales, sizes = optional(inputs, 2), optional(inputs, 3)
    if scales is not None and scales.size:
        factors = [float(scale) for scale in scales]
        return [(axis, scale, int(np.floor(shape[axis] * scale))) for axis, scale in zip(axes, factors, strict=True)]
    if sizes is None:
        raise ValueError("one of the inputs scales and sizes must be given")
    factors = [int(size) / shape[axis] for axis, size in zip(axes, sizes, strict=True)]
    policy = text(attributes, "keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        common = min(factors) if policy == "not_larger" else max(factors)
        return [(axis, common, int(np.floor(shape[axis] * common + 0.5))) for axis in axes]
    return [(axis, scale, int(size)) for axis, scale, size in zip(axes, factors, sizes, strict=True)]


def _places(mode: str, scale: float, before: int, after: int) -> NDArray[np.float64]:
    """Where each new sample lies among the old ones."""
    x = np.arange(after, dtype=np.float64)
    if mode == "asymmetric":
        return np.asarray(x / scale)
    if mode == "align_corners":
        return np.asarray(x * (before - 1) / (scale * before - 1)) if after > 1 else np.zeros(1)
    if mode == "pytorch_half_pixel" and after == 1:
        return np.zeros(1)
    if mode == "half_pixel_symmetric":
        return np.asarray(before / 2 * (1 - after / (scale * before)) + (x + 0.5) / scale - 0.5)
    if mode not in ("half_pixel", "pytorch_half_pixel"):
        raise ValueError(f"attribute coordinate_transformation_mode {mode!r} is not supported")
    return np.asarray((x + 0.5) / scale - 0.5)


def _weights(places: NDArray[np.float64], before: int, cubic: bool, a: float, exclude: bool) -> NDArray[np.float64]:
    """The matrix [after, before] of an interpolation; samples beyond the border repeat it or are left out."""
    reach = np.arange(-1, 3) if cubic else np.arange(2)
    first = np.floor(places)
    index = first[:, None] + reach
    distance = np.abs(places[:, None] - index)
    if cubic:
        near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
        far = ((distance - 5) * distance + 8) * distance * a - 4 * a
        parts = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
    else:
        parts = 1 - distance
    if exclude:
        parts = np.where((index < 0) | (index >= before), 0, parts)
        parts /= parts.sum(1, keepdims=True)
    weights = np.zeros((len(places), before))
    rows = np.broadcast_to(np.arange(len(places))[:, None], index.shape)
    np.add.at(weights, (rows, np.clip(index, 0, before - 1).astype(np.int64)), parts)
    return weights


def _transposed_convolution(inputs: Inputs, attributes: Attributes) -> Array:
    """Add each input value times the kernel into the output."""
    source, kernel, bias = required(inputs, 0), required(inputs, 1), optional(inputs, 2)
    if source.ndim not in (3, 4):
        raise ValueError(f"an input of {source.ndim} axes is not supported, only images and sequences")
    flat = source.ndim == 3
    x, weights = (array[:, :, None] if flat else array for array in (source, kernel))
    groups, spatial = integer(attributes, "group", 1), source.ndim - 2
    strides, dilations, extra = (
        (neutral,) * flat + integers(attributes, key, (neutral,) * spatial)
        for key, neutral in (("strides", 1), ("dilations", 1), ("output_padding", 0))
    )
    batch, channels, *size = x.shape
    out, taps = weights.shape[1] * groups, weights.shape[2:]
    full = [(size[axis] - 1) * strides[axis] + (taps[axis] - 1) * dilations[axis] + 1 + extra[axis] for axis in (0, 1)]
    products = np.matmul(
        weights.reshape(groups, channels // groups, -1).transpose(0, 2, 1),
        x.reshape(batch, groups, channels // groups, -1),
    )
    spread = products.reshape(batch, out, *taps, *size)
    y = np.zeros((batch, out, *full), np.float32)
    for row in range(taps[0]):
        for column in range(taps[1]):
            top, left = row * dilations[0], column * dilations[1]
            y[
                :,
                :,
                top : top + (size[0] - 1) * strides[0] + 1 : strides[0],
                left : left + (size[1] - 1) * strides[1] + 1 : strides[1],
            ] += spread[:, :, row, column]
    begin, end = _crops(attributes, full, size, strides, flat)
    y = np.pad(y, ((0, 0), (0, 0), (0, max(0, -end[0])), (0, max(0, -end[1]))))
    y = y[:, :, begin[0] : full[0] - end[0], begin[1] : full[1] - end[1]]
    if bias is not None:
        y = y + bias[:, None, None]
    return y[:, :, 0] if flat else y


def _crops(
    attributes: Attributes, full: list[int], size: list[int], strides: tuple[int, ...], flat: bool
) -> tuple[list[int], list[int]]:
    """How much of the whole output is cut off before and after, on each axis; less than nothing adds zeros after."""
    spatial, mode = 2 - flat, text(attributes, "auto_pad", "NOTSET")
    wanted = (full[0],) * flat + integers(attributes, "output_shape", ())
    if mode.startswith("SAME") and len(wanted) < 2:
        wanted = tuple(length * stride for length, stride in zip(size, strides, strict=True))
    if len(wanted) < 2:
        pads = integers(attributes, "pads", (0,) * (2 * spatial))
        return [0] * flat + list(pads[:spatial]), [0] * flat + list(pads[spatial:])
    totals = [length - target for length, target in zip(full, wanted[-2:], strict=True)]
    small = [max(0, total) // 2 for total in totals]
    large = [max(0, total) - part for total, part in zip(totals, small, strict=True)]
    begin, end = (small, large) if mode == "SAME_UPPER" else (large, small)
    return begin, [part + min(0, total) for part, total in zip(end, totals, strict=True)]


RESAMPLING: dict[str, Operator] = {"ConvTranspose": _transposed_convolution, "Resize": _resize}
