"""The RTL chain's weights as memory holds them: a piece of codes, positions and zero points for each weight beat."""

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats.layout import ChainMemory
from sparsefab.formats.packing_parts import Parts, Sections, centred_s8, gather, section, slots_of
from sparsefab.formats.tensors import PackedTensor, QuantTensor

__all__ = ["read_chain_memory", "read_chain_memory_zero_points", "write_chain_memory"]

Bits = NDArray[np.uint8]


def write_chain_memory(tensor: QuantTensor, layout: ChainMemory) -> Sections:
    spec, chain = tensor.spec, layout.chain
    layout.check(spec)
    centred_s8(tensor, chain)  # refuses what the chain cannot multiply
    (rows, columns), tiles, together = tensor.shape, chain.tiles(tensor.shape[1]), chain.beat_rows
    margin = ((0, -rows % together), (0, tiles * chain.tile_columns - columns))
    mask = np.pad(tensor.stored_mask, margin)
    beat_rows = mask.shape[0] // together
    zeros = _unit_zero_points(tensor, layout)  # [rows, tiles * units]
    zero_codes = tensor.format.to_pattern(np.repeat(zeros, layout.zero_unit(spec), axis=1))
    codes = np.where(mask, np.pad(tensor.format.to_pattern(tensor.codes), margin), zero_codes)
    served = np.logical_or.reduce(mask.reshape(-1, together, mask.shape[1]), axis=1)
    if layout.positions == "all":
        served = np.ones_like(served)
    positions, used = slots_of(served, layout.m, layout.slots_per_m, layout)  # [beat rows, blocks of m, slots]
    stored = np.empty((beat_rows, tiles, layout.used_dsps, together), np.uint16)
    for row in range(together):
        first = zero_codes[row::together, :: layout.m, None]
        kept = np.where(used, gather(codes[row::together], positions, used, layout.m), first)
        stored[..., row] = kept.reshape(beat_rows, tiles, -1)
    fields = [_bits(stored.reshape(beat_rows, tiles, -1), spec.format.bits)]
    if layout.positions == "index":
        fields.append(_bits(positions.reshape(beat_rows, tiles, -1), layout.index_bits))
    elif layout.positions == "bitmap":
        fields.append(served.reshape(beat_rows, tiles, -1).astype(np.uint8))
    if spec.asymmetric:
        units = zeros.reshape(beat_rows, together, tiles, -1).transpose(0, 2, 3, 1)
        fields.append(_bits(tensor.format.to_pattern(units).reshape(beat_rows, tiles, -1), spec.format.bits))
    pieces = np.packbits(np.concatenate(fields, axis=2).transpose(1, 0, 2), axis=2, bitorder="little")
    return {"pieces": pieces.reshape(-1)}


def read_chain_memory(packed: PackedTensor, layout: ChainMemory, zero_points: NDArray[np.int16] | None) -> Parts:
    spec, chain = packed.spec, layout.chain
    tiles, together = chain.tiles(spec.columns), chain.beat_rows
    bits = _piece_bits(packed, layout)
    used = bits.shape[1]
    count, width = layout.used_dsps * together, spec.format.bits
    stored = _values(bits[..., : count * width], width).reshape(tiles, used, -1, layout.slots_per_m, together)
    rest = bits[..., count * width :]
    blocks = chain.tile_columns // layout.m
    if layout.positions == "index":
        stored_positions = _values(rest[..., : layout.used_dsps * layout.index_bits], layout.index_bits)
        positions = stored_positions.reshape(tiles, used, blocks, -1).astype(np.intp)
        filled = np.ones(positions.shape, np.bool_)
        filled[..., 1:] = positions[..., 1:] > positions[..., :-1]  # a free slot repeats position 0
        filled = np.logical_and.accumulate(filled, axis=3)
    else:
        served = rest[..., : chain.tile_columns].astype(np.bool_) if layout.positions == "bitmap" else None
        if served is None:
            served = np.ones((tiles, used, chain.tile_columns), np.bool_)
        where, taken = slots_of(served.reshape(tiles * used, -1), layout.m, layout.slots_per_m, layout)
        positions, filled = where.reshape(tiles, used, blocks, -1), taken.reshape(tiles, used, blocks, -1)
    codes = np.zeros((used * together, tiles * chain.tile_columns), np.int16)
    if zero_points is not None:
        spread = np.repeat(zero_points, spec.group_size, axis=1)[:, : spec.columns]
        codes[: spec.rows, : spec.columns] = spread
    mask = np.zeros(codes.shape, np.bool_)
    tile, beat_row, block, slot = np.nonzero(filled)
    columns = tile * chain.tile_columns + block * layout.m + positions[tile, beat_row, block, slot]
    for row in range(together):
        patterns = stored[tile, beat_row, block, slot, row]
        codes[beat_row * together + row, columns] = spec.format.from_pattern(patterns).astype(np.int16)
        mask[beat_row * together + row, columns] = True
    kept = slice(spec.rows), slice(spec.columns)
    return codes[kept], None if layout.positions == "all" else mask[kept]


