"""Write a model as ONNX, in float or with quantized weights (QDQ), to run in any ONNX runtime.

    export_onnx(model, Path("plain.onnx"))
    notes = export_onnx(model, Path("int4.onnx"), tensors)      # tensors: QuantTensor by layer name

A quantized layer's weights are stored as codes and dequantized in the graph:

    codes [out, in] --DequantizeLinear(scale per row, or per row and group)--> Transpose --> MatMul --> Add bias

Activations with a calibrated scale pass through QuantizeLinear and DequantizeLinear before the layer. Scales found for
each token as it comes have no such form: these activations stay in float32, or the layer is written in exact integers
(`dynamic`, see `onnx_integers`).

Absent weights of a sparse layer are stored as the code of zero: ONNX has no sparse weights.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sparsefab.errors import ModelError, StorageError
from sparsefab.formats import Format, IntFormat, QuantTensor, StaticScale
from sparsefab.models.graph import Graph, Node, Value
from sparsefab.models.model import Model, Skipped
from sparsefab.models.onnx_integers import IntegerLayer, token_codes, why_not_integers
from sparsefab.models.operators.attributes import integers
from sparsefab.storage import write_atomic

__all__ = ["export_onnx", "onnx_bytes"]

_OPSET, _NEWER_OPSET, _IR_VERSION = 21, 23, 10
_NEWER = {"Attention", "RMSNormalization", "RotaryEmbedding"}
_LARGEST_BYTES = 2_000_000_000
_TYPES = {
    (True, 4): TensorProto.INT4,
    (False, 4): TensorProto.UINT4,
    (True, 8): TensorProto.INT8,
    (False, 8): TensorProto.UINT8,
    (True, 16): TensorProto.INT16,
    (False, 16): TensorProto.UINT16,
}


def export_onnx(
    model: Model,
    path: Path,
    tensors: Mapping[str, QuantTensor] | None = None,
    activations: Mapping[str, tuple[Format, StaticScale]] | None = None,
) -> tuple[Skipped, ...]:
    """Write a model as `onnx_bytes` has it, and return the notes.

    Raises
    ------
    ModelError                              If a tensor names no layer.
    StorageError                            If the file cannot be written, or would exceed 2 GB.
    """
    try:
        content, notes = onnx_bytes(model, tensors, activations)
    except StorageError as error:
        raise StorageError(f"{path}: {error}") from error
    write_atomic(path, content)
    return notes


def onnx_bytes(
    model: Model,
    tensors: Mapping[str, QuantTensor] | None = None,
    activations: Mapping[str, tuple[Format, StaticScale]] | None = None,
    dynamic: Mapping[str, Format] | None = None,
) -> tuple[bytes, tuple[Skipped, ...]]:
    """Return a model as the bytes of an ONNX file.

    Parameters
    ----------
    tensors : QuantTensor by layer name     Layers to store as codes; the others keep their float32 weights.
    activations : format and scale by layer name
                                            Layers whose input is quantized with a calibrated scale.
    dynamic : format by layer name          Layers of `tensors` to write in exact integers, their input quantized with a
                                            scale a token.

    Returns
    -------
    The bytes, and (layer, note)            Layers whose format ONNX cannot hold: their dequantized weights are stored
                                            as float32, their activations left in float32.

    Raises
    ------
    ModelError                              If a tensor names no layer.
    StorageError                            If the file would exceed 2 GB.
    """
    tensors, activations, dynamic = tensors or {}, activations or {}, dynamic or {}
    unknown = sorted({*tensors, *activations, *dynamic} - set(model.weights))
    if unknown:
        raise ModelError(f"model {model.name!r} has no weight layer {unknown[0]!r}")
    writer = _Writer(model)
    for node in model.graph.nodes:
        if node.layer is None:
            writer.plain(node)
        elif node.layer not in dynamic or not writer.integers(node, tensors[node.layer], dynamic[node.layer]):
            writer.layer(node, tensors.get(node.layer), activations.get(node.layer))
    proto = writer.proto(model.graph)
    try:
        content: bytes = proto.SerializeToString()
    except ValueError as error:
        raise StorageError("the model exceeds the 2 GB of one ONNX file") from error
    if len(content) > _LARGEST_BYTES:
        raise StorageError("the model exceeds the 2 GB of one ONNX file")
    return content, tuple(writer.notes)


class _Writer:
    """Collects the nodes and constants of the ONNX graph."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.notes: list[Skipped] = []
        self._quantized: set[str] = set()
        self._coded: dict[str, tuple[str, str]] = {}
        self._places = {id(array): name for name, array in model.initializers.items()}
        read = {name for node in model.graph.nodes for name in node.inputs} | {
            value.name for value in model.graph.outputs
        }
        for name in sorted(read & set(model.initializers)):
            self.constants[name] = numpy_helper.from_array(np.asarray(model.initializers[name], order="C"), name)

    def plain(self, node: Node) -> None:
        """Copy an operator."""
        attributes = {
            key: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
            for key, value in node.attributes.items()
        }
        self.nodes.append(helper.make_node(node.op, node.inputs, node.outputs, node.name, **attributes))

    def layer(self, node: Node, tensor: QuantTensor | None, activations: tuple[Format, StaticScale] | None) -> None:
        """Write a weight layer: its activations and weights, the product, the bias."""
        name = str(node.layer)
        x = node.inputs[0] if activations is None else self._activations(name, node.inputs[0], *activations)
        if node.op == "Conv":
            shape = self._kernel_shape(node)
            weight = self._weights(name, tensor, shape)
            self.nodes.append(
                helper.make_node("Conv", [x, weight, *node.inputs[1:]], node.outputs, node.name, **node.attributes)
            )
            return
        turned = self._free(f"{name}.weight")
        self.nodes.append(
            helper.make_node(
                "Transpose", [self._weights(name, tensor, None)], [turned], f"{name}.transpose", perm=[1, 0]
            )
        )
        product = f"{node.outputs[0]}.product" if node.inputs[1:] else node.outputs[0]
        self.nodes.append(helper.make_node("MatMul", [x, turned], [product], node.name))
        if node.inputs[1:]:
            self.nodes.append(helper.make_node("Add", [product, node.inputs[1]], node.outputs, f"{node.name}.bias"))

    def integers(self, node: Node, tensor: QuantTensor, activations: Format) -> bool:
        """Write a linear layer in exact integers; or note why it has no such form and return False."""
        name, x = str(node.layer), node.inputs[0]
        reason = "a convolution; its activations are left in float32" if node.op == "Conv" else ""
        reason = reason or why_not_integers(tensor, activations)
        if reason:
            self.notes.append((name, reason))
            return False
        if x not in self._coded:  # once for all layers that read it
            nodes, codes, scales = token_codes(x, self._constant)
            self.nodes += nodes
            self._coded[x] = codes, scales
        codes, scales = self._coded[x]
        bias = node.inputs[1] if node.inputs[1:] else ""
        layer = IntegerLayer(
            name=name, tensor=tensor, x=x, codes=codes, scales=scales, bias=bias, output=node.outputs[0]
        )
        self.nodes += layer.nodes(self._constant)
        return True

    def proto(self, graph: Graph) -> Any:
        """Finish."""
        opset = _NEWER_OPSET if any(node.op in _NEWER for node in graph.nodes) else _OPSET
        opset = max(opset, int(self.model.metadata.get("opset", "0")))
        inside = helper.make_graph(
            self.nodes,
            self.model.name,
            [_value(value) for value in graph.inputs],
            [_value(value) for value in graph.outputs],
            list(self.constants.values()),
        )
        return helper.make_model(
            inside, opset_imports=[helper.make_opsetid("", opset)], ir_version=_IR_VERSION, producer_name="sparsefab"
        )

    def _activations(self, name: str, x: str, fmt: Format, static: StaticScale) -> str:
        """Quantize and dequantize a layer's input; once for all layers that read it with the same scale."""
        if not isinstance(fmt, IntFormat) or fmt.bits != 8 or fmt.symmetric:
            self.notes.append((name, f"activations {fmt.name}: only int8 and uint8 are written; left in float32"))
            return x
        output = f"{x}.{fmt.name}.{static.scale!r}.{static.zero_point}"
        if output not in self._quantized:
            self._quantized.add(output)
            scale = self._tensor(f"{output}.scale", np.asarray(static.scale, np.float32), TensorProto.FLOAT)
            zero = self._tensor(f"{output}.zero", np.asarray(static.zero_point), _TYPES[fmt.signed, 8])
            for op, source, target in (
                ("QuantizeLinear", x, f"{output}.codes"),
                ("DequantizeLinear", f"{output}.codes", output),
            ):
                self.nodes.append(helper.make_node(op, [source, scale, zero], [target], f"{target}.{op}"))
        return output

    def _weights(self, name: str, tensor: QuantTensor | None, shape: tuple[int, ...] | None) -> str:
        """Store a layer's weights and return the float tensor: [out, in], or a convolution's four axes."""
        target = self._free(f"{name}.{'matrix' if shape is None else 'weight'}")
        if tensor is not None:
            reason = self._codes(name, tensor, target, shape)
            if not reason:
                return target
            self.notes.append((name, reason))
            weight = tensor.dequantize()
        else:
            weight = self.model.weights[name]
            if shape is None and id(weight) in self._places and self._places[id(weight)] in self.constants:
                return self._places[id(weight)]
        self.constants[target] = numpy_helper.from_array(
            np.ascontiguousarray(weight if shape is None else weight.reshape(shape)), target
        )
        return target

    def _codes(self, name: str, tensor: QuantTensor, target: str, shape: tuple[int, ...] | None) -> str:
        """Store codes, scales and zero points, and dequantize them; or say why ONNX cannot hold them."""
        if not isinstance(tensor.format, IntFormat):
            return f"{tensor.format.name}: ONNX has no such weights; stored as float32"
        if tensor.outliers is not None:
            return f"{tensor.spec.name}: ONNX has no weights with outliers; stored as float32"
        zeros = tensor.zero_points
        codes = tensor.codes.astype(np.int32)
        if tensor.mask is not None:  # absent weights become the code of zero
            codes = np.where(tensor.mask, codes, 0 if zeros is None else tensor.per_weight(zeros, 0))
        bounds = [int(part.min(initial=0)) for part in (codes, zeros) if part is not None]
        tops = [int(part.max(initial=0)) for part in (codes, zeros) if part is not None]
        kind = _integer_type(min(bounds), max(tops))
        if kind is None:
            return f"{tensor.format.name}: its codes and zero points do not fit 16 bits; stored as float32"
        scales = tensor.row_scales[:, None]
        if tensor.group_multipliers is not None:
            scales = (scales * tensor.group_multipliers.astype(np.float32)).astype(np.float32)
        blocked = tensor.spec.groups > 1 and (tensor.group_multipliers is not None or zeros is not None)
        if blocked:
            scales = np.broadcast_to(scales, (scales.shape[0], tensor.spec.groups))
        whole = shape is not None and not blocked
        inputs = [
            self._tensor(f"{name}.codes", codes.reshape(shape) if whole else codes, kind),
            self._tensor(f"{name}.scales", scales if blocked else scales[:, 0], TensorProto.FLOAT),
        ]
        if zeros is not None:
            inputs.append(self._tensor(f"{name}.zero_points", zeros if blocked else zeros[:, 0], kind))
        attributes = {"axis": 1, "block_size": tensor.group_size} if blocked else {"axis": 0}
        output = target if shape is None or whole else self._free(f"{name}.matrix")
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [output], f"{name}.dequantize", **attributes))
        if output != target and shape is not None:
            sizes = self._tensor(f"{name}.shape", np.asarray(shape, np.int64), TensorProto.INT64)
            self.nodes.append(helper.make_node("Reshape", [output, sizes], [target], f"{name}.reshape"))
        return ""

    def _tensor(self, name: str, array: NDArray[Any], kind: int) -> str:
        """Store a constant; 4-bit integers two a byte."""
        name = self._free(name)
        if kind in (TensorProto.INT4, TensorProto.UINT4):
            flat = np.asarray(array, np.int32).reshape(-1) & 15
            flat = np.append(flat, np.zeros(flat.size % 2, np.int32))
            packed = (flat[::2] | flat[1::2] << 4).astype(np.uint8)
            proto = TensorProto(name=name, dims=array.shape, data_type=kind, raw_data=packed.tobytes())
        else:
            dtype = helper.tensor_dtype_to_np_dtype(kind)
            return self._constant(name, np.asarray(array, dtype))
        self.constants[name] = proto
        return name

    def _constant(self, name: str, array: NDArray[Any] | np.generic) -> str:
        name = self._free(name)
        self.constants[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def _kernel_shape(self, node: Node) -> tuple[int, ...]:
        weights = self.model.weights[str(node.layer)]
        kernel = integers(node.attributes, "kernel_shape", ())
        return len(weights), weights.shape[1] // int(np.prod(kernel)), *kernel

    def _free(self, name: str) -> str:
        """The name, or one beside it where the graph has it already."""
        taken = {*self.constants, *(output for node in self.model.graph.nodes for output in node.outputs)}
        while name in taken:
            name += ".1"
        return name


def _integer_type(low: int, high: int) -> int | None:
    """The narrowest ONNX integer type for codes in [low, high]."""
    for bits in (4, 8, 16):
        if low >= 0 and high < 1 << bits:
            return int(_TYPES[False, bits])
        if -(1 << (bits - 1)) <= low and high < 1 << (bits - 1):
            return int(_TYPES[True, bits])
    return None


def _value(value: Value) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
    return helper.make_tensor_value_info(
        value.name, kind, [length if isinstance(length, int) else str(length) for length in value.shape]
    )
