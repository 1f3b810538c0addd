"""The weight beats of the RTL chain."""

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats.bits import pack_bits, unpack_bits
from sparsefab.formats.layout import Chain
from sparsefab.formats.packing_parts import Parts, Sections, centred_s8, codes_of_centred, gather, section, slots_of
from sparsefab.formats.tensors import PackedTensor, QuantTensor

__all__ = ["read_chain", "write_chain"]


def write_chain(tensor: QuantTensor, layout: Chain) -> Sections:
    rows, columns = tensor.shape
    tiles = layout.tiles(columns)
    padded = tiles * layout.tile_columns - columns
    values = np.pad(centred_s8(tensor, layout), ((0, 0), (0, padded)))
    mask = np.pad(tensor.stored_mask, ((0, 0), (0, padded)))
    positions, used = slots_of(mask, layout.block, layout.slots, layout)
    weights = gather(values, positions, used, layout.block)  # [rows, blocks, slots]
    used_dsps = layout.blocks_per_tile * layout.slots
    beats = np.zeros((tiles, rows, layout.dsps), np.int8)
    indices = np.zeros((tiles, rows, layout.dsps), np.uint16)
    shape = (rows, tiles, used_dsps)
    beats[:, :, :used_dsps] = weights.reshape(shape).transpose(1, 0, 2)
    indices[:, :, :used_dsps] = positions.reshape(shape).transpose(1, 0, 2)
    return {"beats": np.concatenate([beats.view(np.uint8), pack_bits(indices, 4)], axis=2).reshape(-1)}


def read_chain(packed: PackedTensor, layout: Chain, zero_points: NDArray[np.int16] | None) -> Parts:
    spec = packed.spec
    tiles = layout.tiles(spec.columns)
    raw = section(packed, "beats", tiles * spec.rows * layout.beat_bytes).reshape(tiles, spec.rows, layout.beat_bytes)
    used_dsps = layout.blocks_per_tile * layout.slots
    weights = raw[:, :, :used_dsps].view(np.int8)
    indices = unpack_bits(np.ascontiguousarray(raw[:, :, layout.dsps :]), 4, layout.dsps)[:, :, :used_dsps]
    block_of_dsp = np.arange(used_dsps) // layout.slots * layout.block
    tile_start = np.arange(tiles)[:, None, None] * layout.tile_columns
    columns = tile_start + block_of_dsp + indices  # [tiles, rows, DSPs]
    values = np.zeros((spec.rows, tiles * layout.tile_columns), np.int8)
    row = np.broadcast_to(np.arange(spec.rows)[None, :, None], columns.shape)
    stored = weights != 0  # a free slot is weight 0, index 0
    values[row[stored], columns[stored]] = weights[stored]
    values = values[:, : spec.columns]
    return codes_of_centred(spec, values, zero_points), None
