"""Quads of four inputs for groups of four rows, for `vpdpbusd`: gathered (4x1), aligned (4x4), or packed (N:M)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats.layout_vnni import (
    VNNI_LINE_BYTES,
    VNNI_MAX_COLUMNS,
    VNNI_PANEL_TOKENS,
    VNNI_SPARE_BYTES,
    VNNI_TILE_INPUTS,
    Vnni4x1,
    Vnni4x4,
    VnniNM,
)
from sparsefab.formats.mx import BlockFormat
from sparsefab.formats.packing_parts import Parts, Sections, centred_s8, codes_of_centred, section
from sparsefab.formats.sparsity import NM
from sparsefab.formats.tensors import PackedTensor, QuantTensor

__all__ = [
    "read_vnni4x1",
    "read_vnni4x4",
    "read_vnni_nm",
    "safe_pairs",
    "write_vnni4x1",
    "write_vnni4x4",
    "write_vnni_nm",
]

_PAIR_LIMIT = 128


def write_vnni4x1(tensor: QuantTensor, layout: Vnni4x1) -> Sections:
    _check_rows(tensor, layout)
    rows, columns = tensor.shape
    groups = -(-rows // 4)
    values = np.zeros((groups * 4, columns), np.int8)
    values[:rows] = centred_s8(tensor, layout)
    mask = np.zeros(values.shape, np.bool_)
    mask[:rows] = tensor.stored_mask
    kept = np.logical_or.reduce(mask.reshape(groups, 4, columns), axis=1)
    quad_values, quad_columns, pointers = [], [], [0]
    for group in range(groups):
        k = np.flatnonzero(kept[group])
        block = values[group * 4 : group * 4 + 4, k]  # [4, kept]
        if short := -len(k) % 4:
            k = np.concatenate([k, np.repeat(k[-1:], short)])
            block = np.pad(block, ((0, 0), (0, short)))
        quad_values.append(block.reshape(4, -1, 4).transpose(1, 0, 2))
        quad_columns.append(k.reshape(-1, 4))
        pointers.append(pointers[-1] + len(k) // 4)
    offsets = (np.concatenate(quad_columns) * VNNI_PANEL_TOKENS).astype(np.int32)
    return {
        "values": np.ascontiguousarray(np.concatenate(quad_values)).view(np.uint8).reshape(-1),
        "offsets": offsets.view(np.uint8).reshape(-1),
        "pointers": np.array(pointers, np.int64).view(np.uint8),
    }


def read_vnni4x1(packed: PackedTensor, layout: Vnni4x1, zero_points: NDArray[np.int16] | None) -> Parts:
    spec = packed.spec
    groups = -(-spec.rows // 4)
    pointers = section(packed, "pointers", 8 * (groups + 1)).view(np.int64)
    quads = int(pointers[-1])
    quad_values = section(packed, "values", 16 * quads).view(np.int8).reshape(quads, 4, 4)
    columns = section(packed, "offsets", 16 * quads).view(np.int32).reshape(quads, 4) // VNNI_PANEL_TOKENS
    values = np.zeros((groups * 4, spec.columns), np.int8)
    mask = np.zeros(values.shape, np.bool_)
    group_of_quad = np.repeat(np.arange(groups), np.diff(pointers))
    for row in range(4):
        # padding repeats the last input with zeros, so adding is what assigning would overwrite
        np.add.at(values, (group_of_quad[:, None] * 4 + row, columns), quad_values[:, row])
        mask[group_of_quad[:, None] * 4 + row, columns] = True
    values, mask = values[: spec.rows], mask[: spec.rows]
    return codes_of_centred(spec, values, zero_points), mask


def write_vnni4x4(tensor: QuantTensor, layout: Vnni4x4) -> Sections:
    _check_rows(tensor, layout)
    rows, columns = tensor.shape
    groups, lines = -(-rows // 4), -(-columns // 4)
    margin = ((0, 4 * groups - rows), (0, 4 * lines - columns))
    grid = (groups, 4, lines, 4)
    blocks = np.pad(centred_s8(tensor, layout), margin).reshape(grid).transpose(0, 2, 1, 3)
    stored = tensor.stored_mask.reshape(grid) if layout.drops_blocks(tensor.pattern) else np.ones(grid, np.bool_)
    kept = np.logical_or.reduce(stored, axis=(1, 3))
    return {
        "values": blocks[kept].view(np.uint8).reshape(-1),
        "offsets": (VNNI_LINE_BYTES * np.nonzero(kept)[1]).astype(np.int32).view(np.uint8),
        "pointers": np.concatenate([[0], kept.sum(axis=1).cumsum()]).astype(np.int64).view(np.uint8),
    }


def read_vnni4x4(packed: PackedTensor, layout: Vnni4x4, zero_points: NDArray[np.int16] | None) -> Parts:
    spec = packed.spec
    sizes = layout.section_bytes(spec)
    groups, lines = -(-spec.rows // 4), -(-spec.columns // 4)
    pointers = section(packed, "pointers", sizes["pointers"]).view(np.int64)
    stored = section(packed, "values", sizes["values"]).view(np.int8).reshape(-1, 4, 4)
    line = section(packed, "offsets", sizes["offsets"]).view(np.int32) // VNNI_LINE_BYTES
    group = np.repeat(np.arange(groups), np.diff(pointers))
    blocks = np.zeros((groups, lines, 4, 4), np.int8)
    mask = np.zeros(blocks.shape, np.bool_)
    blocks[group, line], mask[group, line] = stored, True
    shape = (4 * groups, 4 * lines)
    values = blocks.transpose(0, 2, 1, 3).reshape(shape)[: spec.rows, : spec.columns]
    codes = codes_of_centred(spec, values, zero_points)
    if not layout.drops_blocks(spec.pattern):
        return codes, None
    return codes, mask.transpose(0, 2, 1, 3).reshape(shape)[: spec.rows, : spec.columns]


def write_vnni_nm(tensor: QuantTensor, layout: VnniNM) -> Sections:
    _check_rows(tensor, layout)
    slots, pattern = layout.tile_bytes(tensor.spec), tensor.pattern
    assert isinstance(pattern, NM)  # tile_bytes refuses others
    values, mask = _filled_up(centred_s8(tensor, layout)), _filled_up(tensor.stored_mask)
    blocks = mask.reshape(len(mask), -1, pattern.m)
    # N of each M are stored: what the row keeps, then the first of the others, whose values are 0
    order = np.argsort(~blocks, axis=2, kind="stable")[:, :, : pattern.n]
    chosen = np.zeros_like(blocks)
    np.put_along_axis(chosen, order, True, axis=2)
    bits = _in_tiles(chosen.reshape(mask.shape))
    stored = _in_tiles(values)[bits]
    assert stored.size == len(bits) * slots
    return {
        "values": np.concatenate([stored, np.zeros(VNNI_SPARE_BYTES, np.int8)]).view(np.uint8),
        "masks": np.packbits(bits, axis=1, bitorder="little").reshape(-1),
    }


def read_vnni_nm(packed: PackedTensor, layout: VnniNM, zero_points: NDArray[np.int16] | None) -> Parts:
    spec, sizes = packed.spec, layout.section_bytes(packed.spec)
    stored = section(packed, "values", sizes["values"])[:-VNNI_SPARE_BYTES].view(np.int8)
    masks = section(packed, "masks", sizes["masks"]).reshape(-1, 8)
    bits = np.unpackbits(masks, axis=1, bitorder="little").astype(np.bool_)
    if (bits.sum(axis=1) != layout.tile_bytes(spec)).any():
        raise LayoutError(f"layout {layout.name}: a mask does not have {layout.tile_bytes(spec)} bits")
    tiles = np.zeros(bits.shape, np.int8)
    tiles[bits] = stored
    values, mask = (_from_tiles(part, spec.rows, spec.columns) for part in (tiles, bits))
    return codes_of_centred(spec, values, zero_points), mask


def _filled_up(matrix: NDArray[Any]) -> NDArray[Any]:
    """Fill up to whole tiles with zeros."""
    rows, columns = matrix.shape
    return np.pad(matrix, ((0, -rows % 4), (0, -columns % VNNI_TILE_INPUTS)))


def _in_tiles(matrix: NDArray[Any]) -> NDArray[Any]:
    """Bring [rows, columns] into [tiles, 64], by block of four inputs, row, input."""
    grid = matrix.reshape(len(matrix) // 4, 4, -1, VNNI_TILE_INPUTS // 4, 4)
    return np.ascontiguousarray(grid.transpose(0, 2, 3, 1, 4)).reshape(-1, 4 * VNNI_TILE_INPUTS)


def _from_tiles(tiles: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """Undo `_in_tiles`, and cut off what fills up."""
    groups = -(-rows // 4)
    grid = tiles.reshape(groups, -1, VNNI_TILE_INPUTS // 4, 4, 4).transpose(0, 3, 1, 2, 4)
    return np.ascontiguousarray(grid.reshape(4 * groups, -1)[:rows, :columns])


def safe_pairs(
    values: NDArray[np.int8], offsets: NDArray[np.int32], pointers: NDArray[np.int64]
) -> tuple[NDArray[np.int8], NDArray[np.int32], NDArray[np.int64]]:
    """Arrange quads for a product of bytes that saturates to 16 bits (`vpmaddubsw`): u8 times s8, two neighbours added.

    A pair is safe when its positive weights sum to 128 at most and its negative ones to -128 at least, since 255 * 128
    fits. Gathered inputs of a group are paired the greatest with the least; a quad with an unsafe pair becomes two, of
    the lower and the upper halves of its weights. The result is the same layout and means the same matrix, as what
    several quads hold of one input adds up.

    Parameters
    ----------
    values : int8[quads, 4, 4]              Rows, inputs.
    offsets : int32[quads, 4] or [quads]    Of gathered inputs, or of four consecutive ones, which stay together.
    pointers : int64[groups + 1]
    """
    if offsets.ndim == 2:
        values, offsets = _great_with_small(values, offsets, pointers)
    pairs = values.reshape(-1, 8, 2).astype(np.int16)
    most, least = np.maximum(pairs, 0).sum(axis=2), np.minimum(pairs, 0).sum(axis=2)
    unsafe = ((most > _PAIR_LIMIT) | (least < -_PAIR_LIMIT)).any(axis=1)
    index = np.repeat(np.arange(len(values)), 1 + unsafe)
    result = values[index]
    second = np.flatnonzero(np.diff(index, prepend=-1) == 0)
    half = result[second] >> 1
    result[second - 1] = half
    result[second] -= half
    return result, offsets[index], np.searchsorted(index, pointers).astype(np.int64)


def _great_with_small(
    values: NDArray[np.int8], offsets: NDArray[np.int32], pointers: NDArray[np.int64]
) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
    counts = 4 * np.diff(pointers)
    group = np.repeat(np.arange(len(counts)), counts)
    columns = values.transpose(0, 2, 1).reshape(-1, 4)  # an input's weights of four rows
    order = np.lexsort((np.abs(columns.astype(np.int16)).max(axis=1, initial=0), group))
    first = 4 * pointers[:-1][group]
    rank = np.arange(len(order)) - first
    count = counts[group]
    place = first + np.where(rank < count // 2, 2 * rank, 2 * (count - 1 - rank) + 1)
    source = np.empty_like(order)
    source[place] = order
    arranged = columns[source].reshape(-1, 4, 4).transpose(0, 2, 1)
    return np.ascontiguousarray(arranged), offsets.reshape(-1)[source].reshape(-1, 4)


def _check_rows(tensor: QuantTensor, layout: Vnni4x1 | Vnni4x4 | VnniNM) -> None:
    if isinstance(tensor.format, BlockFormat):
        raise LayoutError(f"layout {layout.name} holds one scale a row, not the blocks of {tensor.format.name}")
    if tensor.group_size < tensor.shape[1]:
        raise LayoutError(f"layout {layout.name} holds one scale a row, not groups of {tensor.group_size}")
    columns = tensor.shape[1]
    if columns > VNNI_MAX_COLUMNS:
        raise LayoutError(f"layout {layout.name}: {columns} inputs may overflow int32; at most {VNNI_MAX_COLUMNS}")
