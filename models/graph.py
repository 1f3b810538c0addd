"""The graph of a model: nodes with ONNX operator names, in an order in which they can be executed.

A weight layer is a node whose `layer` is set. Its weights are no tensor of the graph: they are the float32 matrix
[out, in] that the model stores under that name, so that a compressed layer can take its place. Its inputs are the
activations and, if it has one, the bias:

    MatMul  layer='encoder.0.query'   inputs (x, 'encoder.0.query.bias')    y = x @ weights.T + bias
    Conv    layer='stem'              inputs (x,)                           y = conv(x, weights), by im2col

Every other node means what ONNX (operator set 23) says; operators that changed keep working in their older form, where
`axes` was an attribute.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Attribute", "Dimension", "Graph", "Node", "Value"]

Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | NDArray[np.generic]
Dimension = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """An input or output of the graph.

    dtype : NumPy's name of the element type ('float32', 'int64', ...).
    shape : a length, or a name where the length is free ('batch', 'sequence').
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator.

    inputs : names of tensors; an empty name is an optional input that is absent.
    attributes : ONNX attributes; a tensor attribute is an array.
    layer : name of the weight layer, see above; None for everything else.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    layer: str | None = None

    def __post_init__(self) -> None:
        if self.layer is not None and (self.op not in ("MatMul", "Conv") or not 1 <= len(self.inputs) <= 2):
            raise ValueError(f"node {self.name!r}: a weight layer is a MatMul or Conv of activations and a bias")

    @property
    def label(self) -> str:
        """How messages name the node: its operator and its name."""
        return f"{self.op} {self.name!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Nodes in execution order, with the tensors that enter and leave."""

    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    def __post_init__(self) -> None:
        made: set[str] = {value.name for value in self.inputs}
        for node in self.nodes:
            for name in node.outputs:
                if name in made:
                    raise ValueError(f"tensor {name!r} is made twice, the second time by {node.label}")
            made.update(name for name in node.outputs if name)

    def layer_nodes(self) -> dict[str, Node]:
        """The node of each weight layer, by layer name, in order."""
        return {node.layer: node for node in self.nodes if node.layer is not None}

    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that read each tensor."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                if name:
                    readers.setdefault(name, []).append(node)
        return readers
