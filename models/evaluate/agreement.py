"""The proof that the fast evaluation is the reference's arithmetic: layer by layer, to the bit, from packed bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats import ActivationCodes, Layout, QuantTensor, Requantizer, pack, storage_layout, unpack
from sparsefab.models.compress import CompressedLayer
from sparsefab.models.evaluate.runner import BitTrueRunner, OutputCodes, largest_activation, quantize_input, static_bias
from sparsefab.models.execute import execute
from sparsefab.sim.reference.linear import (
    accumulate,
    accumulate_limbs,
    limbs_to_float32,
    requantize_codes,
    to_values,
)

__all__ = ["LayerAgreement", "agreement", "reference_layer"]

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
    groups = (tensor.shape[0], tensor.spec.groups)
    zeros, ones = np.zeros(groups, np.int64), np.ones(groups, np.int64)
    bias_codes = static_bias(layer, bias)
    arguments = (
        tensor.format.to_pattern(tensor.codes)[part],
        tensor.format.fixed_point().values,
        tensor.stored_mask[part],
        (zeros if tensor.zero_points is None else tensor.zero_points.astype(np.int64))[part],
        (ones if tensor.group_multipliers is None else tensor.group_multipliers.astype(np.int64))[part],
        tensor.group_size,
        codes.patterns,
        layer.activations.fixed_point().values,
        codes.zero_point,
        bias_codes[part],
    )
    bound = int(np.abs(tensor.integers()).max(initial=1)) * largest_activation(layer) * tensor.shape[1]
    bits = (bound + int(np.abs(bias_codes).max(initial=0))).bit_length() + 1
    scale, own_bias = tensor.accumulator_scale[part], None if bias is None else bias[part]
    if bits > 63:
        rounded = limbs_to_float32(accumulate_limbs(*arguments))
        values = (rounded * scale) * codes.token_scales[:, None]
        return (values if own_bias is None else values + own_bias), bits
    acc = accumulate(*arguments)
    if codes_out is not None and layer.static is not None:
        return _codes(acc, layer, codes_out, part), bits
    values = to_values(acc, scale, codes.token_scales)
    return (values + own_bias if layer.static is None and own_bias is not None else values), bits


def _codes(acc: NDArray[np.int64], layer: CompressedLayer, out: OutputCodes, part: slice) -> Floats:
    assert layer.static is not None
    ratios = layer.tensor.accumulator_scale[part].astype(np.float64) * layer.static.scale / out.static.scale
    lowest = out.static.zero_point if out.relu else out.format.code_min
    constants = Requantizer.of(ratios, out.static.zero_point, lowest, out.format.code_max)
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
