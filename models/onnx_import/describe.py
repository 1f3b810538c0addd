"""Describe a lifted graph as a workload: which nodes are linear layers, attention, norms and activations."""

from collections.abc import Mapping
from math import prod

import numpy as np

from sparsefab.models.graph import Attribute, Node
from sparsefab.models.model import Model, Skipped
from sparsefab.models.onnx_import.lift import Lifted, scope
from sparsefab.models.operators.convolution import Geometry
from sparsefab.workload import (
    Activation,
    Attention,
    Convolution,
    Embedding,
    Family,
    Layer,
    Linear,
    Norm,
    Workload,
)

__all__ = ["describe"]

_ACTIVATIONS = {
    "Elu": "elu",
    "Erf": "gelu",
    "Gelu": "gelu",
    "HardSigmoid": "hard_sigmoid",
    "HardSwish": "hard_swish",
    "LeakyRelu": "leaky_relu",
    "Mish": "mish",
    "PRelu": "prelu",
    "Relu": "relu",
    "Selu": "selu",
    "Softplus": "softplus",
    "Swish": "silu",
    "Tanh": "tanh",
}
_NORMS = {"LayerNormalization": "layer", "RMSNormalization": "rms"}
_PASSING = {"Add", "Cast", "Clip", "Div", "Dropout", "Identity", "Max", "Mul", "Reshape", "Sub", "Where"}
"""Operators that may stand between the products of an attention and its softmax: scale, mask, casts."""
_SHARING = {"Expand", "Identity", "Mul", "Reshape", "Tile", "Transpose", "Unsqueeze"}
"""Operators that may stand between a key and its product, among them the repetition for grouped queries."""


def describe(name: str, lifted: Lifted, metadata: Mapping[str, str]) -> Model:
    """Finish the import: workload, what stays in float, the model."""
    view = _View(lifted)
    layers: list[Layer] = []
    skipped = list(lifted.skipped)
    for node in lifted.graph.nodes:
        layer = view.layer(node)
        if layer is None:
            continue
        layers.append(layer)
        reason = _reason(layer)
        if reason:
            skipped.append((layer.name, reason))
    skipped.extend(view.unused_weights(skipped))
    return Model(
        name=name,
        workload=Workload(name=name, family=_family(layers), layers=tuple(layers)),
        graph=lifted.graph,
        weights=lifted.weights,
        initializers=lifted.constants,
        skipped=tuple(skipped),
        metadata=dict(metadata),
    )


def _family(layers: list[Layer]) -> Family:
    attentions = [layer for layer in layers if isinstance(layer, Attention)]
    if attentions:
        return "decoder" if any(layer.causal for layer in attentions) else "encoder"
    return "cnn" if any(isinstance(layer, Convolution) for layer in layers) else "graph"


def _reason(layer: Layer) -> str:
    if isinstance(layer, Embedding):
        return "embedding: a table look-up, stays in float32"
    return "normalization: stays in float32" if isinstance(layer, Norm) else ""


