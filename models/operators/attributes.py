"""Typed access to the attributes and inputs of a node."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.models.graph import Attribute

__all__ = [
    "Array",
    "Attributes",
    "Inputs",
    "Operator",
    "axes_of",
    "integer",
    "integers",
    "number",
    "optional",
    "required",
    "text",
]

Array = NDArray[Any]
Attributes = Mapping[str, Attribute]
Inputs = Sequence[Array | None]
Operator = Callable[[Inputs, Attributes], Array | tuple[Array, ...]]


def required(inputs: Inputs, index: int) -> Array:
    """The input at `index`, which the operator cannot do without."""
    value = optional(inputs, index)
    if value is None:
        raise ValueError(f"input {index} is missing")
    return value


def optional(inputs: Inputs, index: int) -> Array | None:
    """The input at `index`, None if it is left out."""
    return inputs[index] if index < len(inputs) else None


def integer(attributes: Attributes, key: str, default: int) -> int:
    """An integer attribute."""
    value = attributes.get(key, default)
    if not isinstance(value, int):
        raise ValueError(f"attribute {key} must be an integer, not {value!r}")
    return value


def number(attributes: Attributes, key: str, default: float) -> float:
    """A float attribute."""
    value = attributes.get(key, default)
    if not isinstance(value, int | float):
        raise ValueError(f"attribute {key} must be a number, not {value!r}")
    return float(value)


def integers(attributes: Attributes, key: str, default: Sequence[int]) -> tuple[int, ...]:
    """An attribute that lists integers."""
    value = attributes.get(key)
    if value is None:
        return tuple(default)
    if not isinstance(value, tuple | np.ndarray):
        raise ValueError(f"attribute {key} must list integers, not {value!r}")
    return tuple(int(item) for item in value)


def text(attributes: Attributes, key: str, default: str) -> str:
    """A text attribute."""
    value = attributes.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"attribute {key} must be text, not {value!r}")
    return value


def axes_of(inputs: Inputs, attributes: Attributes, index: int = 1) -> tuple[int, ...] | None:
    """The axes of an operator: an input in newer operator sets, an attribute in older ones; None if not given."""
    given = optional(inputs, index)
    if given is not None:
        return tuple(int(axis) for axis in given.reshape(-1))
    return integers(attributes, "axes", ()) if "axes" in attributes else None
