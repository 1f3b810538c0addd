"""Convolution and pooling over channels-first images; one-dimensional inputs are images of height 1."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sparsefab.models.operators.attributes import (
    Array,
    Attributes,
    Inputs,
    Operator,
    integer,
    integers,
    optional,
    required,
    text,
)

__all__ = ["CONVOLUTION", "Geometry", "columns", "convolve"]

_CHUNK_VALUES = 1 << 24
"""Values of one slice of the im2col matrix; bounds the memory of a convolution to 64 MiB beside its result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Where a window of a convolution or pooling stands.

    kernel, stride, dilation : (height, width).
    padding : (top, left, bottom, right).
    size : output (height, width).
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    size: tuple[int, int]

    @classmethod
    def of(cls, attributes: Attributes, height: int, width: int, kernel: tuple[int, ...] = ()) -> "Geometry":
        """Read the attributes of Conv, MaxPool or AveragePool for an input of height x width."""
        window = integers(attributes, "kernel_shape", kernel)
        flat = len(window) == 1
        if len(window) > 2 or not window:
            raise ValueError(f"a kernel of {len(window)} axes is not supported, only one or two")
        stride = integers(attributes, "strides", (1,) * len(window))
        dilation = integers(attributes, "dilations", (1,) * len(window))
        pads = integers(attributes, "pads", (0,) * (2 * len(window)))
        if flat:
            window, stride, dilation, pads = (1, *window), (1, *stride), (1, *dilation), (0, pads[0], 0, pads[1])
        begin, end, size = [], [], []
        mode = text(attributes, "auto_pad", "NOTSET")
        for axis, length in enumerate((height, width)):
            reach = (window[axis] - 1) * dilation[axis] + 1
            before, after = (0, 0) if mode == "VALID" else (pads[axis], pads[axis + 2])
            if mode.startswith("SAME") and not (flat and axis == 0):
                total = max((-(-length // stride[axis]) - 1) * stride[axis] + reach - length, 0)
                before = total // 2 if mode == "SAME_UPPER" else total - total // 2
                after = total - before
            steps, rest = divmod(length + before + after - reach, stride[axis])
            if integer(attributes, "ceil_mode", 0) and rest and (steps + 1) * stride[axis] < length + before:
                after += stride[axis] - rest
                steps += 1
            begin.append(before)
            end.append(after)
            size.append(steps + 1)
        if min(size) < 1:
            raise ValueError(f"a kernel of {window} does not fit an image of {height} x {width}")
        return cls(
            kernel=(window[0], window[1]),
            stride=(stride[0], stride[1]),
            dilation=(dilation[0], dilation[1]),
            padding=(begin[0], begin[1], end[0], end[1]),
            size=(size[0], size[1]),
        )

    def pad(self, x: Array, value: float = 0.0) -> Array:
        """Pad images [batch, channels, height, width]."""
        top, left, bottom, right = self.padding
        if not any(self.padding):
            return x
        return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)

    def windows(self, padded: Array) -> Array:
        """View [batch, channels, out height, out width, kernel height, kernel width] of padded images."""
        reach = [(kernel - 1) * dilation + 1 for kernel, dilation in zip(self.kernel, self.dilation, strict=True)]
        view = sliding_window_view(padded, reach, (2, 3))
        view = view[:, :, :: self.stride[0], :: self.stride[1], :: self.dilation[0], :: self.dilation[1]]
        return view[:, :, : self.size[0], : self.size[1]]


def columns(x: NDArray[np.float32], geometry: Geometry) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Unfold images into the rows of a matrix product, some images at a time.

    Yields
    ------
    slice                                               The images of this part.
    float32[images, pixels, channels, kernel]           A row of the matrix is one output pixel; pixels run along rows.
    """
    padded = geometry.pad(x)
    pixels, taps = geometry.size[0] * geometry.size[1], geometry.kernel[0] * geometry.kernel[1]
    images = max(1, _CHUNK_VALUES // (pixels * x.shape[1] * taps))
    for start in range(0, len(x), images):
        part = slice(start, min(start + images, len(x)))
        view = geometry.windows(padded[part]).transpose(0, 2, 3, 1, 4, 5)
        yield part, view.reshape(view.shape[0], pixels, x.shape[1], taps)


def convolve(
    x: NDArray[np.float32], weights: NDArray[np.float32], geometry: Geometry, groups: int
) -> NDArray[np.float32]:
    """Convolve images with float weights.

    Parameters
    ----------
    x : float32[batch, in, height, width]
    weights : float32[out, in / groups * kernel]     As a weight layer stores them.

    Returns
    -------
    float32[batch, out, out height, out width]
    """
    batch, channels = x.shape[:2]
    out = weights.shape[0]
    height, width = geometry.size
    if groups == channels == out:
        return _depthwise(x, weights, geometry)
    if groups == 1 and geometry.kernel == (1, 1) and not any(geometry.padding):
        strided = x[:, :, :: geometry.stride[0], :: geometry.stride[1]].reshape(batch, channels, -1)
        return np.asarray(np.matmul(weights, strided)).reshape(batch, out, height, width)
    result = np.empty((batch, height * width, groups, out // groups), np.float32)
    split = weights.reshape(groups, out // groups, -1)
    for part, unfolded in columns(x, geometry):
        rows = unfolded.reshape(len(unfolded) * height * width, groups, -1).transpose(1, 0, 2)
        product = np.matmul(rows, split.transpose(0, 2, 1))
        result[part] = product.transpose(1, 0, 2).reshape(len(unfolded), height * width, groups, -1)
    return np.ascontiguousarray(result.reshape(batch, height * width, out).transpose(0, 2, 1)).reshape(
        batch, out, height, width
    )


def _depthwise(x: NDArray[np.float32], weights: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """One multiplication and addition of whole images for each tap of the kernel."""
    view = geometry.windows(geometry.pad(x))
    taps = weights.reshape(-1, *geometry.kernel)
    result = np.zeros(view.shape[:4], np.float32)
    for row in range(geometry.kernel[0]):
        for column in range(geometry.kernel[1]):
            result += view[..., row, column] * taps[:, row, column, None, None]
    return result


def _conv(inputs: Inputs, attributes: Attributes) -> Array:
    x, weights, bias = _image(required(inputs, 0)), required(inputs, 1), optional(inputs, 2)
    geometry = Geometry.of(attributes, x.shape[2], x.shape[3], weights.shape[2:])
    matrix = weights.reshape(weights.shape[0], -1)
    y = convolve(x, matrix, geometry, integer(attributes, "group", 1))
    if bias is not None:
        y = y + bias[:, None, None]
    return y if weights.ndim == 4 else y[:, :, 0]


def _max_pool(inputs: Inputs, attributes: Attributes) -> Array:
    source = required(inputs, 0)
    x = _image(source)
    geometry = Geometry.of(attributes, x.shape[2], x.shape[3])
    lowest = -np.inf if np.issubdtype(x.dtype, np.floating) else np.iinfo(x.dtype).min
    y = np.asarray(geometry.windows(geometry.pad(x, lowest)).max((-2, -1)))
    return y if source.ndim == 4 else y[:, :, 0]


def _average_pool(inputs: Inputs, attributes: Attributes) -> Array:
    source = required(inputs, 0)
    x = _image(source)
    geometry = Geometry.of(attributes, x.shape[2], x.shape[3])
    total = geometry.windows(geometry.pad(x)).sum((-2, -1), dtype=np.float32)
    counted = np.ones((1, 1, *x.shape[2:]), np.float32)
    if integer(attributes, "count_include_pad", 0):
        given = Geometry.of({**attributes, "ceil_mode": 0}, x.shape[2], x.shape[3]).padding
        counted = np.pad(counted, ((0, 0), (0, 0), given[::2], given[1::2]), constant_values=1)
        extra = tuple(now - then for now, then in zip(geometry.padding, given, strict=True))
        counted = np.pad(counted, ((0, 0), (0, 0), extra[::2], extra[1::2]))
    else:
        counted = geometry.pad(counted)
    y = np.asarray(total / geometry.windows(counted).sum((-2, -1)))
    return y if source.ndim == 4 else y[:, :, 0]


def _global_average(inputs: Inputs, attributes: Attributes) -> Array:
    x = required(inputs, 0)
    return np.asarray(x.mean(tuple(range(2, x.ndim)), keepdims=True))


def _global_max(inputs: Inputs, attributes: Attributes) -> Array:
    x = required(inputs, 0)
    return np.asarray(x.max(tuple(range(2, x.ndim)), keepdims=True))


def _image(x: Array) -> Array:
    """[batch, channels, width] -> [batch, channels, 1, width]."""
    if x.ndim not in (3, 4):
        raise ValueError(f"an input of {x.ndim} axes is not supported, only images and sequences")
    return x if x.ndim == 4 else x[:, :, None]


CONVOLUTION: dict[str, Operator] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "MaxPool": _max_pool,
}
