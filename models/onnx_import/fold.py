"""Compute at import what does not depend on the inputs, and merge what follows or precedes a convolution into it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.models.graph import Graph, Node
from sparsefab.models.onnx_import.probe import probe
from sparsefab.models.onnx_import.reader import Constants
from sparsefab.models.operators import apply
from sparsefab.models.operators.attributes import integers, number

__all__ = ["fold"]

_LARGEST_BYTES = 1 << 24
"""A folded constant may not be larger than this and than what it is made from."""


def fold(graph: Graph, constants: Constants, feeds: Mapping[str, NDArray[Any]]) -> tuple[Graph, Constants]:
    """Fold constants, batch normalizations and paddings.

    Parameters
    ----------
    feeds : arrays     The probe's inputs: where the graph fixes all input lengths, their shapes are constants too.
    """
    constants = dict(constants)
    fixed = all(isinstance(length, int) for value in graph.inputs for length in value.shape)
    graph = _fold_constants(graph, constants)
    if fixed and any(node.op in ("Shape", "Size") for node in graph.nodes):
        shapes = probe(graph, constants, feeds).shapes
        graph = _fold_constants(graph, constants, shapes)
    graph = _fold_batch_norms(graph, constants)
    graph = _fold_paddings(graph, constants)
    return _without_unread(graph), constants


def _fold_constants(graph: Graph, constants: Constants, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Graph:
    outputs = {value.name for value in graph.outputs}
    kept = []
    for node in graph.nodes:
        known = shapes is not None and node.op in ("Shape", "Size")
        if not (known or all(not name or name in constants for name in node.inputs)) or outputs & set(node.outputs):
            kept.append(node)
            continue
        if shapes is not None and known:
            results = apply(node, [np.broadcast_to(np.zeros((), np.int8), shapes[node.inputs[0]])])
        else:
            inputs = [constants[name] if name else None for name in node.inputs]
            results = apply(node, inputs)
            if sum(result.nbytes for result in results) > max(
                _LARGEST_BYTES, sum(value.nbytes for value in inputs if value is not None)
            ):
                kept.append(node)
                continue
        constants.update((name, result) for name, result in zip(node.outputs, results, strict=False) if name)
    return replace(graph, nodes=tuple(kept))


def _fold_batch_norms(graph: Graph, constants: Constants) -> Graph:
    """Scale the rows of a convolution's (or Gemm's) weights by the normalization that follows it."""
    readers, nodes, gone = graph.consumers(), {node.outputs[0]: node for node in graph.nodes}, set()
    renamed: dict[str, Node] = {}
    for norm in graph.nodes:
        before = nodes.get(norm.inputs[0]) if norm.op == "BatchNormalization" else None
        if (
            before is None
            or before.op not in ("Conv", "Gemm")
            or len(readers[before.outputs[0]]) > 1
            or before.attributes.get("alpha", 1.0) != 1.0
            or before.attributes.get("transA", 0)
            or any(name not in constants for name in (*before.inputs[1:], *norm.inputs[1:]) if name)
        ):
            continue
        scale, shift, mean, variance = (constants[name].astype(np.float64) for name in norm.inputs[1:5])
        gain = scale / np.sqrt(variance + number(norm.attributes, "epsilon", 1e-5))
        weight = constants[before.inputs[1]]
        across = before.op == "Gemm" and not before.attributes.get("transB", 0)
        shape = (1, -1) if across else (-1,) + (1,) * (weight.ndim - 1)
        bias = constants[before.inputs[2]] if len(before.inputs) > 2 and before.inputs[2] else np.zeros(1)
        beta = number(before.attributes, "beta", 1.0) if before.op == "Gemm" else 1.0
        names = (
            before.inputs[1] if len(readers[before.inputs[1]]) == 1 else f"{before.outputs[0]}.weight",
            f"{norm.outputs[0]}.bias",
        )
        constants[names[0]] = (weight * gain.reshape(shape)).astype(np.float32)
        constants[names[1]] = (shift + (bias * beta - mean) * gain).astype(np.float32)
        attributes = {key: value for key, value in before.attributes.items() if key != "beta"}
        renamed[before.outputs[0]] = replace(
            before, inputs=(before.inputs[0], *names), outputs=norm.outputs[:1], attributes=attributes
        )
        gone.add(norm.outputs[0])
    kept = [renamed.get(node.outputs[0], node) for node in graph.nodes if node.outputs[0] not in gone]
    return replace(graph, nodes=tuple(kept))


def _fold_paddings(graph: Graph, constants: Constants) -> Graph:
    """Let a convolution pad its images itself."""
    readers, nodes = graph.consumers(), {node.outputs[0]: node for node in graph.nodes}
    replaced: dict[str, Node] = {}
    gone = set()
    for conv in graph.nodes:
        pad = nodes.get(conv.inputs[0]) if conv.op == "Conv" else None
        if (
            pad is None
            or pad.op != "Pad"
            or len(readers[pad.outputs[0]]) > 1
            or str(conv.attributes.get("auto_pad", "NOTSET")) != "NOTSET"
        ):
            continue
        widths = _zero_widths(pad, constants)
        if widths is None or len(widths) % 2 or len(widths) < 6:
            continue
        spatial = len(widths) // 2 - 2
        begin, end = widths[2 : 2 + spatial], widths[4 + spatial :]
        if any(widths[:2]) or any(widths[2 + spatial : 4 + spatial]) or min(widths) < 0:
            continue
        own = integers(conv.attributes, "pads", (0,) * (2 * spatial))
        pads = tuple(a + b for a, b in zip(own, (*begin, *end), strict=True))
        replaced[conv.outputs[0]] = replace(
            conv, inputs=(pad.inputs[0], *conv.inputs[1:]), attributes={**conv.attributes, "pads": pads}
        )
        gone.add(pad.outputs[0])
    kept = [replaced.get(node.outputs[0], node) for node in graph.nodes if node.outputs[0] not in gone]
    return replace(graph, nodes=tuple(kept))


def _zero_widths(pad: Node, constants: Constants) -> list[int] | None:
    """The widths of a padding with constant zeros on all axes, None if it is anything else."""
    inputs = (*pad.inputs, "", "", "")
    if (
        pad.attributes.get("mode", "constant") != "constant"
        or inputs[1] not in constants
        or inputs[3]
        or (inputs[2] and (inputs[2] not in constants or constants[inputs[2]].any()))
    ):
        return None
    return [int(value) for value in constants[inputs[1]]]


def _without_unread(graph: Graph) -> Graph:
    """Drop nodes that no output depends on."""
    wanted = {value.name for value in graph.outputs}
    kept = []
    for node in reversed(graph.nodes):
        if wanted & set(node.outputs):
            wanted.update(name for name in node.inputs if name)
            kept.append(node)
    return replace(graph, nodes=tuple(kept[::-1]))
