"""The linear layers of a compiled encoder as products of 4x1 blocks, epilogues and tables in them."""

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats import QuantTensor, StaticScale, Vnni4x1, pack
from sparsefab.formats.requantize import Requantizer
from sparsefab.kernels_cpu.features import Level
from sparsefab.kernels_cpu.spmm import BlockWeights, Codes, Product, Reals
from sparsefab.models.evaluate.encoder import ENTERING, PROJECTED, QuantizedEncoder, gelu_table, requantizer_of
from sparsefab.models.evaluate.encoder_graph import Block
from sparsefab.models.evaluate.runner import static_bias

__all__ = ["encoder_products"]


def encoder_products(source: QuantizedEncoder, block: Block, level: Level | None, emulate: bool) -> list[Product]:
    """Return the products of a block: queries, keys and values in one, out, up, down.

    Raises
    ------
    LayoutError                  If a layer has group scales, or its sums could leave 32 bits.
    """
    index = source.graph.blocks.index(block)
    scales = source.scales[index]
    entering = requantizer_of(source.layer(block.up), scales.gelu, ENTERING)
    table = gelu_table(scales.gelu, source.input_scale(block.down), tanh=block.tanh)
    first = [(block.query, scales.query), (block.key, scales.key), (block.value, scales.value)]
    projections = [
        (name, requantizer_of(source.layer(name), StaticScale(scale=scale, zero_point=0), PROJECTED))
        for name, scale in first
    ]
    return [
        _coded(source, projections, level, emulate, None),
        _real(source, block.out, level, emulate),
        _coded(source, [(block.up, entering)], level, emulate, table),
        _real(source, block.down, level, emulate),
    ]


def _coded(
    source: QuantizedEncoder,
    parts: list[tuple[str, Requantizer]],
    level: Level | None,
    emulate: bool,
    table: NDArray[np.uint8] | None,
) -> Product:
    """One product of layers that read the same codes, their rows one after another."""
    first = parts[0][1]
    requantizer = Requantizer(
        multipliers=np.concatenate([constants.multipliers for _, constants in parts]),
        shifts=np.concatenate([constants.shifts for _, constants in parts]),
        zero_point=first.zero_point,
        code_min=first.code_min,
        code_max=first.code_max,
    )
    weights = _stacked([_weights(source.layer(name).tensor) for name, _ in parts])
    return Product(
        weights,
        Codes(requantizer=requantizer, signed=True, table=table),
        bias=np.concatenate([_bias(source, name) for name, _ in parts]),
        zero_point=source.input_scale(parts[0][0]).zero_point,
        level=level,
        emulate=emulate,
    )


def _real(source: QuantizedEncoder, name: str, level: Level | None, emulate: bool) -> Product:
    tensor = source.layer(name).tensor
    return Product(
        _weights(tensor),
        Reals(row_scales=tensor.accumulator_scale),
        bias=_bias(source, name),
        zero_point=source.input_scale(name).zero_point,
        level=level,
        emulate=emulate,
    )


def _bias(source: QuantizedEncoder, name: str) -> NDArray[np.int64]:
    return static_bias(source.layer(name), source.compressed.model.bias(name))


def _weights(tensor: QuantTensor) -> BlockWeights:
    """A matrix in 4x1 blocks whatever its pattern: all layers of a plan read one layout of activations."""
    if tensor.group_multipliers is not None:
        raise LayoutError("block kernels hold one scale a row, not group multipliers")
    return BlockWeights.from_packed(pack(tensor, Vnni4x1()))


def _stacked(parts: list[BlockWeights]) -> BlockWeights:
    """Matrices of whole groups of rows, one below the other."""
    if len(parts) == 1:
        return parts[0]
    counts = np.cumsum([0, *(part.ptr[-1] for part in parts)])
    ptr = [parts[0].ptr[:1], *(part.ptr[1:] + count for part, count in zip(parts, counts, strict=False))]
    return BlockWeights(
        rows=sum(part.rows for part in parts),
        columns=parts[0].columns,
        ptr=np.concatenate(ptr),
        offsets=np.concatenate([part.offsets for part in parts]),
        values=np.concatenate([part.values for part in parts]),
    )
