"""Operators that reduce axes or normalize along them, and plain matrix products."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sparsefab.models.operators.attributes import (
    Array,
    Attributes,
    Inputs,
    Operator,
    axes_of,
    integer,
    number,
    optional,
    required,
    text,
)

__all__ = ["REDUCTION", "softmax"]


def softmax(x: NDArray[np.float32], axis: int = -1) -> NDArray[np.float32]:
    """Compute exp(x) / sum(exp(x)) along one axis; a row of -inf gives zeros instead of NaN."""
    top = x.max(axis, keepdims=True)
    y = np.exp(x - np.where(np.isneginf(top), np.float32(0), top))
    total = y.sum(axis, keepdims=True)
    y /= np.where(total == 0, np.float32(1), total)
    return y


def _reduction(function: Callable[[Array, tuple[int, ...] | None, bool], Array]) -> Operator:
    def apply(inputs: Inputs, attributes: Attributes) -> Array:
        x, axes = required(inputs, 0), axes_of(inputs, attributes)
        if not axes and integer(attributes, "noop_with_empty_axes", 0):
            return x
        return np.asarray(function(x, axes or None, bool(integer(attributes, "keepdims", 1)))).astype(x.dtype)

    return apply


def _log_sum_exp(x: Array, axes: tuple[int, ...] | None, keep: bool) -> Array:
    top = x.max(axes, keepdims=True)
    total = np.log(np.exp(x - top).sum(axes, keepdims=True)) + top
    return total if keep else np.squeeze(total, axes)


def _arg(function: Callable[..., Array]) -> Operator:
    def apply(inputs: Inputs, attributes: Attributes) -> Array:
        x, axis = required(inputs, 0), integer(attributes, "axis", 0)
        keep = bool(integer(attributes, "keepdims", 1))
        if integer(attributes, "select_last_index", 0):
            last = x.shape[axis] - 1 - function(np.flip(x, axis), axis, keepdims=keep)
            return np.asarray(last, np.int64)
        return np.asarray(function(x, axis, keepdims=keep), np.int64)

    return apply


def _softmax(inputs: Inputs, attributes: Attributes) -> Array:
    return softmax(required(inputs, 0), integer(attributes, "axis", -1))


def _log_softmax(inputs: Inputs, attributes: Attributes) -> Array:
    x, axis = required(inputs, 0), integer(attributes, "axis", -1)
    return np.asarray(x - _log_sum_exp(x, (axis,), True))


def _top_k(inputs: Inputs, attributes: Attributes) -> tuple[Array, Array]:
    x, count = required(inputs, 0), int(required(inputs, 1).reshape(-1)[0])
    axis = integer(attributes, "axis", -1)
    if integer(attributes, "largest", 1):  # descending, and the first of equal values first
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis, kind="stable")
    order = np.take(order, range(count), axis)
    return np.take_along_axis(x, order, axis), order.astype(np.int64)


def _cum_sum(inputs: Inputs, attributes: Attributes) -> Array:
    x, axis = required(inputs, 0), int(required(inputs, 1).reshape(-1)[0])
    backwards = bool(integer(attributes, "reverse", 0))
    ordered = np.flip(x, axis) if backwards else x
    total = np.cumsum(ordered, axis, dtype=x.dtype)
    if integer(attributes, "exclusive", 0):
        total -= ordered
    return np.flip(total, axis) if backwards else total


def _layer_norm(inputs: Inputs, attributes: Attributes) -> Array | tuple[Array, ...]:
    x, axis = required(inputs, 0), integer(attributes, "axis", -1)
    axes = tuple(range(axis if axis >= 0 else x.ndim + axis, x.ndim))
    mean = x.mean(axes, keepdims=True)
    y = x - mean
    inverse = np.reciprocal(np.sqrt(np.square(y).mean(axes, keepdims=True) + np.float32(_epsilon(attributes))))
    y *= inverse
    y *= required(inputs, 1)
    bias = optional(inputs, 2)
    return (y if bias is None else y + bias), mean, inverse


def _rms_norm(inputs: Inputs, attributes: Attributes) -> Array:
    x, axis = required(inputs, 0), integer(attributes, "axis", -1)
    axes = tuple(range(axis if axis >= 0 else x.ndim + axis, x.ndim))
    mean = np.square(x).mean(axes, keepdims=True)
    y = x * np.reciprocal(np.sqrt(mean + np.float32(_epsilon(attributes))))
    y *= required(inputs, 1)
    return np.asarray(y)


def _batch_norm(inputs: Inputs, attributes: Attributes) -> Array:
    if integer(attributes, "training_mode", 0):
        raise ValueError("attribute training_mode must be 0: export the model in evaluation mode")
    x = required(inputs, 0)
    scale, bias, mean, variance = (
        required(inputs, index).reshape((-1,) + (1,) * (x.ndim - 2)) for index in range(1, 5)
    )
    gain = scale / np.sqrt(variance + np.float32(_epsilon(attributes)))
    return np.asarray(x * gain + (bias - mean * gain))


def _instance_norm(inputs: Inputs, attributes: Attributes) -> Array:
    x = required(inputs, 0)
    axes = tuple(range(2, x.ndim))
    scale, bias = (required(inputs, index).reshape((-1,) + (1,) * len(axes)) for index in (1, 2))
    centred = x - x.mean(axes, keepdims=True)
    variance = np.square(centred).mean(axes, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + np.float32(_epsilon(attributes))) * scale + bias)


def _group_norm(inputs: Inputs, attributes: Attributes) -> Array:
    x, groups = required(inputs, 0), integer(attributes, "num_groups", 1)
    split = x.reshape(x.shape[0], groups, -1)
    centred = split - split.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True)
    normal = (centred / np.sqrt(variance + np.float32(_epsilon(attributes)))).reshape(x.shape)
    scale, bias = required(inputs, 1), required(inputs, 2)
    if scale.size == groups != x.shape[1]:  # operator sets before 21 give one value a group
        scale, bias = (np.repeat(value, x.shape[1] // groups) for value in (scale, bias))
    shape = (-1,) + (1,) * (x.ndim - 2)
    return np.asarray(normal * scale.reshape(shape) + bias.reshape(shape))


def _lp_norm(inputs: Inputs, attributes: Attributes) -> Array:
    x, order = required(inputs, 0), integer(attributes, "p", 2)
    norm = np.linalg.norm(x, order, integer(attributes, "axis", -1), keepdims=True)
    return np.asarray(np.divide(x, norm, out=np.zeros_like(x), where=norm != 0))


def _matmul(inputs: Inputs, attributes: Attributes) -> Array:
    return np.asarray(np.matmul(required(inputs, 0), required(inputs, 1)))


def _gemm(inputs: Inputs, attributes: Attributes) -> Array:
    a, b, c = required(inputs, 0), required(inputs, 1), optional(inputs, 2)
    a = a.T if integer(attributes, "transA", 0) else a
    b = b.T if integer(attributes, "transB", 0) else b
    y = np.float32(number(attributes, "alpha", 1.0)) * np.matmul(a, b)
    return np.asarray(y if c is None else y + np.float32(number(attributes, "beta", 1.0)) * c)


def _einsum(inputs: Inputs, attributes: Attributes) -> Array:
    operands = [required(inputs, index) for index in range(len(inputs))]
    return np.asarray(np.einsum(text(attributes, "equation", "").replace(" ", ""), *operands, optimize=True))


def _epsilon(attributes: Attributes) -> float:
    return number(attributes, "epsilon", 1e-5)


REDUCTION: dict[str, Operator] = {
    "ArgMax": _arg(np.argmax),
    "ArgMin": _arg(np.argmin),
    "BatchNormalization": _batch_norm,
    "CumSum": _cum_sum,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _log_softmax,
    "LpNormalization": _lp_norm,
    "MatMul": _matmul,
    "RMSNormalization": _rms_norm,
    "ReduceL1": _reduction(lambda x, axes, keep: np.abs(x).sum(axes, keepdims=keep)),
    "ReduceL2": _reduction(lambda x, axes, keep: np.sqrt(np.square(x).sum(axes, keepdims=keep))),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "ReduceMax": _reduction(lambda x, axes, keep: x.max(axes, keepdims=keep)),
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keepdims=keep)),
    "ReduceMin": _reduction(lambda x, axes, keep: x.min(axes, keepdims=keep)),
    "ReduceProd": _reduction(lambda x, axes, keep: x.prod(axes, keepdims=keep)),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keepdims=keep)),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: np.square(x).sum(axes, keepdims=keep)),
    "Softmax": _softmax,
    "TopK": _top_k,
}
