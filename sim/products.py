"""Packed products as an array of chains does them, drawn at random, and their sums by the reference."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats import NM, Chain, Dense, IntFormat, PackedTensor, QuantTensor, pack
from sparsefab.formats.requantize import Requantizer
from sparsefab.sim.reference.linear import Operand, accumulate

__all__ = ["Product", "random_product", "reference_accumulators"]

_S8: Final = (-128, 127, *range(-128, 128, 5))  # every fifth value, the corners more often

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """activations x weights + bias, as an array of chains does it.

    packed : PackedTensor           In a Chain layout; with pairs of rows it is done token by token.
    activations : int64[tokens, in] Signed codes.
    bias : int64[out]
    requantizer : Requantizer       Its multipliers and shifts leave with the rows.
    """

    packed: PackedTensor
    activations: Integers
    bias: Integers
    requantizer: Requantizer

    @property
    def layout(self) -> Chain:
        """The weights' layout."""
        if not isinstance(self.packed.layout, Chain):
            raise LayoutError(f"packed must be in a chain layout, not {self.packed.layout.name}")
        return self.packed.layout

    def tile_multipliers(self, tensor: QuantTensor) -> Integers:
        """int64[tiles, out]: the scale of the group that each tile lies in.

        Raises
        ------
        LayoutError                 If a group ends inside a tile.
        """
        layout, spec = self.layout, self.packed.spec
        tiles = layout.tiles(spec.columns)
        if spec.groups > 1 and spec.group_size % layout.tile_columns:
            raise LayoutError(
                f"group_size must be a multiple of {layout.tile_columns}, the inputs of a tile of {layout.dsps} DSPs "
                f"at {layout.slots}:{layout.block}, or the whole row, not {spec.group_size}: a tile has one group scale"
            )
        if tensor.group_multipliers is None:
            return np.ones((tiles, spec.rows), np.int64)
        group_of_tile = np.arange(tiles) * layout.tile_columns // spec.group_size
        return tensor.group_multipliers.T.astype(np.int64)[group_of_tile]


def random_product(
    *,
    rows: int,
    columns: int,
    slots: int,
    tokens: int,
    dsps: int,
    group_size: int | None = None,
    pairs: bool = False,
    seed: int = 0,
) -> Product:
    """Draw s8 weights slots:16, corners among them, and group scales of 8 bits where there is a group_size.

    With `pairs` two rows share their positions and a beat; an odd number of rows is then dense.
    """
    random = np.random.default_rng(seed)
    together = 2 if pairs else 1
    rank = random.random((-(-rows // together), columns // 16, 16)).argsort(-1).argsort(-1)
    mask = None if slots == 16 else np.repeat((rank < slots).reshape(-1, columns), together, axis=0)
    codes = random.choice(_S8, (rows, columns))
    scales = None
    if group_size is not None:
        scales = random.choice([1, 255, *range(2, 255)], (rows, -(-columns // group_size))).astype(np.uint16)
    tensor = QuantTensor(
        codes=(codes if mask is None else np.where(mask, codes, 0)).astype(np.int16),
        format=IntFormat(bits=8),
        row_scales=np.ones(rows, np.float32),
        group_size=group_size or columns,
        pattern=Dense() if mask is None else NM(slots, 16, together),
        mask=mask,
        group_multipliers=scales,
    )
    return Product(
        packed=pack(tensor, Chain(dsps=dsps, slots=slots, pairs=pairs)),
        activations=random.choice(_S8, (tokens, columns)),
        bias=random.integers(-(1 << 24), 1 << 24, rows),
        requantizer=Requantizer(
            multipliers=random.integers(1 << 14, 1 << 15, rows).astype(np.int32),
            shifts=random.integers(-47, 63, rows).astype(np.int32),
            zero_point=0,
            code_min=-128,
            code_max=127,
        ),
    )


def reference_accumulators(tensor: QuantTensor, activations: Integers, bias: Integers) -> Integers:
    """int64[tokens, out] by `sim.reference.accumulate`, from the tensor's codes and s8 activations."""
    table, (tokens, columns) = tensor.format.decode_table(), activations.shape
    codes = np.arange(256, dtype=np.int64).astype(np.int8).astype(np.int64)
    zeros, ones = np.zeros((tokens, 1), np.int64), np.ones((tokens, 1), np.int64)
    weights = Operand(
        patterns=tensor.format.to_pattern(tensor.codes),
        stored=tensor.stored_mask,
        significands=table.significand,
        exponents=table.shifts,
        zero_points=np.zeros_like(tensor.multipliers)
        if tensor.zero_points is None
        else tensor.zero_points.astype(np.int64),
        multipliers=tensor.multipliers,
        shifts=tensor.shifts,
        group_size=tensor.group_size,
    )
    operand = Operand(
        patterns=(activations & 0xFF).astype(np.uint16),
        stored=np.ones(activations.shape, np.bool_),
        significands=codes,
        exponents=np.zeros_like(codes),
        zero_points=zeros,
        multipliers=ones,
        shifts=zeros,
        group_size=columns,
    )
    return np.asarray(accumulate(weights, operand, 0, bias))
