"""Turn products with constant weights into weight layers: a matrix [out, in], a bias, a readable name."""

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.graph import Attribute, Graph, Node
from sparsefab.models.model import Skipped
from sparsefab.models.onnx_import.probe import Probe
from sparsefab.models.onnx_import.reader import Constants
from sparsefab.models.operators.attributes import number

__all__ = ["Lifted", "Names", "lift", "scope"]

_MADE_UP = re.compile(
    r"onnx::.*|const_fold_opt.*|_?v(al)?_?\d+|t_?\d+|\d+|/.*|.*_output_\d+"
    r"|(Constant|Identity|Transpose)_\d+.*"
)
"""Names that exporters make up for constants; a person's names say more than these, a node's path does too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifted:
    """A graph whose weight layers are known, on its way to a model."""

    graph: Graph
    weights: dict[str, NDArray[np.float32]]
    constants: Constants
    skipped: tuple[Skipped, ...]
    probe: Probe
    names: "Names"


class Names:
    """Hands out unique names; the second 'relu' becomes 'relu.1'."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """The name, or the next free one made from it."""
        unique, count = name, 0
        while unique in self._taken:
            count += 1
            unique = f"{name}.{count}"
        self._taken.add(unique)
        return unique


def scope(node: Node) -> str:
    """Where a node lies, in dots: '/encoder/layer.0/query/MatMul' -> 'encoder.layer.0.query'."""
    parts = [part for part in node.name.split("/") if part]
    if len(parts) > 1 and re.fullmatch(rf"{node.op}(_\d+)?", parts[-1]):
        parts.pop()
    return ".".join(parts)


def lift(graph: Graph, constants: Constants, probe: Probe) -> Lifted:
    """Find the weight layers of a folded graph.

    Raises
    ------
    ModelError     If a weight holds NaN or infinity.
    """
    names, constants = Names(), dict(constants)
    weights: dict[str, NDArray[np.float32]] = {}
    skipped: list[Skipped] = []
    nodes: list[Node] = []
    for node in graph.nodes:
        made, reason = _layer(node, constants, probe)
        if made is None:
            if reason:
                skipped.append((names.take(_layer_name(node, node.inputs[_constant_input(node, constants)])), reason))
            nodes.append(node)
            continue
        matrix, bias, extra = made
        name = names.take(_layer_name(node, node.inputs[1]))
        if not np.isfinite(matrix).all():
            raise ModelError(
                f"weight {node.inputs[1]!r} of {node.label} holds NaN or infinity; "
                "export the model again from sound weights"
            )
        weights[name] = matrix
        inputs = [node.inputs[0]]
        if bias is not None:
            constants[f"{name}.bias"] = bias
            inputs.append(f"{name}.bias")
        nodes.extend(extra)
        source = extra[0].outputs[0] if extra else inputs[0]
        nodes.append(
            Node(
                op="Conv" if node.op == "Conv" else "MatMul",
                name=node.name,
                layer=name,
                inputs=(source, *inputs[1:]),
                outputs=node.outputs[:1],
                attributes=_conv_attributes(node, constants) if node.op == "Conv" else {},
            )
        )
    fused = _fuse_biases(replace(graph, nodes=tuple(nodes)), constants, weights, probe)
    read = {name for node in fused.nodes for name in node.inputs} | {value.name for value in fused.outputs}
    constants = {name: value for name, value in constants.items() if name in read}
    for name, value in constants.items():
        if np.issubdtype(value.dtype, np.floating) and np.isnan(value).any():
            raise ModelError(f"constant {name!r} holds NaN; export the model again from sound weights")
    return Lifted(graph=fused, weights=weights, constants=constants, skipped=tuple(skipped), probe=probe, names=names)


_Made = tuple[NDArray[np.float32], NDArray[np.float32] | None, list[Node]]


def _layer(node: Node, constants: Constants, probe: Probe) -> tuple[_Made | None, str]:
    """The matrix, bias and preceding nodes of a weight layer; or None, and why a constant operand does not make one."""
    if node.op not in ("MatMul", "Gemm", "Conv", "Einsum"):
        return None, ""
    if all(name not in constants for name in node.inputs[:2]):
        return None, ""
    if node.op == "Einsum":
        return None, "constant operand of Einsum: stays in float32"
    if node.inputs[1] not in constants:
        return None, f"constant left operand of {node.op}: stays in float32"
    weight = constants[node.inputs[1]]
    if node.op == "MatMul":
        if weight.ndim != 2 or len(probe.shapes[node.inputs[0]]) < 2:
            return None, f"constant operand of {weight.ndim} axes in MatMul: stays in float32"
        return (_matrix(weight.T), None, []), ""
    if node.op == "Conv":
        bias = constants.get(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
        if len(node.inputs) > 2 and node.inputs[2] and bias is None:
            return None, "convolution with a computed bias: stays in float32"
        return (_matrix(weight.reshape(len(weight), -1)), bias, []), ""
    bias = constants.get(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    if len(node.inputs) > 2 and node.inputs[2] and (bias is None or (bias.ndim == 2 and bias.shape[0] != 1)):
        return None, "Gemm with a computed or two-dimensional addend: stays in float32"
    matrix = _matrix(weight if node.attributes.get("transB", 0) else weight.T)
    alpha, beta = (np.float32(number(node.attributes, key, 1.0)) for key in ("alpha", "beta"))
    if bias is not None:
        bias = np.broadcast_to(np.asarray(bias, np.float32).reshape(-1) * beta, (len(matrix),)).copy()
    turned = [
        Node(
            op="Transpose",
            name=f"{node.name}.turned",
            inputs=node.inputs[:1],
            outputs=(f"{node.outputs[0]}.turned",),
            attributes={"perm": (1, 0)},
        )
    ]
    return (matrix if alpha == 1 else matrix * alpha, bias, turned if node.attributes.get("transA", 0) else []), ""


def _matrix(array: NDArray[np.generic]) -> NDArray[np.float32]:
    return np.ascontiguousarray(array, np.float32)


def _conv_attributes(node: Node, constants: Constants) -> dict[str, Attribute]:
    return {"kernel_shape": constants[node.inputs[1]].shape[2:], **node.attributes}


def _constant_input(node: Node, constants: Constants) -> int:
    return next(index for index, name in enumerate(node.inputs) if name in constants)


def _layer_name(node: Node, weight: str) -> str:
    """The weight's own name if a person gave it, else the node's."""
    if not _MADE_UP.fullmatch(weight):
        return weight.removesuffix(".weight").removesuffix("_weight").removesuffix(".kernel").replace("/", ".")
    return scope(node)


def _fuse_biases(graph: Graph, constants: Constants, weights: dict[str, NDArray[np.float32]], probe: Probe) -> Graph:
    """Let a matrix product add the constant vector that follows it."""
    readers = graph.consumers()
    outputs = {value.name for value in graph.outputs}
    pending = {
        node.outputs[0]: node
        for node in graph.nodes
        if node.op == "MatMul"
        and node.layer is not None
        and len(node.inputs) == 1
        and len(readers.get(node.outputs[0], [])) == 1
        and node.outputs[0] not in outputs
    }
    fused: dict[str, Node] = {}
    gone: set[str] = set()
    for add in graph.nodes:
        product = next((name for name in add.inputs if name in pending), None) if add.op == "Add" else None
        other = next((name for name in add.inputs if name != product), "")
        if product is None or other not in constants:
            continue
        node, bias = pending[product], constants[other]
        out = len(weights[str(node.layer)])
        if (
            bias.size not in (1, out)
            or (bias.ndim and bias.shape[-1] != bias.size)
            or bias.ndim > len(probe.shapes[product])
        ):
            continue
        constants[f"{node.layer}.bias"] = np.broadcast_to(bias.reshape(-1), (out,)).astype(np.float32)
        fused[add.outputs[0]] = replace(node, inputs=(node.inputs[0], f"{node.layer}.bias"), outputs=add.outputs)
        del pending[product]
        gone.add(product)
    kept = [fused.get(node.outputs[0], node) for node in graph.nodes if node.outputs[0] not in gone]
    return replace(graph, nodes=tuple(kept))
