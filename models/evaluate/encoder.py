"""The one meaning of a quantized BERT-type encoder, in NumPy: what compiled plans compute, to the bit.

    encoder = calibrate_encoder(compressed, feeds)      # scales of queries, keys, values and what enters a GELU
    outputs = encoder.run({"input_ids": ids, "attention_mask": mask})

    x = norm(words[id] + places[position])                                                 float32
    c = code(x)                        clamp(round(x * float32(1 / scale)) + zero_point)   u8
    q, k, v = requantize(layer(c))     the linear layers' arithmetic, see `runner`         s8, zero point 0
    s = sum of q * k                   exact
    p = weights of s               u8, exact integers, see `softmax`; e^s in units of q_scale * k_scale / sqrt(head)
    a = clamp(round(sum(p * v) * (ratio / sum(p))) + zero_point)    ratio = v_scale / scale of out's input       u8
    x = norm(real(out(a)) + x),  c = code(x)                                               float32, u8
    h = table[requantize(up(c))]       256 entries: code(gelu(real)), computed in float64  u8
    x = norm(real(down(h)) + x),  c = code(x)

Every float operation is one binary32 operation, none contracted, round means to nearest, ties to even, and sums over a
row are made as `_row_sum` says, over a sequence as `_mean`. Masked tokens are left out; their hidden states are 0.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.formats import BlockFormat, IntFormat, Requantizer, StaticScale, requantize
from sparsefab.models.compress import CompressedLayer, CompressedModel
from sparsefab.models.evaluate.encoder_graph import Block, EncoderGraph, Norm, find_encoder
from sparsefab.models.evaluate.layer_product import has_integer_bias, largest_activation
from sparsefab.models.evaluate.products import ExactWeights
from sparsefab.models.evaluate.runner import static_bias
from sparsefab.models.evaluate.softmax import Softmax
from sparsefab.models.execute import execute

__all__ = [
    "ENTERING",
    "PROJECTED",
    "BlockScales",
    "QuantizedEncoder",
    "calibrate_encoder",
    "gelu_table",
    "requantizer_of",
]

Floats = NDArray[np.float32]
Feeds = Mapping[str, NDArray[Any]]

# Below this GELU is within 1.3e-4 of 0, so that no codes are spent on what lies there.
_GELU_LEAST = -4.0

PROJECTED = IntFormat(bits=8, signed=True, symmetric=True)  # queries, keys, values
ENTERING = IntFormat(bits=8, signed=True)  # what enters a GELU


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockScales:
    """A block's scales that are no layer input's: queries, keys, values (zero point 0), and what enters the GELU."""

    query: float
    key: float
    value: float
    gelu: StaticScale


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantizedEncoder:
    """An encoder with all its scales; `run` is its meaning."""

    compressed: CompressedModel
    graph: EncoderGraph
    scales: tuple[BlockScales, ...]

    def layer(self, name: str) -> CompressedLayer:
        """One of the compressed layers."""
        return self.compressed.layers[name]

    def input_scale(self, name: str) -> StaticScale:
        """Scale of the codes that a layer reads."""
        static = self.compressed.layers[name].static
        assert static is not None  # calibrate_encoder looked
        return static

    def softmax(self, block: int) -> Softmax:
        """How a block's sums of queries times keys become weights.

        Raises
        ------
        ModelError                  If its scales are too coarse to tell scores apart.
        """
        scales, head = self.scales[block], self.graph.width // self.graph.blocks[block].heads
        unit = scales.query * scales.key * math.log2(math.e) / math.sqrt(head)
        return Softmax.of(unit, head * PROJECTED.code_max**2)

    def ratio(self, block: int) -> np.float32:
        """Value scale over the scale of what the layer `out` reads."""
        return np.float32(self.scales[block].value / self.input_scale(self.graph.blocks[block].out).scale)

    def run(self, feeds: Feeds) -> dict[str, Floats]:
        """Compute last_hidden_state float32[batch, sequence, width] and embedding float32[batch, width].

        Parameters
        ----------
        feeds : input_ids, attention_mask int64[batch, sequence]
        """
        ids, mask = feeds["input_ids"], feeds["attention_mask"] != 0
        hidden = np.zeros((*ids.shape, self.graph.width), np.float32)
        embedding = np.zeros((len(ids), self.graph.width), np.float32)
        for sequence in range(len(ids)):
            kept = np.flatnonzero(mask[sequence])
            if kept.size:
                x = self._sequence(ids[sequence, kept], kept)
                hidden[sequence, kept] = x
                embedding[sequence] = _mean(x)
        return {"last_hidden_state": hidden, "embedding": embedding}

    def _sequence(self, ids: NDArray[np.int64], places: NDArray[np.intp]) -> Floats:
        """Hidden states float32[tokens, width] of one sequence without its masked tokens."""
        x = _normalized(self.graph.norm, self.graph.words[ids] + self.graph.places[places])
        for index, block in enumerate(self.graph.blocks):
            codes = _codes(x, self.input_scale(block.query))
            scales = self.scales[index]
            q, k, v = (
                self._requantized(name, codes, StaticScale(scale=scale, zero_point=0), PROJECTED)
                for name, scale in ((block.query, scales.query), (block.key, scales.key), (block.value, scales.value))
            )
            mixed = self._attend(index, q, k, v)
            x = _normalized(block.attention_norm, self._real(block.out, mixed) + x)
            codes = _codes(x, self.input_scale(block.up))
            entering = self._requantized(block.up, codes, scales.gelu, ENTERING)
            table = gelu_table(scales.gelu, self.input_scale(block.down), tanh=block.tanh)
            x = _normalized(block.output_norm, self._real(block.down, table[entering & 255].astype(np.int32)) + x)
        return x

    def _attend(
        self, index: int, q: NDArray[np.int32], k: NDArray[np.int32], v: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        """Codes int32[tokens, width] of what the layer `out` reads."""
        tokens, heads = len(q), self.graph.blocks[index].heads
        queries, keys, values = (
            part.reshape(tokens, heads, -1).transpose(1, 0, 2).astype(np.int64) for part in (q, k, v)
        )
        sums = queries @ keys.transpose(0, 2, 1)
        p = self.softmax(index).weights(sums)
        share = self.ratio(index) / p.sum(axis=2).astype(np.float32)
        mixed = np.rint((p @ values).astype(np.float32) * share[:, :, None]).astype(np.int32)
        mixed += self.input_scale(self.graph.blocks[index].out).zero_point
        return np.clip(mixed, 0, 255).transpose(1, 0, 2).reshape(tokens, -1)

    def _sums(self, name: str, codes: NDArray[np.int32]) -> NDArray[np.int64]:
        """Exact sums of a layer, its bias in them."""
        layer = self.layer(name)
        weights = ExactWeights.of(layer.tensor.integers(), largest_activation(layer))
        bias = static_bias(layer, self.compressed.model.bias(name))
        sums: NDArray[np.int64] = weights.accumulate(codes - self.input_scale(name).zero_point).astype(np.int64) + bias
        return sums

    def _real(self, name: str, codes: NDArray[np.int32]) -> Floats:
        """A layer's result in float32: two products, as everywhere."""
        scaled: Floats = self._sums(name, codes).astype(np.float32) * self.layer(name).tensor.accumulator_scale
        return scaled * np.float32(self.input_scale(name).scale)

    def _requantized(self, name: str, codes: NDArray[np.int32], out: StaticScale, fmt: IntFormat) -> NDArray[np.int32]:
        return requantize(self._sums(name, codes), requantizer_of(self.layer(name), out, fmt))


