"""Run a graph once on small made-up inputs to learn the shape of every tensor.

This finds shapes through any chain of Shape, Gather, Concat and Reshape, and shows at import what could not be run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.graph import Graph, Value
from sparsefab.models.onnx_import.reader import Constants
from sparsefab.models.operators import apply

__all__ = ["Probe", "probe", "probe_feeds"]

_BATCH, _SEQUENCE = 1, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What one run has shown.

    shapes : shape of every tensor, for a batch of 1 and, where it is free, 8 tokens.
    causal : outputs of Softmax nodes that gave no weight to any later position.
    """

    shapes: Mapping[str, tuple[int, ...]]
    causal: frozenset[str]


def probe_feeds(graph: Graph) -> dict[str, NDArray[Any]]:
    """Make inputs: zeros for ids, ones for masks, fixed noise for floats.

    Raises
    ------
    ModelError     If a length is open that is neither the batch nor a sequence of tokens.
    """
    lengths: dict[str, int] = {}
    for value in graph.inputs:
        for axis, dimension in enumerate(value.shape):
            if isinstance(dimension, str) and dimension not in lengths:
                if axis > 1 or (axis == 1 and len(value.shape) > 3):
                    example = tuple(
                        length if isinstance(length, int) else 1 if at == 0 else 224
                        for at, length in enumerate(value.shape)
                    )
                    raise ModelError(
                        f"input {value.name!r}: its length {dimension!r} (axis {axis}) is dynamic; export "
                        f"it with a fixed length, or pass input_shapes={{{value.name!r}: {example}}}"
                    )
                lengths[dimension] = _SEQUENCE if axis else _BATCH
    return {value.name: _made_up(value, lengths) for value in graph.inputs}


def probe(graph: Graph, constants: Constants, feeds: Mapping[str, NDArray[Any]]) -> Probe:
    """Run all nodes."""
    values: dict[str, NDArray[Any]] = {**constants, **feeds}
    shapes = {name: value.shape for name, value in values.items()}
    causal = set()
    last_use = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    for index, node in enumerate(graph.nodes):
        missing = next((name for name in node.inputs if name and name not in values), None)
        if missing is not None:
            raise ModelError(f"node {node.label} reads {missing!r}, which nothing makes; export the model again")
        results = apply(node, [values[name] if name else None for name in node.inputs])
        for name, result in zip(node.outputs, results, strict=False):
            values[name], shapes[name] = result, result.shape
        if node.op == "Softmax" and _looks_back(results[0]):
            causal.add(node.outputs[0])
        for name in (*node.inputs, *node.outputs):
            if name not in constants and last_use.get(name, -1) <= index:
                values.pop(name, None)
    return Probe(shapes=shapes, causal=frozenset(causal))


def _made_up(value: Value, lengths: Mapping[str, int]) -> NDArray[Any]:
    shape = tuple(length if isinstance(length, int) else lengths[length] for length in value.shape)
    if "mask" in value.name.lower():
        return np.ones(shape, value.dtype)
    if np.issubdtype(np.dtype(value.dtype), np.floating):
        return np.random.default_rng(0).standard_normal(shape, np.float32)
    return np.zeros(shape, value.dtype)


def _looks_back(weights: NDArray[Any]) -> bool:
    """True if a square of attention weights is zero above its diagonal."""
    length = weights.shape[-1] if weights.ndim >= 2 else 0
    return length > 1 and weights.shape[-2] == length and not np.triu(weights, 1).any()
