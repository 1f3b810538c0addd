"""From an ONNX file to nodes, constants and metadata, with every fault of the file told in one line."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf has no types
from numpy.typing import NDArray
from onnx import external_data_helper, inliner, numpy_helper

from sparsefab.errors import ModelError
from sparsefab.models.graph import Attribute, Dimension, Graph, Node, Value
from sparsefab.models.operators import OPERATORS
from sparsefab.models.operators.elementwise import CAST_TYPES

__all__ = ["Constants", "external_files", "nodes_of", "read_onnx"]

Constants = dict[str, NDArray[Any]]

OLDEST_OPSET = 13


def read_onnx(path: Path, input_shapes: Mapping[str, tuple[int, ...]]) -> tuple[Graph, Constants, dict[str, str]]:
    """Read a file.

    Returns
    -------
    graph : Graph                The main graph, functions inlined; `input_shapes` in place of open lengths.
    constants : arrays by name   Initializers, floats of any width as float32, 4-bit integers as 8-bit ones.
    metadata : dict              Format, operator set and producer.
    """
    proto = _load(path)
    opset = _opset(path, proto)
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    if proto.graph.sparse_initializer:
        raise ModelError(f"{path}: sparse initializers are not supported; export dense weights")
    constants = {tensor.name: _array(path, tensor) for tensor in proto.graph.initializer}
    inputs = [_value(path, entry, input_shapes) for entry in proto.graph.input if entry.name not in constants]
    unknown = sorted(set(input_shapes) - {value.name for value in inputs})
    if unknown:
        raise ModelError(
            f"{path}: has no input {unknown[0]!r}; its inputs are {', '.join(repr(value.name) for value in inputs)}"
        )
    outputs = [Value(name=entry.name, dtype=_dtype(path, entry), shape=_shape(entry)) for entry in proto.graph.output]
    nodes = tuple(_modern(node, opset, constants) for node in nodes_of(path, proto.graph.node, opset))
    graph = Graph(nodes=nodes, inputs=tuple(inputs), outputs=tuple(outputs))
    metadata = {"format": "onnx", "source": path.name, "opset": str(opset)}
    if proto.producer_name:
        metadata["producer"] = f"{proto.producer_name} {proto.producer_version}".strip()
    return graph, constants, metadata


def nodes_of(path: Path, protos: Any, opset: int) -> tuple[Node, ...]:
    """Translate nodes; an operator outside the table is an error that names it and its node."""
    nodes = []
    for index, proto in enumerate(protos):
        name = proto.name or f"{proto.op_type}_{index}"
        if proto.op_type not in OPERATORS or proto.domain not in ("", "ai.onnx"):
            where = f" of domain {proto.domain!r}" if proto.domain not in ("", "ai.onnx") else ""
            raise ModelError(
                f"{path}: operator {proto.op_type}{where} (node {name!r}) is not supported; export the model without it"
            )
        _check_form(path, name, proto, opset)
        attributes = {attribute.name: _attribute(path, name, attribute) for attribute in proto.attribute}
        if proto.op_type == "Split" and len(proto.input) < 2:
            attributes.setdefault("num_outputs", len(proto.output))
        nodes.append(
            Node(
                op=proto.op_type,
                name=name,
                inputs=tuple(proto.input),
                outputs=tuple(proto.output),
                attributes=attributes,
            )
        )
    return tuple(nodes)


def _modern(node: Node, opset: int, constants: Constants) -> Node:
    """Give a reduction of an older operator set its axes as an input, as the newer ones have it."""
    axes = node.attributes.get("axes")
    if opset >= 18 or axes is None or not node.op.startswith("Reduce"):
        return node
    name = f"{node.outputs[0]}.axes"
    constants[name] = np.asarray(axes, np.int64)
    rest = {key: value for key, value in node.attributes.items() if key != "axes"}
    return replace(node, inputs=(*node.inputs, name), attributes=rest)


def _check_form(path: Path, name: str, proto: Any, opset: int) -> None:
    """Compare a node with its operator's schema: counts of inputs and outputs, names and types of attributes."""
    try:
        schema = onnx.defs.get_schema(proto.op_type, opset)
    except onnx.defs.SchemaError:
        raise ModelError(f"{path}: operator {proto.op_type} (node {name!r}) is not in operator set {opset}") from None
    kinds = {attribute.name: attribute.type for attribute in proto.attribute}
    wrong = [
        key
        for key, kind in kinds.items()
        if key not in schema.attributes or int(schema.attributes[key].type.value) != kind
    ]
    strange = not all(isinstance(text, str) for text in (proto.name, *proto.input, *proto.output))
    if (
        wrong
        or strange
        or not schema.min_input <= len(proto.input) <= schema.max_input
        or not schema.min_output <= len(proto.output) <= schema.max_output
        or not any(proto.output)
    ):
        what = f"attribute {wrong[0]!r}" if wrong else "its inputs or outputs"
        raise ModelError(
            f"{path}: node {name!r} is no valid {proto.op_type} of operator set {opset} ({what}); "
            "export the model again"
        )


