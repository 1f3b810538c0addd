"""The weight beats of an RTL chain whose rows end anywhere: rows of any number of weights, back to back."""

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats.bits import pack_bits, unpack_bits
from sparsefab.formats.layout import ChainRows
from sparsefab.formats.packing_parts import Parts, Sections, centred_s8, codes_of_centred, gather, section, slots_of
from sparsefab.formats.tensors import PackedTensor, QuantTensor

__all__ = ["read_chain_rows", "write_chain_rows"]

_GROUP = 2


def write_chain_rows(tensor: QuantTensor, layout: ChainRows) -> Sections:
    rows, columns = tensor.shape
    tiles = layout.tiles(columns)
    margin = ((0, 0), (0, tiles * layout.tile_columns - columns))
    mask = np.pad(tensor.stored_mask, margin)
    values = np.where(mask, np.pad(centred_s8(tensor, layout), margin), 0)
    shape = (rows, tiles, layout.blocks, layout.block)
    positions, used = slots_of(mask, layout.block, layout.block, layout)
    weights = gather(values, positions, used, layout.block).reshape(shape)
    indices, filled = np.where(used, positions, 0).reshape(shape), used.reshape(shape)
    beats, tile_beats = [], []
    for tile in range(tiles):
        first_group, starts = _places(filled[:, tile].sum(axis=2), layout)
        count = -(-int(starts[-1]) // layout.groups)
        beat_weights = np.zeros(count * layout.dsps, np.int8)
        beat_indices = np.zeros(count * layout.dsps, np.uint16)
        row, block, slot = np.nonzero(filled[:, tile])
        dsp = _GROUP * (first_group[row, block] + layout.blocks * (slot // _GROUP)) + slot % _GROUP
        beat_weights[dsp] = weights[:, tile][row, block, slot]
        beat_indices[dsp] = indices[:, tile][row, block, slot]
        bits = np.zeros(count * layout.groups, np.uint16)
        bits[starts[1:-1]] = 1
        fields = (
            beat_weights.view(np.uint8).reshape(count, -1),
            pack_bits(beat_indices.reshape(count, -1), 4),
            pack_bits(bits.reshape(count, -1), 1),
        )
        beats.append(np.concatenate(fields, axis=1))
        tile_beats.append(count)
    table = np.array(tile_beats, "<u4").view(np.uint8)
    return {"beats": np.concatenate(beats).reshape(-1), "tile_beats": table}


def read_chain_rows(packed: PackedTensor, layout: ChainRows, zero_points: NDArray[np.int16] | None) -> Parts:
    spec = packed.spec
    tiles = layout.tiles(spec.columns)
    tile_beats = section(packed, "tile_beats", 4 * tiles).view("<u4").astype(np.int64)
    raw = section(packed, "beats", int(tile_beats.sum()) * layout.beat_bytes).reshape(-1, layout.beat_bytes)
    weights = raw[:, : layout.dsps].view(np.int8)
    last = layout.dsps + layout.dsps // 2
    indices = unpack_bits(np.ascontiguousarray(raw[:, layout.dsps : last]), 4, layout.dsps)
    starts = unpack_bits(np.ascontiguousarray(raw[:, last:]), 1, layout.groups)
    values = np.zeros((spec.rows, tiles * layout.tile_columns), np.int8)
    blocks = np.arange(layout.dsps) // _GROUP % layout.blocks * layout.block
    ends = np.cumsum(tile_beats)
    for tile, (beyond, count) in enumerate(zip(ends.tolist(), tile_beats.tolist(), strict=True)):
        here = slice(beyond - count, beyond)
        row = np.repeat(np.cumsum(starts[here].reshape(-1)), _GROUP).reshape(count, layout.dsps)
        if row[-1, -1] >= spec.rows:
            raise LayoutError(f"layout {layout.name}: tile {tile} holds {row[-1, -1] + 1} rows, not {spec.rows}")
        stored = weights[here] != 0  # a free slot is weight 0
        columns = tile * layout.tile_columns + blocks + indices[here]
        values[row[stored], columns[stored]] = weights[here][stored]
    return codes_of_centred(spec, values[:, : spec.columns], zero_points), None


def _places(counts: NDArray[np.int64], layout: ChainRows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lay the rows of a tile, int[rows, blocks] weights each, back to back.

    Returns
    -------
    int64[rows, blocks], int64[rows + 1]
                               The first group of each row that serves each block, counted through the beats of the
                               tile; the group where each row starts, and the first one behind the last row.
    """
    blocks, segment_groups = layout.blocks, layout.segment // _GROUP
    starts = np.zeros(len(counts) + 1, np.int64)
    first = np.zeros(counts.shape, np.int64)
    needed = -(-counts // _GROUP)
    for row in range(len(counts)):
        start = starts[row]
        first[row] = start + (np.arange(blocks) - start) % blocks
        last = np.where(counts[row] > 0, first[row] + blocks * (needed[row] - 1), start)
        beyond = int(last.max()) + 1
        # one start in a segment; the tile's first row has none
        if row and row + 1 < len(counts) and beyond // segment_groups == start // segment_groups:
            beyond = (start // segment_groups + 1) * segment_groups
        starts[row + 1] = beyond
    return first, starts