def read_chain_memory_zero_points(packed: PackedTensor, layout: ChainMemory) -> NDArray[np.int16] | None:
    """int16[out, groups] from the pieces; None for a symmetric tensor."""
    spec, chain = packed.spec, layout.chain
    if not spec.asymmetric:
        return None
    bits = _piece_bits(packed, layout)
    tiles, units, together = chain.tiles(spec.columns), layout.zero_units(spec), chain.beat_rows
    below = layout.zero_points_below(spec)
    fields = _values(bits[..., below : below + units * together * spec.format.bits], spec.format.bits)
    values = spec.format.from_pattern(fields).astype(np.int16).reshape(tiles, -1, units, together)
    by_row = values.transpose(1, 3, 0, 2).reshape(-1, tiles * units)[: spec.rows]
    first = np.arange(spec.groups) * spec.group_size // layout.zero_unit(spec)
    return np.ascontiguousarray(by_row[:, first])


def _unit_zero_points(tensor: QuantTensor, layout: ChainMemory) -> NDArray[np.int16]:
    """int16[rows, tiles * units], rows filled up to whole beats; 0 where there is no weight."""
    spec, chain = tensor.spec, layout.chain
    unit = layout.zero_unit(spec)
    rows = -(-spec.rows // chain.beat_rows) * chain.beat_rows
    zeros = np.zeros((rows, chain.tiles(spec.columns) * layout.zero_units(spec)), np.int16)
    if tensor.zero_points is not None:
        starts = np.arange(-(-spec.columns // unit)) * unit
        zeros[: spec.rows, : len(starts)] = tensor.zero_points[:, starts // spec.group_size]
    return zeros


def _piece_bits(packed: PackedTensor, layout: ChainMemory) -> Bits:
    """uint8[tiles, beat rows, bits]."""
    spec = packed.spec
    nbytes = layout.piece_bytes(spec)
    raw = section(packed, "pieces", layout.chain.beats(spec) * nbytes)
    shape = (layout.chain.tiles(spec.columns), -1, nbytes)
    return np.unpackbits(raw.reshape(shape), axis=2, bitorder="little")


def _bits(values: NDArray[np.integer], width: int) -> Bits:
    """Spread the last axis over its bits, least significant first."""
    planes = (values[..., None].astype(np.int64) >> np.arange(width)) & 1
    return planes.astype(np.uint8).reshape(*values.shape[:-1], -1)


def _values(bits: Bits, width: int) -> NDArray[np.uint16]:
    """Undo `_bits`."""
    planes = bits.reshape(*bits.shape[:-1], -1, width).astype(np.uint16)
    joined: NDArray[np.uint16] = (planes << np.arange(width, dtype=np.uint16)).sum(axis=-1, dtype=np.uint16)
    return joined
