"""A quantized encoder as ONNX graphs of plain operators (operator set 13), for other runtimes to run.

    float      dequantized weights, float32 throughout
    dynamic    layers by DynamicQuantizeLinear and MatMulInteger: activations get their scale at run time
    static     layers by QuantizeLinear and MatMulInteger with the calibrated scales; the rest is float32
    integer    as static, the bias in the sums, attention by MatMulInteger too: what DeepSparse runs fastest
    meaning    the arithmetic of `models.evaluate.encoder` (`encoder_onnx_exact`): what its results are compared with

Norm, GELU and softmax are written in the operators that exporters write, which runtimes fuse as they know how.
Inputs input_ids, attention_mask int64[batch, sequence]; output embedding float32[batch, width].
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from onnx import ModelProto, TensorProto, helper

from sparsefab.formats import StaticScale
from sparsefab.kernels_cpu.encoder_onnx_exact import ExactBlocks
from sparsefab.kernels_cpu.onnx_nodes import Nodes
from sparsefab.models.evaluate.encoder import QuantizedEncoder
from sparsefab.models.evaluate.encoder_graph import Block, Norm
from sparsefab.models.evaluate.runner import static_bias

__all__ = ["Form", "encoder_onnx"]

Form = Literal["float", "dynamic", "static", "integer", "meaning"]


def encoder_onnx(source: QuantizedEncoder, form: Form, *, batch: int | None = None, sequence: int | None = None) -> Any:
    """Return the graph, an onnx.ModelProto; a length that is None is free."""
    writer = _Writer(source, form)
    lengths: list[int | str] = ["batch" if batch is None else batch, "sequence" if sequence is None else sequence]
    writer.write(sequence)
    graph = helper.make_graph(
        writer.graph.nodes,
        f"encoder-{form}",
        [helper.make_tensor_value_info(name, TensorProto.INT64, lengths) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [lengths[0], source.graph.width])],
        writer.graph.constants,
    )
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model


class _Writer:
    """Writes the graph in one form; each method returns the name of its result."""

    def __init__(self, source: QuantizedEncoder, form: Form) -> None:
        self.source, self.form, self.graph = source, form, Nodes()
        self.add, self.constant = self.graph.add, self.graph.constant
        self.real, self.numbers = self.graph.real, self.graph.numbers

    def write(self, sequence: int | None) -> None:
        """Write everything from the inputs to `embedding`."""
        graph = self.source.graph
        words = self.add("Gather", [self.constant(graph.words), "input_ids"])
        if sequence is None:
            length = self.add("Slice", [self.add("Shape", ["input_ids"]), *map(self.numbers, (1, 2))])
            places = self.add("Slice", [self.constant(graph.places), self.numbers(0), length, self.numbers(0)])
        else:
            places = self.constant(graph.places[:sequence])
        x = self.add("Add", [words, places])
        x = self.exact(x) if self.form == "meaning" else self.blocks(x)
        column = self.add("Unsqueeze", [self.add("Cast", ["attention_mask"], to=TensorProto.FLOAT), self.numbers(2)])
        total = self.add("ReduceSum", [self.add("Mul", [x, column]), self.numbers(1)], keepdims=0)
        count = self.add("ReduceSum", [column, self.numbers(1)], keepdims=0)
        self.add("Div", [total, count], output="embedding")

    def exact(self, x: str) -> str:
        """Norm and all layers as the meaning has them."""
        graph, written = self.source.graph, ExactBlocks(self.source, self.graph)
        x = written.norm(graph.norm, x)
        for index, block in enumerate(graph.blocks):
            x = written.block(index, block, x)
        return x

    def blocks(self, x: str) -> str:
        """Norm and all layers as exporters write them."""
        x = self.norm(self.source.graph.norm, x)
        mask = self.add("Unsqueeze", [self.add("Cast", ["attention_mask"], to=TensorProto.FLOAT), self.numbers(1, 2)])
        bias = self.add("Mul", [self.add("Sub", [self.real(1), mask]), self.real(-10000)])
        for index, block in enumerate(self.source.graph.blocks):
            x = self.block(index, block, x, bias)
        return x

    def block(self, index: int, block: Block, x: str, bias: str) -> str:
        """One layer of the encoder."""
        source, scales = self.source, self.source.scales[index]
        projections = ((block.query, scales.query), (block.key, scales.key), (block.value, scales.value))
        if self.form == "integer":
            mixed = self.attend_codes(block, x, bias, projections)
        else:
            q, k, v = (self.split(self.linear(name, x), block) for name, _ in projections)
            turned = self.add("Transpose", [k], perm=[0, 1, 3, 2])
            sums = self.add("MatMul", [q, turned])
            sums = self.add("Mul", [sums, self.real(math.sqrt(block.heads / source.graph.width))])
            shares = self.add("Softmax", [self.add("Add", [sums, bias])], axis=-1)
            mixed = self.add("MatMul", [shares, v])
        joined = self.add("Transpose", [mixed], perm=[0, 2, 1, 3])
        joined = self.add("Reshape", [joined, self.numbers(0, 0, source.graph.width)])
        x = self.norm(block.attention_norm, self.add("Add", [self.linear(block.out, joined), x]))
        inner = self.gelu(block, self.linear(block.up, x))
        return self.norm(block.output_norm, self.add("Add", [self.linear(block.down, inner), x]))

    def attend_codes(self, block: Block, x: str, bias: str, projections: Sequence[tuple[str, float]]) -> str:
        """Attention on u8 codes with zero point 128; probabilities have the scale 1 / 255."""
        middle, none = self.constant(np.uint8(128)), self.constant(np.uint8(0))
        q, k, v = (
            self.add("QuantizeLinear", [self.split(self.linear(name, x), block), self.real(scale), middle])
            for name, scale in projections
        )
        (_, query_scale), (_, key_scale), (_, value_scale) = projections
        turned = self.add("Transpose", [k], perm=[0, 1, 3, 2])
        unit = query_scale * key_scale * math.sqrt(block.heads / self.source.graph.width)
        sums = self.scaled(self.add("MatMulInteger", [q, turned, middle, middle]), self.real(unit))
        shares = self.add("Softmax", [self.add("Add", [sums, bias])], axis=-1)
        codes = self.add("QuantizeLinear", [shares, self.real(1 / 255), none])
        return self.scaled(self.add("MatMulInteger", [codes, v, none, middle]), self.real(value_scale / 255))

    def scaled(self, sums: str, factor: str) -> str:
        return self.add("Mul", [self.add("Cast", [sums], to=TensorProto.FLOAT), factor])

    def gelu(self, block: Block, x: str) -> str:
        if block.tanh:
            cube = self.add("Mul", [self.add("Mul", [self.add("Mul", [x, x]), x]), self.real(0.044715)])
            inner = self.add("Tanh", [self.add("Mul", [self.add("Add", [x, cube]), self.real(math.sqrt(2 / math.pi))])])
        else:
            inner = self.add("Erf", [self.add("Div", [x, self.real(math.sqrt(2))])])
        return self.add("Mul", [self.add("Mul", [x, self.add("Add", [inner, self.real(1)])]), self.real(0.5)])

    def linear(self, name: str, x: str) -> str:
        """A layer and its bias."""
        layer, bias = self.source.layer(name), self.source.compressed.model.bias(name)
        integers = layer.tensor.integers().T
        scale = layer.tensor.accumulator_scale
        if self.form == "float":
            y = self.add("MatMul", [x, self.constant((integers * scale).astype(np.float32))])
        else:
            if self.form in ("static", "integer"):
                static = self.source.input_scale(name)
                codes, zero = self.quantized(x, static), self.constant(np.uint8(static.zero_point))
                factor = self.constant((scale * np.float32(static.scale)).astype(np.float32))
            else:
                codes, unit, zero = (f"{name}.{part}.{len(self.graph.nodes)}" for part in ("codes", "unit", "zero"))
                self.graph.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], [codes, unit, zero]))
                factor = self.add("Mul", [unit, self.constant(scale)])
            weights = [self.constant(integers.astype(np.int8)), zero, self.constant(np.int8(0))]
            sums = self.add("MatMulInteger", [codes, *weights])
            if self.form == "integer" and bias is not None:
                sums = self.add("Add", [sums, self.constant(static_bias(layer, bias).astype(np.int32))])
                bias = None
            y = self.scaled(sums, factor)
        return y if bias is None else self.add("Add", [y, self.constant(bias)])

    def norm(self, norm: Norm, x: str) -> str:
        centred = self.add("Sub", [x, self.add("ReduceMean", [x], axes=[-1], keepdims=1)])
        squares = self.add("Pow", [centred, self.real(2)])
        variance = self.add("ReduceMean", [squares], axes=[-1], keepdims=1)
        deviation = self.add("Sqrt", [self.add("Add", [variance, self.real(norm.epsilon)])])
        scaled = self.add("Mul", [self.add("Div", [centred, deviation]), self.constant(norm.gain)])
        return self.add("Add", [scaled, self.constant(norm.bias)])

    def split(self, x: str, block: Block) -> str:
        heads = self.numbers(0, 0, block.heads, self.source.graph.width // block.heads)
        return self.add("Transpose", [self.add("Reshape", [x, heads])], perm=[0, 2, 1, 3])

    def quantized(self, x: str, static: StaticScale) -> str:
        return self.add("QuantizeLinear", [x, self.real(static.scale), self.constant(np.uint8(static.zero_point))])
