"""The blocks of a quantized encoder as ONNX operators with the very arithmetic of `models.evaluate.encoder`.

Integers are held in float64, exact up to 2^53: products of codes are MatMul, a shift to the right is Floor of a product
with a power of two, and saturation is Clip. Float32 operations are the ones that the meaning lists, one by one. So the
bits are the same but for the order in which a runtime adds up a normalization's row and a sequence's mean.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from sparsefab.formats import IntFormat, Requantizer, StaticScale
from sparsefab.kernels_cpu.onnx_nodes import Nodes
from sparsefab.models.evaluate.encoder import ENTERING, PROJECTED, QuantizedEncoder, gelu_table, requantizer_of
from sparsefab.models.evaluate.encoder_graph import Block, Norm
from sparsefab.models.evaluate.runner import static_bias
from sparsefab.models.evaluate.softmax import HALVED, LEAST_LEVEL, POWERS

__all__ = ["ExactBlocks"]

_S16 = (-(1 << 15), (1 << 15) - 1)


class ExactBlocks:
    """Writes blocks into a graph; x is float32[batch, sequence, width], integers are float64."""

    def __init__(self, source: QuantizedEncoder, nodes: Nodes) -> None:
        self.source, self.nodes = source, nodes
        self.add = nodes.add
        kept = self.add("Cast", ["attention_mask"], to=TensorProto.DOUBLE)
        self._kept = self.add("Unsqueeze", [kept, nodes.numbers(1, 2)])
        self._hidden = self.add("Equal", [self._kept, self.number(0)])

    def block(self, index: int, block: Block, x: str) -> str:
        """One layer of the encoder."""
        scales = self.source.scales[index]
        codes = self.codes(x, self.source.input_scale(block.query))
        q, k, v = (
            self.split(self.requantized(name, codes, StaticScale(scale=scale, zero_point=0), PROJECTED), block)
            for name, scale in ((block.query, scales.query), (block.key, scales.key), (block.value, scales.value))
        )
        mixed = self.attend(index, block, q, k, v)
        x = self.norm(block.attention_norm, self.add("Add", [self.real(block.out, mixed), x]))
        codes = self.codes(x, self.source.input_scale(block.up))
        entering = self.requantized(block.up, codes, scales.gelu, ENTERING)
        table = gelu_table(scales.gelu, self.source.input_scale(block.down), tanh=block.tanh)
        by_code = np.roll(table, 128).astype(np.float64)  # from code -128 on
        place = self.add("Cast", [self.add("Add", [entering, self.number(128)])], to=TensorProto.INT64)
        inner = self.add("Gather", [self.nodes.constant(by_code), place])
        return self.norm(block.output_norm, self.add("Add", [self.real(block.down, inner), x]))

    def norm(self, norm: Norm, x: str) -> str:
        """Normalize each token."""
        real, share = self.nodes.real, self.nodes.real(1 / len(norm.gain))
        last = self.nodes.numbers(-1)
        mean = self.add("Mul", [self.add("ReduceSum", [x, last], keepdims=1), share])
        centred = self.add("Sub", [x, mean])
        squares = self.add("ReduceSum", [self.add("Mul", [centred, centred]), last], keepdims=1)
        variance = self.add("Add", [self.add("Mul", [squares, share]), real(norm.epsilon)])
        scaled = self.add("Mul", [centred, self.add("Div", [real(1), self.add("Sqrt", [variance])])])
        scaled = self.add("Mul", [scaled, self.nodes.constant(norm.gain.astype(np.float32))])
        return self.add("Add", [scaled, self.nodes.constant(norm.bias.astype(np.float32))])

    def attend(self, index: int, block: Block, q: str, k: str, v: str) -> str:
        """Codes [batch, sequence, width] of what the layer `out` reads."""
        softmax = self.source.softmax(index)
        sums = self.add("MatMul", [q, self.add("Transpose", [k], perm=[0, 1, 3, 2])])
        levels = self.add("Where", [self._hidden, self.number(LEAST_LEVEL), self.shifted(sums, softmax.coarse)])
        greatest = self.add("ReduceMax", [levels], axes=[-1], keepdims=1)
        below = self.add("Min", [self.add("Sub", [greatest, levels]), self.number(_S16[1])])
        octaves = self.product(below, self.number(softmax.multiplier))
        whole = self.shifted(octaves, softmax.fraction_bits)
        rest = self.add("Sub", [octaves, self.add("Mul", [whole, self.number(1 << softmax.fraction_bits)])])
        fraction = self.add("Mul", [rest, self.number(1 << (15 - softmax.fraction_bits))])
        a, b, c, d = map(self.number, POWERS)
        y = self.add("Add", [self.product(fraction, d), c])
        y = self.add("Add", [self.product(fraction, y), b])
        y = self.add("Add", [self.product(fraction, y), a])
        place = self.add("Cast", [self.add("Min", [whole, self.number(15)])], to=TensorProto.INT64)
        halved = np.array([HALVED >> octave for octave in range(16)], np.float64)
        weights = self.product(y, self.add("Gather", [self.nodes.constant(halved), place]))
        weights = self.add("Mul", [weights, self._kept])
        total = self.to_float(self.add("ReduceSum", [weights, self.nodes.numbers(-1)], keepdims=1))
        share = self.add("Div", [self.nodes.constant(self.source.ratio(index)), total])
        mixed = self.add("Round", [self.add("Mul", [self.to_float(self.add("MatMul", [weights, v])), share])])
        codes = self.clamped(mixed, self.source.input_scale(block.out))
        joined = self.add("Transpose", [codes], perm=[0, 2, 1, 3])
        return self.add("Reshape", [joined, self.nodes.numbers(0, 0, self.source.graph.width)])

    def codes(self, x: str, static: StaticScale) -> str:
        """Quantize float32 to u8 codes."""
        return self.clamped(self.add("Round", [self.add("Mul", [x, self.nodes.real(1 / static.scale)])]), static)

    def clamped(self, rounded: str, static: StaticScale) -> str:
        """Add a zero point and clamp to u8 codes."""
        shifted = self.add("Add", [self.add("Cast", [rounded], to=TensorProto.DOUBLE), self.number(static.zero_point)])
        return self.clip(shifted, 0, 255)

    def sums(self, name: str, codes: str) -> str:
        """Exact sums of a layer, its bias in them."""
        layer, static = self.source.layer(name), self.source.input_scale(name)
        integers = layer.tensor.integers().T
        narrow = np.int8 if np.abs(integers).max(initial=0) <= 127 else np.int32
        weights = self.add("Cast", [self.nodes.constant(integers.astype(narrow))], to=TensorProto.DOUBLE)
        centred = self.add("Sub", [codes, self.number(static.zero_point)])
        bias = static_bias(layer, self.source.compressed.model.bias(name)).astype(np.float64)
        return self.add("Add", [self.add("MatMul", [centred, weights]), self.nodes.constant(bias)])

    def real(self, name: str, codes: str) -> str:
        """A layer's result in float32."""
        row_scales = self.nodes.constant(self.source.layer(name).tensor.accumulator_scale)
        scaled = self.add("Mul", [self.to_float(self.sums(name, codes)), row_scales])
        return self.add("Mul", [scaled, self.nodes.real(self.source.input_scale(name).scale)])

    def requantized(self, name: str, codes: str, out: StaticScale, fmt: IntFormat) -> str:
        """A layer's result in codes."""
        constants: Requantizer = requantizer_of(self.source.layer(name), out, fmt)
        half = np.where(constants.shifts > 0, np.ldexp(1.0, constants.shifts - 1), 0)
        halved = self.add("Add", [self.sums(name, codes), self.nodes.constant(half)])
        factor = self.nodes.constant(np.ldexp(1.0, -constants.shifts))
        x = self.clip(self.add("Floor", [self.add("Mul", [halved, factor])]), *_S16)
        y = self.product(x, self.nodes.constant(constants.multipliers.astype(np.float64)))
        y = self.clip(self.add("Add", [y, self.number(64 * constants.zero_point + 32)]), *_S16)
        return self.clip(self.shifted(y, 6), constants.code_min, constants.code_max)

    def product(self, a: str, b: str) -> str:
        """(a * b + 2^14) >> 15."""
        return self.shifted(self.add("Add", [self.add("Mul", [a, b]), self.number(1 << 14)]), 15)

    def shifted(self, x: str, bits: int) -> str:
        """x >> bits."""
        return self.add("Floor", [self.add("Mul", [x, self.number(2.0**-bits)])])

    def clip(self, x: str, low: int, high: int) -> str:
        """Clamp."""
        return self.add("Clip", [x, self.number(low), self.number(high)])

    def split(self, x: str, block: Block) -> str:
        """[batch, sequence, width] -> [batch, heads, sequence, head width]."""
        heads = self.nodes.numbers(0, 0, block.heads, self.source.graph.width // block.heads)
        return self.add("Transpose", [self.add("Reshape", [x, heads])], perm=[0, 2, 1, 3])

    def to_float(self, x: str) -> str:
        """Round to float32."""
        return self.add("Cast", [x], to=TensorProto.FLOAT)

    def number(self, value: float) -> str:
        """Keep a float64."""
        constant: NDArray[np.float64] = np.asarray(value, np.float64)
        return self.nodes.constant(constant)