def calibrate_encoder(compressed: CompressedModel, feeds: Iterable[Feeds]) -> QuantizedEncoder:
    """Find the scales that a compiled encoder needs beyond those of its layers' inputs.

    They are the ranges that the float model shows on `feeds`; what enters a GELU is cut off below -4.

    Raises
    ------
    ModelError                      If the model is no BERT-type encoder, a layer's input is not u8 with a static scale,
                                    or there is no calibration data.
    """
    graph = find_encoder(compressed.model)
    for block in graph.blocks:
        _check(compressed, block)
    nodes = compressed.model.graph.layer_nodes()
    names = [name for block in graph.blocks for name in (block.query, block.key, block.value, block.up)]
    tensors = {name: nodes[name].outputs[0] for name in names}
    ranges: dict[str, tuple[float, float]] = {}
    for feed in feeds:
        results = execute(compressed.model, feed, outputs=tuple(tensors.values()))
        kept = np.asarray(feed["attention_mask"]) != 0
        for name, tensor in tensors.items():
            values = results[tensor][kept]
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = min(low, float(values.min(initial=0))), max(high, float(values.max(initial=0)))
    if not ranges:
        raise ModelError("there is no calibration data; give at least one sample")

    def symmetric(name: str) -> float:
        bound = max(-ranges[name][0], ranges[name][1])
        return StaticScale.of_range(-bound, bound, PROJECTED).scale

    scales = tuple(
        BlockScales(
            query=symmetric(block.query),
            key=symmetric(block.key),
            value=symmetric(block.value),
            gelu=StaticScale.of_range(max(ranges[block.up][0], _GELU_LEAST), ranges[block.up][1], ENTERING),
        )
        for block in graph.blocks
    )
    return QuantizedEncoder(compressed=compressed, graph=graph, scales=scales)


