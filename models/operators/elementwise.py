"""Operators that work value by value: arithmetic, comparison, activation functions, casts.

Float results are float32; float16, bfloat16 and double do not occur, the importers widen or narrow them to float32.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sparsefab.models.operators.attributes import (
    Array,
    Attributes,
    Inputs,
    Operator,
    integer,
    number,
    optional,
    required,
    text,
)

__all__ = ["CAST_TYPES", "ELEMENTWISE", "erf", "sigmoid"]

CAST_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float32",
    11: "float32",
    12: "uint32",
    13: "uint64",
    16: "float32",
}
"""NumPy type by ONNX element type (onnx.proto, TensorProto.DataType); every float becomes float32."""

# erf(x) ~ x P(x^2) / Q(x^2) on [-4, 4], highest power first: the minimax fit of XLA's ErfImpl32 (Apache-2.0).
_ERF_P = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_Q = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


def erf(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the error function of float32 values, with an absolute error below 4e-7."""
    clipped = np.clip(x, -4.0, 4.0)
    square = clipped * clipped
    upper, lower = np.full_like(square, _ERF_P[0]), np.full_like(square, _ERF_Q[0])
    for coefficient in _ERF_P[1:]:
        upper *= square
        upper += np.float32(coefficient)
    for coefficient in _ERF_Q[1:]:
        lower *= square
        lower += np.float32(coefficient)
    upper *= clipped
    upper /= lower
    return upper


def sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute 1 / (1 + exp(-x))."""
    with np.errstate(over="ignore"):
        y = np.exp(-x)
    y += 1
    return np.asarray(np.reciprocal(y, out=y))


def _unary(function: Callable[[Array], Array]) -> Operator:
    def apply(inputs: Inputs, attributes: Attributes) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return function(required(inputs, 0))

    return apply


def _binary(function: Callable[[Array, Array], Array]) -> Operator:
    def apply(inputs: Inputs, attributes: Attributes) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return function(required(inputs, 0), required(inputs, 1))

    return apply


def _variadic(function: Callable[[Array, Array], Array]) -> Operator:
    def apply(inputs: Inputs, attributes: Attributes) -> Array:
        result = required(inputs, 0)
        for index in range(1, len(inputs)):
            result = function(result, required(inputs, index))
        return result

    return apply


def _divide(x: Array, y: Array) -> Array:
    if np.issubdtype(x.dtype, np.floating):
        return np.asarray(np.divide(x, y))
    quotient = np.abs(x) // np.abs(y)  # ONNX rounds the quotient of integers towards zero
    return np.asarray(quotient * (np.sign(x) * np.sign(y)), x.dtype)


def _power(inputs: Inputs, attributes: Attributes) -> Array:
    x, exponent = required(inputs, 0), required(inputs, 1)
    if exponent.size == 1 and exponent.reshape(-1)[0] == 2:
        return np.asarray(np.multiply(x, x).reshape(np.broadcast_shapes(x.shape, exponent.shape)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.power(x, exponent)).astype(x.dtype)


def _modulo(inputs: Inputs, attributes: Attributes) -> Array:
    function = np.fmod if integer(attributes, "fmod", 0) else np.mod
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(function(required(inputs, 0), required(inputs, 1)))


def _mean(inputs: Inputs, attributes: Attributes) -> Array:
    return np.asarray(_variadic(np.add)(inputs, attributes)) / np.float32(len(inputs))


def _clip(inputs: Inputs, attributes: Attributes) -> Array:
    low, high = optional(inputs, 1), optional(inputs, 2)
    x = required(inputs, 0)
    if low is not None:
        x = np.maximum(x, low)
    return x if high is None else np.asarray(np.minimum(x, high))


def _where(inputs: Inputs, attributes: Attributes) -> Array:
    return np.where(required(inputs, 0), required(inputs, 1), required(inputs, 2))


def _cast(inputs: Inputs, attributes: Attributes) -> Array:
    target = integer(attributes, "to", 0)
    if target not in CAST_TYPES:
        raise ValueError(f"attribute to = {target} is no supported element type")
    with np.errstate(invalid="ignore"):
        return required(inputs, 0).astype(CAST_TYPES[target], copy=False)


def _cast_like(inputs: Inputs, attributes: Attributes) -> Array:
    return required(inputs, 0).astype(required(inputs, 1).dtype, copy=False)


def _gelu(inputs: Inputs, attributes: Attributes) -> Array:
    x = required(inputs, 0)
    if text(attributes, "approximate", "none") == "tanh":
        inner = np.tanh(np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x))
    else:
        inner = erf(x * np.float32(np.sqrt(0.5)))
    return np.asarray(np.float32(0.5) * x * (inner + 1))


def _swish(inputs: Inputs, attributes: Attributes) -> Array:
    x = required(inputs, 0)
    return np.asarray(x * sigmoid(np.float32(number(attributes, "alpha", 1.0)) * x))


def _leaky_relu(inputs: Inputs, attributes: Attributes) -> Array:
    x = required(inputs, 0)
    return np.where(x < 0, np.float32(number(attributes, "alpha", 0.01)) * x, x)


def _prelu(inputs: Inputs, attributes: Attributes) -> Array:
    x = required(inputs, 0)
    return np.where(x < 0, required(inputs, 1) * x, x)


def _elu(inputs: Inputs, attributes: Attributes) -> Array:
    x = required(inputs, 0)
    return np.where(x < 0, np.float32(number(attributes, "alpha", 1.0)) * np.expm1(np.minimum(x, 0)), x)


def _selu(inputs: Inputs, attributes: Attributes) -> Array:
    x = required(inputs, 0)
    alpha = np.float32(number(attributes, "alpha", 1.67326319217681884765625))
    gamma = np.float32(number(attributes, "gamma", 1.05070102214813232421875))
    return np.asarray(gamma * np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x))


def _hard_sigmoid(inputs: Inputs, attributes: Attributes) -> Array:
    slope, offset = np.float32(number(attributes, "alpha", 0.2)), np.float32(number(attributes, "beta", 0.5))
    return np.clip(required(inputs, 0) * slope + offset, 0, 1)


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(x, np.zeros((), x.dtype)))


def _hard_swish(x: Array) -> Array:
    return np.asarray(x * np.clip(x / np.float32(6) + np.float32(0.5), 0, 1))


def _is_infinite(inputs: Inputs, attributes: Attributes) -> Array:
    x = required(inputs, 0)
    up, down = integer(attributes, "detect_positive", 1), integer(attributes, "detect_negative", 1)
    return np.asarray((np.isposinf(x) & bool(up)) | (np.isneginf(x) & bool(down)))


def _dropout(inputs: Inputs, attributes: Attributes) -> tuple[Array, Array]:
    x, training = required(inputs, 0), optional(inputs, 2)
    if training is not None and training.any():
        raise ValueError("input training_mode must be false: export the model in evaluation mode")
    return x, np.ones(x.shape, np.bool_)


def _identity(inputs: Inputs, attributes: Attributes) -> Array:
    return required(inputs, 0)


ELEMENTWISE: dict[str, Operator] = {
    "Abs": _unary(np.abs),
    "Add": _binary(np.add),
    "And": _binary(np.logical_and),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": _unary(np.ceil),
    "Clip": _clip,
    "Cos": _unary(np.cos),
    "Div": _binary(_divide),
    "Dropout": _dropout,
    "Elu": _elu,
    "Equal": _binary(np.equal),
    "Erf": _unary(erf),
    "Exp": _unary(np.exp),
    "Floor": _unary(np.floor),
    "Gelu": _gelu,
    "Greater": _binary(np.greater),
    "GreaterOrEqual": _binary(np.greater_equal),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(_hard_swish),
    "Identity": _identity,
    "IsInf": _is_infinite,
    "IsNaN": _unary(np.isnan),
    "LeakyRelu": _leaky_relu,
    "Less": _binary(np.less),
    "LessOrEqual": _binary(np.less_equal),
    "Log": _unary(np.log),
    "Max": _variadic(np.maximum),
    "Mean": _mean,
    "Min": _variadic(np.minimum),
    "Mish": _unary(lambda x: x * np.tanh(_softplus(x))),
    "Mod": _modulo,
    "Mul": _binary(np.multiply),
    "Neg": _unary(np.negative),
    "Not": _unary(np.logical_not),
    "Or": _binary(np.logical_or),
    "PRelu": _prelu,
    "Pow": _power,
    "Reciprocal": _unary(np.reciprocal),
    "Relu": _unary(lambda x: np.maximum(x, 0)),
    "Round": _unary(np.rint),
    "Selu": _selu,
    "Sigmoid": _unary(sigmoid),
    "Sign": _unary(np.sign),
    "Sin": _unary(np.sin),
    "Softplus": _unary(_softplus),
    "Softsign": _unary(lambda x: x / (1 + np.abs(x))),
    "Sqrt": _unary(np.sqrt),
    "Sub": _binary(np.subtract),
    "Sum": _variadic(np.add),
    "Swish": _swish,
    "Tanh": _unary(np.tanh),
    "Where": _where,
    "Xor": _binary(np.logical_xor),
}
