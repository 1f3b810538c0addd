"""Nodes and constants of an ONNX graph, named as they come."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

__all__ = ["Nodes"]


class Nodes:
    """Collects nodes and constants; each method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Append an operator."""
        output = output or f"{op}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], output, **attributes))
        return output

    def constant(self, array: NDArray[Any] | np.generic) -> str:
        """Keep an array."""
        name = f"constant.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def real(self, value: float) -> str:
        """Keep a float32."""
        return self.constant(np.float32(value))

    def numbers(self, *values: int) -> str:
        """Keep int64[values]."""
        return self.constant(np.asarray(values, np.int64))
