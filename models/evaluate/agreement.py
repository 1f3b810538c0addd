"""The proof that the fast evaluation is the reference's arithmetic: layer by layer, to the bit, from packed bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats import ActivationCodes, Layout, QuantTensor, pack, storage_layout, unpack
from sparsefab.models.compress import CompressedLayer
from sparsefab.models.evaluate.layer_product import (
    accumulator_bits,
    fraction_bits,
    has_integer_bias,
    token_scales,
    unit_exponent,
)
from sparsefab.models.evaluate.runner import BitTrueRunner, OutputCodes, quantize_input, requantizer_of, static_bias
from sparsefab.models.execute import execute
from sparsefab.sim.reference.linear import (
    LIMB_BITS,
    Operand,
    accumulate,
    accumulate_limbs,
    accumulate_more,
    limbs_to_float32,
    requantize_codes,
    to_values,
)

__all__ = ["LayerAgreement", "agreement", "reference_layer"]

ACCUMULATOR_BITS = 63  # of the reference's int64 sums
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerAgreement:
    """How many outputs of a layer were compared with the reference, and how many differed."""

    layer: str
    layout: str
    outputs: int
    mismatches: int
    accumulator_bits: int


def reference_layer(
    layer: CompressedLayer,
    x: Floats,
    bias: Floats | None,
    codes_out: OutputCodes | None = None,
    layout: Layout | None = None,
) -> tuple[Floats, int]:
    """Compute float32[tokens, in] -> float32[tokens, out] by `sim.reference` from the packed bytes.

    Returns
    -------
    values : float32[tokens, out]       Bias included.
    bits : int                          Width that the accumulator needs, sign included.
    """
    return _reference(layer, _unpacked(layer, layout), quantize_input(layer, x), bias, codes_out)


def _unpacked(layer: CompressedLayer, layout: Layout | None = None) -> QuantTensor:
    """What the packed bytes say."""
    return unpack(pack(layer.tensor, storage_layout(layer.tensor.spec) if layout is None else layout))


def _reference(
    layer: CompressedLayer,
    tensor: QuantTensor,
    codes: ActivationCodes,
    bias: Floats | None,
    codes_out: OutputCodes | None,
    part: slice = slice(None),
) -> tuple[Floats, int]:
    """`reference_layer` on codes; `part` takes some of the rows."""
    bias_codes, exponent = static_bias(layer, bias), unit_exponent(layer)
    weights, activations = _weights(tensor, part), _activations(codes)
    bits = max(accumulator_bits(layer), int(np.abs(bias_codes).max(initial=0)).bit_length()) + 1
    scales = token_scales(layer, codes)
    scale, own_bias = tensor.accumulator_scale[part], None if bias is None else bias[part]
    if bits > ACCUMULATOR_BITS or exponent:
        limbs = -(-(bits + 1) // LIMB_BITS) + 1
        sums = accumulate_limbs(weights, activations, fraction_bits(layer), bias_codes[part], limbs)
        values = (limbs_to_float32(sums, exponent) * scale) * scales[:, None]
    else:
        acc = accumulate(weights, activations, fraction_bits(layer), bias_codes[part])
        if tensor.outliers is not None:
            acc = accumulate_more(acc, tensor.outliers[part], activations)
        if codes_out is not None:
            return _codes(acc, layer, codes_out, part), bits
        values = to_values(acc, scale, scales)
    return (values if own_bias is None or has_integer_bias(layer) else values + own_bias), bits


def _weights(tensor: QuantTensor, part: slice) -> Operand:
    """Some rows as the reference takes them."""
    table, zeros = tensor.format.decode_table(), tensor.zero_points
    multipliers = tensor.multipliers[part]
    return Operand(
        patterns=tensor.format.to_pattern(tensor.codes)[part],
        stored=tensor.stored_mask[part],
        significands=table.significand,
        exponents=table.shifts,
        zero_points=np.zeros_like(multipliers) if zeros is None else zeros[part].astype(np.int64),
        multipliers=multipliers,
        shifts=tensor.shifts[part],
        group_size=tensor.group_size,
    )


def _activations(codes: ActivationCodes) -> Operand:
    """Activations as the reference takes them."""
    table = codes.format.decode_table()
    return Operand(
        patterns=codes.patterns,
        stored=np.ones(codes.codes.shape, np.bool_),
        significands=table.significand,
        exponents=table.shifts,
        zero_points=np.full(codes.multipliers.shape, codes.zero_point, np.int64),
        multipliers=codes.multipliers,
        shifts=codes.shifts,
        group_size=codes.block_size,
    )


def _codes(acc: NDArray[np.int64], layer: CompressedLayer, out: OutputCodes, part: slice) -> Floats:
    constants = requantizer_of(layer, out, part)
    codes = requantize_codes(
        acc, constants.multipliers, constants.shifts, constants.zero_point, constants.code_min, constants.code_max
    )
    return (codes - out.static.zero_point).astype(np.float32) * np.float32(out.static.scale)


def agreement(
    runner: BitTrueRunner,
    feeds: Mapping[str, NDArray[np.generic]],
    tokens: int = 4,
    progress: Callable[[str], None] | None = None,
) -> list[LayerAgreement]:
    """Run a model and recompute `tokens` tokens of every compressed layer by the reference.

    The layer's real input is used, quantized once as the evaluation does, so that what is compared is what the
    evaluation computed. A convolution with groups is compared group by group.
    """
    checked = _Checked(runner, tokens, progress)
    execute(runner.compressed.model, feeds, runner=checked)
    return checked.results


class _Checked:
    """A runner that computes as another does and recomputes some tokens of each layer by the reference."""

    adds_bias = True

    def __init__(self, runner: BitTrueRunner, tokens: int, progress: Callable[[str], None] | None) -> None:
        self._runner, self._tokens, self._progress = runner, tokens, progress
        self.results: list[LayerAgreement] = []

    def __call__(self, name: str, x: Floats, /) -> Floats | None:
        y = self._runner(name, x)
        if y is None:
            return None
        if self._progress is not None:
            self._progress(name)
        rows = np.unique(np.linspace(0, len(x) - 1, min(self._tokens, len(x))).astype(np.intp))
        compressed = self._runner.compressed
        layer, bias = compressed.layers[name], compressed.model.bias(name)
        expected, bits = _reference_rows(layer, x, rows, bias, self._runner.output_codes.get(name))
        same = expected.view(np.uint32) == y[rows].view(np.uint32)
        self.results.append(
            LayerAgreement(
                layer=name,
                layout=storage_layout(layer.tensor.spec).name,
                outputs=same.size,
                mismatches=int((~same).sum()),
                accumulator_bits=bits,
            )
        )
        return y


def _reference_rows(
    layer: CompressedLayer, x: Floats, rows: NDArray[np.intp], bias: Floats | None, codes_out: OutputCodes | None
) -> tuple[Floats, int]:
    """Some tokens of float32[tokens, in] or, with groups, [tokens, groups, in]."""
    codes = quantize_input(layer, x.reshape(len(x), -1)).rows(rows)
    tensor = _unpacked(layer)
    if x.ndim == 2:
        return _reference(layer, tensor, codes, bias, codes_out)
    groups, columns = x.shape[1:]
    each = layer.tensor.shape[0] // groups
    parts = [
        _reference(
            layer,
            tensor,
            codes.columns(slice(g * columns, (g + 1) * columns)),
            bias,
            codes_out,
            slice(g * each, (g + 1) * each),
        )
        for g in range(groups)
    ]
    return np.concatenate([values for values, _ in parts], axis=1), parts[0][1]