class _View:
    """A graph with its producers, readers and shapes at hand."""

    def __init__(self, lifted: Lifted) -> None:
        self.shapes, self.causal = lifted.probe.shapes, lifted.probe.causal
        self.constants, self.weights, self.names = lifted.constants, lifted.weights, lifted.names
        self.readers = lifted.graph.consumers()
        self.makers = {name: node for node in lifted.graph.nodes for name in node.outputs if name}
        self.outputs = {value.name for value in lifted.graph.outputs}
        self.explained: set[str] = set()

    def layer(self, node: Node) -> Layer | None:
        """The layer that a node stands for, None if it is none or a part of one."""
        if node.layer is not None:
            return self._convolution(node) if node.op == "Conv" else self._linear(node)
        if node.op == "Gather":
            return self._embedding(node)
        if node.op in _NORMS or node.op == "Sqrt":
            return self._norm(node)
        if node.op in ("Softmax", "Attention"):
            return self._attention(node)
        return self._activation(node)

    def unused_weights(self, listed: list[Skipped]) -> list[Skipped]:
        """Matrices among the constants that no layer explains."""
        known = {name for name, _ in listed}
        return [
            (name, f"constant of {list(value.shape)}: stays in float32")
            for name, value in self.constants.items()
            if value.ndim >= 2
            and value.size >= 256
            and np.issubdtype(value.dtype, np.floating)
            and name not in self.explained
            and name not in known
        ]

    def _linear(self, node: Node) -> Layer:
        out, inner = self.weights[str(node.layer)].shape
        vocabulary = any(self.constants[name].shape[0] == out for name in self.explained)
        return Linear(
            name=str(node.layer),
            out_features=out,
            in_features=inner,
            bias=len(node.inputs) > 1,
            head=vocabulary and node.outputs[0] in self.outputs,
        )

    def _convolution(self, node: Node) -> Layer:
        shape = self.shapes[node.inputs[0]]
        height, width = shape[2:] if len(shape) == 4 else (1, shape[2])
        geometry = Geometry.of(node.attributes, height, width)
        group = node.attributes.get("group", 1)
        return Convolution(
            name=str(node.layer),
            out_channels=len(self.weights[str(node.layer)]),
            in_channels=shape[1],
            kernel=geometry.kernel,
            stride=geometry.stride,
            padding=geometry.padding,
            groups=group if isinstance(group, int) else 1,
            out_height=geometry.size[0],
            out_width=geometry.size[1],
            bias=len(node.inputs) > 1,
        )

    def _embedding(self, node: Node) -> Layer | None:
        table = self.constants.get(node.inputs[0])
        if table is None or table.ndim != 2 or node.attributes.get("axis") or table.dtype != np.float32:
            return None
        self.explained.add(node.inputs[0])
        name = self.names.take(node.inputs[0].removesuffix(".weight"))
        return Embedding(name=name, rows=table.shape[0], width=table.shape[1])

    def _norm(self, node: Node) -> Layer | None:
        if node.op in _NORMS:
            kind, width = _NORMS[node.op], self.shapes[node.inputs[0]][-1]
        else:  # sqrt(mean(square(x)) + epsilon), where x is centred or not
            mean = self._above(self._above(node, "Add"), "ReduceMean")
            square = self._above(mean, "Pow") or self._above(mean, "Mul")
            if square is None:
                return None
            kind, width = "layer" if self._above(square, "Sub") else "rms", self.shapes[square.inputs[0]][-1]
        return Norm(name=self.names.take(scope(node)), width=width, kind="rms" if kind == "rms" else "layer")

    def _attention(self, node: Node) -> Layer | None:
        if node.op == "Attention":
            query, key = (self.shapes[name] for name in node.inputs[:2])
            heads, kv_heads = (
                shape[1] if len(shape) == 4 else _count(node.attributes, attribute)
                for shape, attribute in ((query, "q_num_heads"), (key, "kv_num_heads"))
            )
            width = query[-1] if len(query) == 4 else query[-1] // heads
            return Attention(
                name=self.names.take(scope(node)),
                heads=heads,
                kv_heads=kv_heads,
                head_dim=width,
                causal=bool(node.attributes.get("is_causal", 0)),
            )
        scores = self._product_above(node)
        values = self._product_below(node)
        if scores is None or values is None:
            return self._activation(node)
        shape = self.shapes[node.outputs[0]]
        heads = shape[-3] if len(shape) > 2 else 1
        return Attention(
            name=self.names.take(scope(node)),
            heads=heads,
            kv_heads=self._kv_heads(scores) or heads,
            head_dim=self.shapes[values.outputs[0]][-1],
            causal=node.outputs[0] in self.causal,
        )

    def _activation(self, node: Node) -> Layer | None:
        kind = _ACTIVATIONS.get(node.op)
        if node.op == "Sigmoid":
            gated = any(
                reader.op == "Mul" and node.inputs[0] in reader.inputs
                for reader in self.readers.get(node.outputs[0], [])
            )
            kind = "silu" if gated else "sigmoid"
        elif node.op == "Clip" and len(node.inputs) > 2 and all(name in self.constants for name in node.inputs[1:3]):
            low, high = (float(self.constants[name].reshape(-1)[0]) for name in node.inputs[1:3])
            kind = "relu6" if (low, high) == (0.0, 6.0) else "clip"
        elif node.op == "Softmax":
            kind = "softmax"
        shape = self.shapes[node.outputs[0]]
        if kind is None or not shape:
            return None
        width = prod(shape[1:]) if len(shape) == 4 else shape[-1]
        return Activation(name=self.names.take(scope(node)), width=max(1, width), kind=kind)

    def _above(self, node: Node | None, op: str) -> Node | None:
        """The node of this operator that makes one of the node's inputs."""
        makers = [self.makers.get(name) for name in node.inputs] if node is not None else []
        return next((maker for maker in makers if maker is not None and maker.op == op), None)

    def _product_above(self, node: Node) -> Node | None:
        """The product of queries and keys that a softmax normalizes."""
        size = prod(self.shapes[node.outputs[0]])
        while node.op in _PASSING or node.op == "Softmax":
            above = [
                self.makers[name] for name in node.inputs if name in self.makers and prod(self.shapes[name]) == size
            ]
            if not above:
                return None
            node = (
                above[0]
                if len(above) == 1
                else next((item for item in above if item.op in _PASSING | {"MatMul"}), above[0])
            )
        return node if node.op == "MatMul" and node.layer is None else None

    def _product_below(self, node: Node) -> Node | None:
        """The product of attention weights and values."""
        while node.op in _PASSING or node.op == "Softmax":
            below = self.readers.get(node.outputs[0], [])
            if len(below) != 1 or node.outputs[0] in self.outputs:
                return None
            node = below[0]
        return node if node.op == "MatMul" and node.layer is None else None

    def _kv_heads(self, scores: Node) -> int | None:
        """The heads of the keys before they were repeated for groups of queries: [batch, heads, 1, sequence, head]."""
        node = self.makers.get(scores.inputs[1])
        while node is not None and node.op in _SHARING:
            before, after = (self.shapes[name] for name in (node.inputs[0], node.outputs[0]))
            if node.op in ("Expand", "Tile") and len(after) == 5 and before[2] == 1 < after[2]:
                return before[1]
            node = self.makers.get(node.inputs[0])
        return None


def _count(attributes: Mapping[str, Attribute], key: str) -> int:
    value = attributes.get(key, 1)
    return value if isinstance(value, int) else 1
