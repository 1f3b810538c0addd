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
    tiles, together = layout.tiles(columns), layout.beat_rows
    margin = ((0, -rows % together), (0, tiles * layout.tile_columns - columns))
    values = np.pad(centred_s8(tensor, layout), margin)
    mask = np.pad(tensor.stored_mask, margin)
    served = np.logical_or.reduce(mask.reshape(-1, together, mask.shape[1]), axis=1)  # what a beat's rows share
    positions, used = slots_of(served, layout.block, layout.slots, layout)
    beats = np.zeros((tiles, len(served), layout.dsps, together), np.int8)
    indices = np.zeros((tiles, len(served), layout.dsps), np.uint16)
    used_dsps = layout.blocks_per_tile * layout.slots
    shape = (len(served), tiles, used_dsps)
    for row in range(together):
        stored = np.where(mask[row::together], values[row::together], 0)
        weights = gather(stored, positions, used, layout.block)  # [beat rows, blocks, slots]
        beats[:, :, :used_dsps, row] = weights.reshape(shape).transpose(1, 0, 2)
    indices[:, :, :used_dsps] = positions.reshape(shape).transpose(1, 0, 2)
    weight_bytes = beats.view(np.uint8).reshape(tiles, len(served), -1)
    return {"beats": np.concatenate([weight_bytes, pack_bits(indices, 4)], axis=2).reshape(-1)}


def read_chain(packed: PackedTensor, layout: Chain, zero_points: NDArray[np.int16] | None) -> Parts:
    spec, together = packed.spec, layout.beat_rows
    tiles = layout.tiles(spec.columns)
    raw = section(packed, "beats", layout.beats(spec) * layout.beat_bytes).reshape(tiles, -1, layout.beat_bytes)
    used_dsps = layout.blocks_per_tile * layout.slots
    weights = raw[:, :, : together * used_dsps].view(np.int8).reshape(tiles, -1, used_dsps, together)
    indices = unpack_bits(np.ascontiguousarray(raw[:, :, together * layout.dsps :]), 4, layout.dsps)[:, :, :used_dsps]
    block_of_dsp = np.arange(used_dsps) // layout.slots * layout.block
    tile_start = np.arange(tiles)[:, None, None] * layout.tile_columns
    columns = tile_start + block_of_dsp + indices  # [tiles, beat rows, DSPs]
    values = np.zeros((raw.shape[1] * together, tiles * layout.tile_columns), np.int8)
    beat_row = np.broadcast_to(np.arange(raw.shape[1])[None, :, None], columns.shape)
    for row in range(together):
        stored = weights[..., row] != 0  # a free slot is weight 0, index 0
        values[beat_row[stored] * together + row, columns[stored]] = weights[..., row][stored]
    return codes_of_centred(spec, values[: spec.rows, : spec.columns], zero_points), None
