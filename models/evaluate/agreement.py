"""The proof that the fast evaluation is the reference's arithmetic: layer by layer, to the bit, from packed bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats import Layout, Requantizer, pack, storage_layout, unpack
from sparsefab.models.compress import CompressedLayer, CompressedModel
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
    packed = pack(layer.tensor, storage_layout(layer.tensor.spec) if layout is None else layout)
    tensor = unpack(packed)
    codes = quantize_input(layer, x)
    groups = (tensor.shape[0], packed.spec.groups)
    zeros, ones = np.zeros(groups, np.int64), np.ones(groups, np.int64)
    bias_codes = static_bias(layer, bias)
    arguments = (
        tensor.format.to_pattern(tensor.codes),
        tensor.format.fixed_point().values,
        tensor.stored_mask,
        zeros if tensor.zero_points is None else tensor.zero_points.astype(np.int64),
        ones if tensor.group_multipliers is None else tensor.group_multipliers.astype(np.int64),
        tensor.group_size,
        codes.patterns,
        layer.activations.fixed_point().values,
        codes.zero_point,
        bias_codes,
    )
    bound = int(np.abs(tensor.integers()).max(initial=1)) * largest_activation(layer) * tensor.shape[1]
    bits = (bound + int(np.abs(bias_codes).max(initial=0))).bit_length() + 1
    scale = tensor.accumulator_scale
    if bits > 63:
        rounded = limbs_to_float32(accumulate_limbs(*arguments))
        values = (rounded * scale) * codes.token_scales[:, None]
        return (values if bias is None else values + bias), bits
    acc = accumulate(*arguments)
    if codes_out is not None and layer.static is not None:
        return _codes(acc, layer, codes_out), bits
    values = to_values(acc, scale, codes.token_scales)
    return (values + bias if layer.static is None and bias is not None else values), bits


def _codes(acc: NDArray[np.int64], layer: CompressedLayer, out: OutputCodes) -> Floats:
    assert layer.static is not None
    ratios = layer.tensor.accumulator_scale.astype(np.float64) * layer.static.scale / out.static.scale
    lowest = out.static.zero_point if out.relu else out.format.code_min
    constants = Requantizer.of(ratios, out.static.zero_point, lowest, out.format.code_max)
    codes = requantize_codes(
        acc, constants.multipliers, constants.shifts, constants.zero_point, constants.code_min, constants.code_max
    )
    return (codes - out.static.zero_point).astype(np.float32) * np.float32(out.static.scale)


def agreement(
    compressed: CompressedModel,
    feeds: Mapping[str, NDArray[np.generic]],
    tokens: int = 4,
    progress: Callable[[str], None] | None = None,
) -> list[LayerAgreement]:
    """Run a model and recompute `tokens` tokens of every compressed layer by the reference.

    The layer's real input is used, so that what is compared is what the evaluation computed. Convolutions with groups
    are compared group by group.
    """
    runner = BitTrueRunner(compressed)
    results: list[LayerAgreement] = []

    def checked(name: str, x: Floats, /) -> Floats | None:
        y = runner(name, x)
        if y is None:
            return None
        if progress is not None:
            progress(name)
        rows = np.unique(np.linspace(0, len(x) - 1, min(tokens, len(x))).astype(np.intp))
        layer, bias, codes_out = compressed.layers[name], compressed.model.bias(name), runner.output_codes.get(name)
        expected, bits = _reference_rows(layer, x[rows], bias, codes_out)
        same = expected.view(np.uint32) == y[rows].view(np.uint32)
        results.append(
            LayerAgreement(
                layer=name,
                layout=storage_layout(layer.tensor.spec).name,
                outputs=same.size,
                mismatches=int((~same).sum()),
                accumulator_bits=bits,
            )
        )
        return y

    checked.adds_bias = True  # type: ignore[attr-defined]
    execute(compressed.model, feeds, runner=checked)
    return results


def _reference_rows(
    layer: CompressedLayer, x: Floats, bias: Floats | None, codes_out: OutputCodes | None
) -> tuple[Floats, int]:
    if x.ndim == 2:
        return reference_layer(layer, x, bias, codes_out)
    groups = x.shape[1]
    each = layer.tensor.shape[0] // groups
    full, bits = zip(
        *(reference_layer(layer, np.ascontiguousarray(x[:, g]), bias, codes_out) for g in range(groups)), strict=True
    )
    parts = [part[:, g * each : (g + 1) * each] for g, part in enumerate(full)]
    return np.concatenate(parts, axis=1), max(bits)
