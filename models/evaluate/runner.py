"""Run a compressed model's layers in the one arithmetic: quantized activations, exact accumulators, one rounding.

A layer whose output only quantized layers read, at most through a ReLU, leaves as codes by the one requantization;
every other output is a real value: float32(accumulator) * row scale * token scale. An accumulator that may exceed 62
bits leaves as a real value, and its bias is added in float32.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.formats import (
    ActivationCodes,
    BlockFormat,
    IntFormat,
    Requantizer,
    StaticScale,
    quantize_dynamic,
    quantize_static,
    requantize,
)
from sparsefab.models.compress import CompressedLayer, CompressedModel
from sparsefab.models.evaluate.layer_product import (
    LayerProduct,
    accumulator_bits,
    has_integer_bias,
    token_scales,
    unit_exponent,
)
from sparsefab.models.evaluate.products import FLOAT64_EXACT_BITS
from sparsefab.workload import Convolution

__all__ = ["BitTrueRunner", "OutputCodes", "output_codes", "quantize_input", "requantizer_of", "static_bias"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCodes:
    """The codes in which a layer's output leaves: its readers' static scale, clamped at 0 where a ReLU follows."""

    format: IntFormat
    static: StaticScale
    relu: bool


def quantize_input(layer: CompressedLayer, x: Floats) -> ActivationCodes:
    """Quantize float32[tokens, in] as the layer's recipe says.

    A convolution's tokens are the windows of its output pixels, whole images of them: an image has one dynamic scale,
    so that a pixel has one code in whatever window it is read.

    Raises
    ------
    ModelError                      If the layer needs a calibrated scale and has none.
    """
    if layer.dynamic:
        return quantize_dynamic(x, layer.activations, layer.tokens_per_scale)
    if layer.static is None:
        raise ModelError("a static activation scale is missing; calibrate the compressed model first")
    return quantize_static(x, layer.activations, layer.static)


def output_codes(compressed: CompressedModel) -> dict[str, OutputCodes]:
    """Find the layers whose output leaves as codes."""
    graph = compressed.model.graph
    readers = graph.consumers()
    outputs = {value.name for value in graph.outputs}
    found = {}
    for name, node in graph.layer_nodes().items():
        layer = compressed.layers.get(name)
        if layer is None or not has_integer_bias(layer):
            continue
        tensor, relu = node.outputs[0], False
        while (following := readers.get(tensor, [])) and len(following) == 1 and following[0].op == "Relu":
            if tensor in outputs:
                break
            tensor, relu = following[0].outputs[0], True
        if tensor in outputs or not following:
            continue
        targets = [compressed.layers.get(str(reader.layer)) if reader.layer else None for reader in following]
        first = targets[0]
        if first is None or first.static is None or not isinstance(first.activations, IntFormat):
            continue
        if all(t is not None and t.static == first.static and t.activations == first.activations for t in targets):
            found[name] = OutputCodes(format=first.activations, static=first.static, relu=relu)
    return found


def static_bias(layer: CompressedLayer, bias: Floats | None) -> NDArray[np.int64]:
    """Return the bias in units of the accumulator, int64[out], for a layer that has it so; else zeros."""
    rows = layer.tensor.shape[0]
    if bias is None or layer.static is None or not has_integer_bias(layer):
        return np.zeros(rows, np.int64)
    unit = layer.tensor.accumulator_scale.astype(np.float64) * layer.static.scale
    codes = np.rint(bias.astype(np.float64) / unit)
    if np.abs(codes).max(initial=0) >= 1 << 62:
        raise ModelError("a bias is too large for its row's scale: more than 62 bits in units of the accumulator")
    return codes.astype(np.int64)


def requantizer_of(layer: CompressedLayer, out: OutputCodes, part: slice = slice(None)) -> Requantizer:
    """The requantization by which some rows of a layer leave as codes."""
    assert layer.static is not None
    ratios = layer.tensor.accumulator_scale[part].astype(np.float64) * layer.static.scale / out.static.scale
    lowest = out.static.zero_point if out.relu else out.format.code_min
    return Requantizer.of(ratios, out.static.zero_point, lowest, out.format.code_max)


class BitTrueRunner:
    """The runner that `sparsefab.models.execute` calls for each weight layer of a compressed model.

    Parameters
    ----------
    compressed : CompressedModel        Calibrated where activations are static.

    Raises
    ------
    ModelError                          If a static scale is missing.
    """

    adds_bias = True

    def __init__(self, compressed: CompressedModel) -> None:
        if missing := compressed.uncalibrated:
            raise ModelError(f"layer {missing[0]} has no activation scale; calibrate the compressed model first")
        self.compressed = compressed
        self._layers = compressed.layers
        self._output_codes: Mapping[str, OutputCodes] = output_codes(compressed)
        groups = {
            layer.name: layer.groups
            for layer in compressed.model.workload.weight_layers()
            if isinstance(layer, Convolution)
        }
        self._plans = {
            name: _Plan.of(layer, compressed.model.bias(name), groups.get(name, 1))
            for name, layer in self._layers.items()
        }

    @property
    def output_codes(self) -> Mapping[str, OutputCodes]:
        """The layers whose output leaves as codes."""
        return self._output_codes

    def __call__(self, layer: str, x: Floats, /) -> Floats | None:
        plan = self._plans.get(layer)
        if plan is None:
            return None
        return plan.run(x, self._output_codes.get(layer))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Plan:
    """What one layer needs at run time, prepared once."""

    layer: CompressedLayer
    products: tuple[LayerProduct, ...]  # one for each group of a convolution, or
    stacked: NDArray[np.float64] | None  # [groups, out, in]: all groups in one float64 product, where that is exact
    bias: Floats | None
    bias_codes: NDArray[np.int64]

    @staticmethod
    def of(layer: CompressedLayer, bias: Floats | None, groups: int) -> "_Plan":
        rows, columns = layer.tensor.shape
        each = rows // groups
        parts = [slice(g * each, (g + 1) * each) for g in range(groups)]
        stacked = None
        plain = not any(isinstance(fmt, BlockFormat) for fmt in (layer.tensor.format, layer.activations))
        if groups > 1 and plain and unit_exponent(layer) == 0 and accumulator_bits(layer) <= FLOAT64_EXACT_BITS:
            stacked = layer.tensor.integers().reshape(groups, each, columns).astype(np.float64)
            parts = []
        return _Plan(
            layer=layer,
            products=tuple(LayerProduct.of(layer, part) for part in parts),
            stacked=stacked,
            bias=bias,
            bias_codes=static_bias(layer, bias),
        )

    def run(self, x: Floats, codes_out: OutputCodes | None) -> Floats:
        """float32[tokens, in] (or [tokens, groups, in]) -> float32[tokens, out], bias included."""
        codes = quantize_input(self.layer, x.reshape(len(x), -1))
        scale = self.layer.tensor.accumulator_scale
        if not has_integer_bias(self.layer):
            y = (self._values(codes) * scale) * token_scales(self.layer, codes)[:, None]
            return y if self.bias is None else y + self.bias
        acc = self._sums(codes) + self.bias_codes
        if codes_out is None:
            return (acc.astype(np.float32) * scale) * codes.token_scales[:, None]
        constants = requantizer_of(self.layer, codes_out)
        out_codes = requantize(acc.astype(np.int64), constants) - codes_out.static.zero_point
        return out_codes.astype(np.float32) * np.float32(codes_out.static.scale)

    def _sums(self, codes: ActivationCodes) -> NDArray[np.float64] | NDArray[np.int64]:
        """Exact sums [tokens, out]."""
        if self.stacked is not None:
            groups, _, columns = self.stacked.shape
            x = codes.integers.reshape(-1, groups, columns).astype(np.float64)
            return np.einsum("tgi,goi->tgo", x, self.stacked).reshape(len(x), -1) + 0.0
        return _joined([product.sums(part) for product, part in self._parts(codes)])

    def _values(self, codes: ActivationCodes) -> Floats:
        """Sums rounded once to float32[tokens, out]."""
        if self.stacked is not None:
            return self._sums(codes).astype(np.float32)
        return _joined([product.values(part) for product, part in self._parts(codes)])

    def _parts(self, codes: ActivationCodes) -> Iterator[tuple[LayerProduct, ActivationCodes]]:
        """Each group's product with its inputs."""
        if len(self.products) == 1:
            yield self.products[0], codes
            return
        columns = self.layer.tensor.shape[1]
        for g, product in enumerate(self.products):
            yield product, codes.columns(slice(g * columns, (g + 1) * columns))


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
