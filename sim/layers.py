"""A compressed model's layers as the chain takes them: packed weight beats and signed activation codes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.arch import ChainArch
from sparsefab.errors import TargetError
from sparsefab.formats import NM, BlockFormat, Chain, PackedTensor, Pattern, pack
from sparsefab.models.compress import CompressedLayer, CompressedModel
from sparsefab.models.evaluate import BitTrueRunner
from sparsefab.models.evaluate.runner import quantize_input
from sparsefab.models.execute import execute
from sparsefab.workload import Convolution

__all__ = ["chain_layers", "chain_layout", "runs_on_chain"]

TOKENS = 4
ACTIVATION_LIMIT = 127


def chain_layout(pattern: Pattern, arch: ChainArch) -> Chain:
    """The chain layout of a pattern: N of M inputs as N * 16 / M slots a block, all 16 for every other pattern."""
    slots = max(pattern.n * arch.block // pattern.m, 1) if isinstance(pattern, NM) else arch.block
    return Chain(dsps=arch.dsps, slots=slots, block=arch.block)


def runs_on_chain(layer: CompressedLayer) -> bool:
    """Whether weights and activations are integers that fit s8, once a u8 activation is taken less 128.

    The chain adds what lies in different blocks of a beat, so block formats do not run on it as they are; nor outliers.
    """
    formats = (layer.tensor.format, layer.activations)
    if layer.tensor.outliers is not None:
        return False
    if any(isinstance(fmt, BlockFormat) or fmt.decode_table().wide for fmt in formats):
        return False
    values = layer.tensor.centred()
    activations = layer.activations.fixed_point().values
    span = int(activations.max()) - int(activations.min())
    return bool(values.min() >= -128 and values.max() <= 127 and span <= 255)


def chain_layers(
    compressed: CompressedModel, feeds: Mapping[str, NDArray[Any]], arch: ChainArch, count: int
) -> dict[str, tuple[PackedTensor, NDArray[np.int64]]]:
    """Pack `count` layers, spread over the model, with the activation codes of a few of their real inputs.

    Returns
    -------
    {layer: (packed, codes int64[tokens, in])}      u8 codes are less 128, as the chain takes them.

    Raises
    ------
    TargetError                 If no layer runs on the chain.
    """
    grouped = {
        layer.name
        for layer in compressed.model.workload.weight_layers()
        if isinstance(layer, Convolution) and layer.groups > 1
    }
    able = [name for name, layer in compressed.layers.items() if name not in grouped and runs_on_chain(layer)]
    if not able:
        first = next(iter(compressed.layers), "none")
        raise TargetError(f"no layer of recipe {compressed.recipe.name!r} runs on the int8 chain (first: {first})")
    picked = [able[i] for i in sorted({round(p) for p in np.linspace(0, len(able) - 1, min(count, len(able)))})]
    result: dict[str, tuple[PackedTensor, NDArray[np.int64]]] = {}

    def observe(name: str, x: NDArray[np.float32], /) -> None:
        if name not in picked or name in result:
            return
        layer = compressed.layers[name]
        rows = np.unique(np.linspace(0, len(x) - 1, min(TOKENS, len(x))).astype(np.intp))
        codes = quantize_input(layer, x).rows(rows)
        table = layer.activations.fixed_point().values
        values = table[codes.patterns] - (128 if int(table.max()) > ACTIVATION_LIMIT else 0)
        result[name] = (pack(layer.tensor, chain_layout(layer.tensor.pattern, arch)), values)

    execute(compressed.model, feeds, runner=BitTrueRunner(compressed), observer=observe)
    if missing := sorted(set(picked) - set(result)):
        raise TargetError(f"layer {missing[0]} was never reached by the model's input, so it cannot be verified")
    return result
