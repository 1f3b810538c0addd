"""Walk a graph in order, keeping a tensor only as long as somebody will read it."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.execute.layers import Observer, Runner, run_layer
from sparsefab.models.graph import Graph
from sparsefab.models.model import Model
from sparsefab.models.operators import apply

__all__ = ["execute"]


def execute(
    model: Model,
    feeds: Mapping[str, NDArray[Any]],
    runner: Runner | None = None,
    observer: Observer | None = None,
    outputs: Iterable[str] | None = None,
) -> dict[str, NDArray[Any]]:
    """Run a model.

    Parameters
    ----------
    feeds : arrays by input name      All inputs of the graph; lengths that the graph names ('batch') are free.
    runner : Runner                   Computes the products of weight layers; float32 products if None.
    observer : Observer               Sees what enters each weight layer, for calibration.
    outputs : names                   Tensors to return, the graph's outputs if None; nothing else is computed.

    Returns
    -------
    arrays by output name

    Raises
    ------
    ValueError                        If an input is missing, unknown or of the wrong shape.
    ModelError                        If an operator cannot take what reaches it; the message names the node.
    """
    graph = model.graph
    wanted = tuple(outputs) if outputs is not None else tuple(value.name for value in graph.outputs)
    values: dict[str, NDArray[Any]] = {**model.initializers, **_checked(graph, feeds)}
    needed, last_use = _plan(graph, wanted)
    for index in needed:
        node = graph.nodes[index]
        try:
            inputs = [values[name] if name else None for name in node.inputs]
        except KeyError as error:
            raise ModelError(f"node {node.label} reads {error.args[0]!r}, which nothing makes") from None
        if node.layer is not None:
            x = inputs[0]
            assert x is not None
            values[node.outputs[0]] = run_layer(
                node, model.weights[node.layer], x, inputs[1] if inputs[1:] else None, runner, observer
            )
        else:
            values.update(
                (name, result)
                for name, result in zip(node.outputs, apply(node, inputs), strict=False)
                if name in last_use
            )
        del inputs
        for name in node.inputs:
            if last_use.get(name) == index:
                values.pop(name, None)
    missing = [name for name in wanted if name not in values]
    if missing:
        raise ValueError(f"model {model.name!r} has no tensor {missing[0]!r}")
    return {name: values[name] for name in wanted}


def _checked(graph: Graph, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The inputs in the graph's element types, after a check of names and shapes."""
    unknown = sorted(set(feeds) - {value.name for value in graph.inputs})
    if unknown:
        raise ValueError(
            f"the model has no input {unknown[0]!r}, only {', '.join(repr(value.name) for value in graph.inputs)}"
        )
    lengths: dict[str, int] = {}
    checked = {}
    for value in graph.inputs:
        if value.name not in feeds:
            raise ValueError(f"input {value.name!r} is missing")
        array = np.asarray(feeds[value.name]).astype(value.dtype, copy=False)
        expected = [
            dimension if isinstance(dimension, int) else lengths.setdefault(dimension, length)
            for dimension, length in zip(value.shape, array.shape, strict=False)
        ]
        if len(value.shape) != array.ndim or list(array.shape) != expected:
            raise ValueError(f"input {value.name!r} must have shape {list(value.shape)}, not {list(array.shape)}")
        checked[value.name] = array
    return checked


def _plan(graph: Graph, wanted: tuple[str, ...]) -> tuple[list[int], dict[str, int]]:
    """The nodes that the wanted tensors need, and which node is the last to read each tensor (wanted ones: none)."""
    last_use = dict.fromkeys(wanted, -1)
    needed = []
    for index in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[index]
        if any(name in last_use for name in node.outputs if name):
            needed.append(index)
            for name in node.inputs:
                if name:
                    last_use.setdefault(name, index)
    return needed[::-1], last_use