def _check(compressed: CompressedModel, block: Block) -> None:
    for name in block.layers:
        layer = compressed.layers.get(name)
        if layer is None:
            raise ModelError(f"layer {name} stays in float32; a compiled encoder needs all its layers quantized")
        fmt = layer.activations
        if layer.dynamic or not isinstance(fmt, IntFormat) or fmt.signed or fmt.bits != 8:
            raise ModelError(f"layer {name} reads {fmt.name} activations; a compiled encoder needs static uint8 ones")
        if layer.static is None:
            raise ModelError(f"layer {name} has no activation scale; calibrate the compressed model first")
        if isinstance(layer.tensor.format, BlockFormat) or not has_integer_bias(layer):
            raise ModelError(
                f"layer {name} holds {layer.tensor.format.name} weights; a compiled encoder sums up to 62 bits"
            )
    first = compressed.layers[block.query].static
    if any(compressed.layers[name].static != first for name in (block.key, block.value)):
        raise ModelError(f"layers {block.query}, {block.key} and {block.value} read one input with different scales")


def requantizer_of(layer: CompressedLayer, out: StaticScale, fmt: IntFormat) -> Requantizer:
    """Constants that take a layer's sums to codes of a scale."""
    assert layer.static is not None
    ratios = layer.tensor.accumulator_scale.astype(np.float64) * layer.static.scale / out.scale
    return Requantizer.of(ratios, out.zero_point, fmt.code_min, fmt.code_max)


def gelu_table(entering: StaticScale, leaving: StaticScale, *, tanh: bool) -> NDArray[np.uint8]:
    """Codes uint8[256] of GELU, by the bits of the s8 code that enters."""
    codes = np.arange(256).astype(np.uint8).view(np.int8).astype(np.float64)
    x = (codes - entering.zero_point) * entering.scale
    if tanh:
        inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        inner = np.array([math.erf(value) for value in x * math.sqrt(0.5)])
    leaving_codes = np.rint(0.5 * x * (1 + inner) / leaving.scale) + leaving.zero_point
    return np.clip(leaving_codes, 0, 255).astype(np.uint8)


def _codes(x: Floats, static: StaticScale) -> NDArray[np.int32]:
    scaled = np.rint(x * np.float32(1 / static.scale)).astype(np.int32) + static.zero_point
    return np.clip(scaled, 0, 255)


def _row_sum(x: Floats) -> Floats:
    """Sum of each row: its elements dealt out to four sums in turn, these added as (0 + 1) + (2 + 3)."""
    parts = np.zeros((len(x), 4), np.float32)
    for column in range(0, x.shape[1], 4):
        parts += x[:, column : column + 4]
    return (parts[:, 0] + parts[:, 1]) + (parts[:, 2] + parts[:, 3])


def _mean(x: Floats) -> Floats:
    """Mean of a sequence: tokens dealt out to 16 binary32 sums in turn, these added in order in binary64."""
    parts = np.zeros((16, x.shape[1]), np.float32)
    for token in range(0, len(x), 16):
        some = x[token : token + 16]
        parts[: len(some)] += some
    total = np.cumsum(parts, axis=0, dtype=np.float64)[-1]
    mean: Floats = (total / len(x)).astype(np.float32)
    return mean


def _normalized(norm: Norm, h: Floats) -> Floats:
    share = np.float32(1 / h.shape[1])
    mean = (_row_sum(h) * share)[:, None]
    centred = h - mean
    variance = _row_sum(centred * centred) * share
    r = np.float32(1) / np.sqrt(variance + np.float32(norm.epsilon))
    return centred * r[:, None] * norm.gain + norm.bias
