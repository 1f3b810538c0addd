"""Operators that turn codes into values and back, so that an exported quantized model can be read again."""

import numpy as np

from sparsefab.models.operators.attributes import Array, Attributes, Inputs, Operator, integer, optional, required
from sparsefab.models.operators.elementwise import CAST_TYPES

__all__ = ["QUANTIZATION"]


def _spread(parameter: Array, x: Array, axis: int, block: int) -> Array:
    """Bring a scale or zero point to the shape of x: one value, one per slice of an axis, or one per block."""
    if parameter.size == 1:
        return parameter.reshape((1,) * x.ndim)
    if block:
        return np.take(np.repeat(parameter, block, axis), range(x.shape[axis]), axis)
    shape = [1] * x.ndim
    shape[axis] = -1
    return parameter.reshape(shape)


def _dequantize(inputs: Inputs, attributes: Attributes) -> Array:
    x, scale, zero = required(inputs, 0), required(inputs, 1), optional(inputs, 2)
    axis, block = integer(attributes, "axis", 1), integer(attributes, "block_size", 0)
    codes = x.astype(np.float32)
    if zero is not None:
        codes = codes - _spread(zero, x, axis, block).astype(np.float32)
    return np.asarray(codes * _spread(scale, x, axis, block), np.float32)


def _quantize(inputs: Inputs, attributes: Attributes) -> Array:
    x, scale, zero = required(inputs, 0), required(inputs, 1), optional(inputs, 2)
    axis, block = integer(attributes, "axis", 1), integer(attributes, "block_size", 0)
    dtype = np.dtype(np.uint8) if zero is None else zero.dtype
    if zero is None and "output_dtype" in attributes:
        dtype = np.dtype(CAST_TYPES[integer(attributes, "output_dtype", 2)])
    codes = np.rint(x / _spread(scale, x, axis, block))
    if zero is not None:
        codes = codes + _spread(zero, x, axis, block).astype(np.float32)
    limits = np.iinfo(dtype)
    return np.clip(codes, limits.min, limits.max).astype(dtype)


QUANTIZATION: dict[str, Operator] = {"DequantizeLinear": _dequantize, "QuantizeLinear": _quantize}