def external_files(path: Path) -> set[Path]:
    """The files beside an ONNX file that hold its external data; empty if it is no ONNX file."""
    try:
        proto = onnx.load_model_from_string(path.read_bytes())
    except (OSError, DecodeError, ValueError):
        return set()
    places = {
        external_data_helper.ExternalDataInfo(tensor).location
        for tensor in external_data_helper._get_all_tensors(proto)
        if external_data_helper.uses_external_data(tensor)
    }
    return {path.parent / place for place in places if (path.parent / place).is_file()}


def _load(path: Path) -> Any:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        proto = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path}: not an ONNX file, or truncated; fetch or export it again") from error
    if not proto.graph.node or not proto.opset_import:
        raise ModelError(f"{path}: not an ONNX file, or truncated (no graph in it); fetch or export it again")
    for tensor in external_data_helper._get_all_tensors(proto):
        if external_data_helper.uses_external_data(tensor):
            place = external_data_helper.ExternalDataInfo(tensor).location
            if not (path.parent / place).is_file():
                raise ModelError(f"{path}: its weights lie in {place!r}, which is missing; put it beside the model")
            try:
                external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
            except (OSError, ValueError, onnx.checker.ValidationError) as error:
                raise ModelError(
                    f"{path}: tensor {tensor.name!r} cannot be read from {place!r} ({error}); fetch it again"
                ) from error
    return proto


def _opset(path: Path, proto: Any) -> int:
    versions = {entry.domain or "ai.onnx": int(entry.version) for entry in proto.opset_import}
    opset = versions.get("ai.onnx", 0)
    if opset < OLDEST_OPSET:
        raise ModelError(
            f"{path}: operator set {opset} is too old; convert it with onnx.version_converter or export "
            f"it with opset {OLDEST_OPSET} or newer"
        )
    return opset


def _array(path: Path, tensor: Any) -> NDArray[Any]:
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: tensor {tensor.name!r} is damaged ({error}); fetch or export it again") from error
    name = array.dtype.name
    if name in ("int4", "int2"):
        return array.astype(np.int8)
    if name in ("uint4", "uint2"):
        return array.astype(np.uint8)
    if np.issubdtype(array.dtype, np.floating) or "float" in name:
        return array.astype(np.float32, copy=False)
    return np.asarray(array)


def _attribute(path: Path, node: str, attribute: Any) -> Attribute:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return _array(path, value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, onnx.GraphProto | onnx.SparseTensorProto) or not isinstance(value, list | tuple):
        raise ModelError(
            f"{path}: node {node!r} has an attribute {attribute.name!r} that is not supported; "
            "export the model without it"
        )
    return tuple(item.decode() if isinstance(item, bytes) else item for item in value)


def _value(path: Path, entry: Any, input_shapes: Mapping[str, tuple[int, ...]]) -> Value:
    """An input, with known lengths but for the batch and a sequence."""
    shape = _shape(entry)
    if not entry.type.tensor_type.HasField("shape") and entry.name not in input_shapes:
        raise ModelError(f"{path}: input {entry.name!r} has no shape; pass input_shapes={{{entry.name!r}: (...)}}")
    given = input_shapes.get(entry.name)
    if given is not None:
        fixed = [length for length in shape if isinstance(length, int)]
        fits = len(given) == len(shape) and all(a == b for a, b in zip(shape, given, strict=True) if isinstance(a, int))
        if shape and fixed and not fits:
            raise ModelError(f"{path}: input {entry.name!r} is {list(shape)}, which {list(given)} does not fit")
        shape = tuple(given)
    return Value(name=entry.name, dtype=_dtype(path, entry), shape=shape)


def _shape(entry: Any) -> tuple[Dimension, ...]:
    shape: list[Dimension] = []
    for axis, dimension in enumerate(entry.type.tensor_type.shape.dim):
        if dimension.HasField("dim_value") and dimension.dim_value > 0:
            shape.append(int(dimension.dim_value))
        else:
            shape.append(dimension.dim_param or f"{entry.name}.{axis}")
    return tuple(shape)


def _dtype(path: Path, entry: Any) -> str:
    kind = entry.type.tensor_type.elem_type
    if kind not in CAST_TYPES:
        raise ModelError(f"{path}: {entry.name!r} is no tensor of numbers, which is not supported")
    return CAST_TYPES[kind]
