"""Run a compressed model's layers in the one arithmetic: quantized activations, exact accumulators, one rounding.

A layer whose output only quantized layers read, at most through a ReLU, leaves as codes by the one requantization;
every other output is a real value: float32(accumulator) * row scale * token scale.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.formats import (
    ActivationCodes,
    IntFormat,
    Requantizer,
    StaticScale,
    quantize_dynamic,
    quantize_static,
    requantize,
)
from sparsefab.models.compress import CompressedLayer, CompressedModel
from sparsefab.models.evaluate.products import FLOAT64_EXACT_BITS, ExactWeights

__all__ = ["BitTrueRunner", "OutputCodes", "largest_activation", "output_codes", "quantize_input", "static_bias"]

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
        if layer is None or layer.static is None:
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
    """Return the bias in units of the accumulator, int64[out], for a layer with a static activation scale."""
    rows = layer.tensor.shape[0]
    if bias is None or layer.static is None:
        return np.zeros(rows, np.int64)
    unit = layer.tensor.accumulator_scale.astype(np.float64) * layer.static.scale
    codes = np.rint(bias.astype(np.float64) / unit)
    if np.abs(codes).max(initial=0) >= 1 << 62:
        raise ModelError("a bias is too large for its row's scale: more than 62 bits in units of the accumulator")
    return codes.astype(np.int64)


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
        self._plans = {name: _Plan.of(layer, compressed.model.bias(name)) for name, layer in self._layers.items()}

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
    weights: ExactWeights
    bias: Floats | None
    bias_codes: NDArray[np.int64]

    @staticmethod
    def of(layer: CompressedLayer, bias: Floats | None) -> "_Plan":
        integers = layer.tensor.integers()
        return _Plan(
            layer=layer,
            weights=ExactWeights.of(integers, largest_activation(layer)),
            bias=bias,
            bias_codes=static_bias(layer, bias),
        )

    def run(self, x: Floats, codes_out: OutputCodes | None) -> Floats:
        """float32[tokens, in] (or [tokens, groups, in]) -> float32[tokens, out], bias included."""
        codes = quantize_input(self.layer, x.reshape(len(x), -1))
        integers = codes.integers.reshape(x.shape)
        scale = self.layer.tensor.accumulator_scale
        if self.layer.static is None:
            rounded = (
                self._sums(integers).astype(np.float32) if x.ndim == 3 else self.weights.accumulate_float32(integers)
            )
            y = (rounded * scale) * codes.token_scales[:, None]
            return y if self.bias is None else y + self.bias
        acc = self._sums(integers) + self.bias_codes
        if codes_out is None:
            return (acc.astype(np.float32) * scale) * codes.token_scales[:, None]
        out = codes_out.static
        ratios = scale.astype(np.float64) * self.layer.static.scale / out.scale
        lowest = out.zero_point if codes_out.relu else codes_out.format.code_min
        constants = Requantizer.of(ratios, out.zero_point, lowest, codes_out.format.code_max)
        out_codes = requantize(acc.astype(np.int64), constants) - out.zero_point
        return out_codes.astype(np.float32) * np.float32(out.scale)

    def _sums(self, integers: NDArray[np.int32] | NDArray[np.int64]) -> NDArray[np.float64] | NDArray[np.int64]:
        """Exact sums [tokens, out], float64 or, where that is too narrow, int64."""
        if integers.ndim == 2:
            return self.weights.accumulate(integers)
        tokens, groups, columns = integers.shape
        weights = self.layer.tensor.integers().reshape(groups, -1, columns)
        bound = int(np.abs(weights).max(initial=0)) * largest_activation(self.layer) * columns
        if bound.bit_length() > FLOAT64_EXACT_BITS:
            raise ModelError(f"a convolution with groups needs {bound.bit_length()} bits; give it a narrower format")
        sums = np.einsum("tgi,goi->tgo", integers.astype(np.float64), weights.astype(np.float64))
        return sums.reshape(tokens, -1) + 0.0


def largest_activation(layer: CompressedLayer) -> int:
    """Greatest magnitude of value(code) - zero_point over all codes of the layer's input."""
    values = layer.activations.fixed_point().values
    zero_point = 0 if layer.static is None else layer.static.zero_point
    return int(np.abs(values - zero_point).max())
