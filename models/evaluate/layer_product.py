"""The product of one layer: which exact method its formats need, and whether its sums fit the integers after it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats import ActivationCodes, BlockFormat, QuantTensor
from sparsefab.models.compress import CompressedLayer
from sparsefab.models.evaluate.digits import DigitWeights, digits_to_float32, digits_to_int64
from sparsefab.models.evaluate.products import INT64_EXACT_BITS, ExactWeights, choose_method
from sparsefab.models.evaluate.windows import WindowWeights

__all__ = [
    "LayerProduct",
    "accumulator_bits",
    "fraction_bits",
    "has_integer_bias",
    "largest_activation",
    "token_scales",
    "unit_exponent",
]


def largest_activation(layer: CompressedLayer) -> int:
    """Greatest magnitude of multiplier * (value(code) - zero_point) over all codes of the layer's input."""
    fmt = layer.activations
    if isinstance(fmt, BlockFormat) and not fmt.is_mx:
        return fmt.decode_table().largest * int(fmt.scale.fixed_point().values.max())
    if layer.static is None:
        return fmt.decode_table().largest
    return int(np.abs(fmt.fixed_point().values - layer.static.zero_point).max())


def largest_weight(tensor: QuantTensor) -> int:
    """Greatest magnitude of multiplier * (value(code) - zero_point) in a tensor."""
    significands, shifts = tensor.significands()
    tops = [np.abs(significands[shifts == shift]).max(initial=0) for shift in np.unique(shifts)]
    return max((int(top) << int(shift) for top, shift in zip(tops, np.unique(shifts), strict=True)), default=0)


def fraction_bits(layer: CompressedLayer) -> int:
    """F: of the weights where they are MX, else of the activations."""
    for fmt in (layer.tensor.format, layer.activations):
        if isinstance(fmt, BlockFormat) and fmt.is_mx:
            return fmt.fraction_bits
    return 0


def accumulator_bits(layer: CompressedLayer) -> int:
    """Width of the sums of a layer, sign included, without its bias."""
    columns = layer.tensor.shape[1]
    bound = max(largest_weight(layer.tensor), 1) * largest_activation(layer) * columns
    return (bound << fraction_bits(layer)).bit_length() + 1


def unit_exponent(layer: CompressedLayer) -> int:
    """Sums times 2^this are what scales apply to: 0 but for formats with a wide grid."""
    tables = (layer.tensor.format.decode_table(), layer.activations.decode_table())
    return sum(table.grid_exponent - table.unit_exponent for table in tables)


def token_scales(layer: CompressedLayer, codes: ActivationCodes) -> NDArray[np.float32]:
    """float32[tokens]: with 2^-F where F is the activations', as it is in the accumulator's scale where it is not."""
    own = fraction_bits(layer) - layer.tensor.fraction_bits
    return np.ldexp(codes.token_scales, -own).astype(np.float32) if own else codes.token_scales


def has_integer_bias(layer: CompressedLayer) -> bool:
    """Whether a layer's bias is an integer in its accumulator, from which its output may leave as codes.

    Static activations have it so, where 62 bits hold the sums in the units of the grid; else it is added in float32.
    """
    return layer.static is not None and unit_exponent(layer) == 0 and accumulator_bits(layer) <= INT64_EXACT_BITS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerProduct:
    """Weights of a layer, or of some of its rows, prepared for its activations. Build it with `LayerProduct.of`."""

    weights: ExactWeights | DigitWeights | WindowWeights
    exponent: int  # see `unit_exponent`

    @staticmethod
    def of(layer: CompressedLayer, part: slice = slice(None)) -> "LayerProduct":
        """Choose the method and prepare the rows `part`."""
        tensor, acts = layer.tensor, layer.activations
        columns, exponent = tensor.shape[1], unit_exponent(layer)
        if any(isinstance(fmt, BlockFormat) and fmt.is_mx for fmt in (tensor.format, acts)):
            block_size = acts.block_size if isinstance(acts, BlockFormat) else max(columns, 1)
            window = WindowWeights.of(tensor, part, block_size, largest_activation(layer), fraction_bits(layer))
            return LayerProduct(weights=window, exponent=exponent)
        wide = tensor.format.decode_table().wide or acts.decode_table().wide
        method = choose_method(largest_weight(tensor), largest_activation(layer), columns)
        if wide or method == "digits":
            significands, shifts = tensor.significands()
            return LayerProduct(weights=DigitWeights.of(significands[part], shifts[part]), exponent=exponent)
        exact = ExactWeights.of(tensor.integers()[part], largest_activation(layer))
        return LayerProduct(weights=exact, exponent=exponent)

    def sums(self, codes: ActivationCodes) -> NDArray[np.float64] | NDArray[np.int64]:
        """Exact sums [tokens, out], float64 where that is exact; the caller sees to it that 62 bits hold them."""
        if isinstance(self.weights, ExactWeights):
            return self.weights.accumulate(_integers(codes))
        if isinstance(self.weights, DigitWeights):
            return digits_to_int64(self.weights.accumulate(*codes.significands()), self.weights.bits)
        return self.weights.accumulate(codes)

    def values(self, codes: ActivationCodes) -> NDArray[np.float32]:
        """Sums in units of the scales, rounded once to float32[tokens, out]."""
        if isinstance(self.weights, ExactWeights):
            return self.weights.accumulate_float32(_integers(codes))
        if isinstance(self.weights, DigitWeights):
            return digits_to_float32(self.weights.accumulate(*codes.significands()), self.weights.bits, self.exponent)
        return self.weights.accumulate_float32(codes, self.exponent)


def _integers(codes: ActivationCodes) -> NDArray[np.int32] | NDArray[np.int64]:
    """Integers with the multipliers of blocks in them."""
    if not isinstance(codes.format, BlockFormat):
        return codes.integers
    integers: NDArray[np.int64] = codes.integers * codes.per_input(codes.multipliers)
    return integers
