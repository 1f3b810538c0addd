"""The only packer: a compressed matrix to the bytes of a layout, and back.

`unpack(pack(t, layout)).integers()` equals `t.integers()` for every layout that accepts `t`; a test holds it over the
catalogue. Row-major bytes hold no positions, so there an absent weight comes back as a stored zero.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats.bits import pack_bits, packed_bytes, unpack_bits
from sparsefab.formats.ints import IntFormat
from sparsefab.formats.layout import (
    VNNI_MAX_COLUMNS,
    VNNI_PANEL_TOKENS,
    BlockRows,
    Chain,
    Layout,
    RowMajor,
    Sparse,
    Vnni4x1,
)
from sparsefab.formats.sparsity import NM, Block, Dense, Pattern, Unstructured
from sparsefab.formats.tensors import PackedTensor, QuantTensor, TensorSpec

__all__ = ["pack", "unpack"]

Sections = dict[str, NDArray[np.uint8]]
Parts = tuple[NDArray[np.int16], NDArray[np.bool_] | None]  # codes[out, in], mask[out, in]


def pack(tensor: QuantTensor, layout: Layout) -> PackedTensor:
    """Write a compressed matrix in a layout.

    Raises
    ------
    LayoutError                     If the layout cannot hold the tensor's pattern, scales or range.
    """
    writer: Callable[[QuantTensor, Any], Sections] = _WRITERS[type(layout)]
    return PackedTensor(spec=tensor.spec, layout=layout, sections=writer(tensor, layout) | _pack_scales(tensor))


def unpack(packed: PackedTensor) -> QuantTensor:
    """Read a compressed matrix back from its bytes alone.

    Raises
    ------
    LayoutError                     If a section's length does not match the header.
    """
    spec = packed.spec
    scales = _unpack_scales(packed)
    reader: Callable[[PackedTensor, Any, NDArray[np.int16] | None], Parts] = _READERS[type(packed.layout)]
    codes, mask = reader(packed, packed.layout, scales["zero_points"])
    return QuantTensor(
        codes=codes,
        format=spec.format,
        group_size=spec.group_size,
        pattern=Dense() if mask is None else _pattern_of(packed, mask),
        mask=mask,
        row_scales=scales["row_scales"],
        group_multipliers=scales["multipliers"],
        zero_points=scales["zero_points"],
    )


def _pattern_of(packed: PackedTensor, mask: NDArray[np.bool_]) -> Pattern:
    """The spec's pattern where the read mask obeys it (padding slots may hold zeros elsewhere)."""
    pattern = packed.spec.pattern
    return pattern if pattern.holds(mask) else Unstructured()


# scales


def _pack_scales(tensor: QuantTensor) -> Sections:
    spec = tensor.spec
    sections: Sections = {}
    if spec.group_size < spec.columns:
        multipliers = tensor.group_multipliers
        if multipliers is None:
            multipliers = np.ones((spec.rows, spec.groups), np.uint16)
        sections["multipliers"] = pack_bits(multipliers.reshape(-1), spec.multiplier_bits)
    if tensor.zero_points is not None:
        sections["zero_points"] = pack_bits(tensor.format.to_pattern(tensor.zero_points).reshape(-1), spec.format.bits)
    sections["row_scales"] = tensor.row_scales.view(np.uint8)
    return sections


def _section(packed: PackedTensor, name: str, nbytes: int) -> NDArray[np.uint8]:
    part = packed.sections.get(name)
    if part is None or part.nbytes != nbytes:
        found = "absent" if part is None else f"{part.nbytes} bytes"
        raise LayoutError(f"layout {packed.layout.name}: section {name!r} must have {nbytes} bytes, is {found}")
    return np.ascontiguousarray(part)


def _unpack_scales(packed: PackedTensor) -> dict[str, Any]:
    spec = packed.spec
    count = spec.rows * spec.groups
    grid = (spec.rows, spec.groups)
    multipliers = zero_points = None
    if spec.group_size < spec.columns:
        raw = _section(packed, "multipliers", packed_bytes(count, spec.multiplier_bits))
        multipliers = unpack_bits(raw, spec.multiplier_bits, count).reshape(grid)
    if spec.asymmetric:
        raw = _section(packed, "zero_points", packed_bytes(count, spec.format.bits))
        patterns = unpack_bits(raw, spec.format.bits, count)
        zero_points = spec.format.from_pattern(patterns).astype(np.int16).reshape(grid)
    row_scales = _section(packed, "row_scales", 4 * spec.rows).view(np.float32)
    return {"multipliers": multipliers, "zero_points": zero_points, "row_scales": row_scales}


# centred values <-> codes


def _zero_codes(spec: TensorSpec, zero_points: NDArray[np.int16] | None) -> NDArray[np.int16]:
    """int16[out, in]: the code that contributes nothing."""
    if zero_points is None:
        return np.zeros((spec.rows, spec.columns), np.int16)
    return np.repeat(zero_points, spec.group_size, axis=1)[:, : spec.columns]


def _filled_codes(tensor: QuantTensor) -> NDArray[np.int16]:
    """Codes with the zero code where nothing is stored."""
    if tensor.mask is None:
        return tensor.codes
    return np.where(tensor.mask, tensor.codes, _zero_codes(tensor.spec, tensor.zero_points))


def _centred_s8(tensor: QuantTensor, layout: Layout) -> NDArray[np.int8]:
    values = tensor.centred()
    if values.size and (values.min() < -128 or values.max() > 127):
        raise LayoutError(
            f"layout {layout.name}: centred values of {tensor.format.name} span {values.min()}..{values.max()}, not s8"
        )
    return values.astype(np.int8)


def _codes_of_centred(
    spec: TensorSpec, values: NDArray[np.int8], zero_points: NDArray[np.int16] | None
) -> NDArray[np.int16]:
    if isinstance(spec.format, IntFormat):
        return values.astype(np.int16) + _zero_codes(spec, zero_points)
    table = spec.format.fixed_point().values
    order = np.argsort(table, kind="stable")
    found = order[np.searchsorted(table[order], values.astype(np.int64))]
    return found.astype(np.int16)


# slots: the stored weights of each block of m inputs, in ascending position


def _slots(
    mask: NDArray[np.bool_], block: int, slots: int, layout: Layout
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Positions intp[out, blocks, slots] of stored weights inside their block, and which slots are used."""
    blocks = mask.reshape(mask.shape[0], -1, block)
    counts = blocks.sum(axis=2)
    if counts.size and counts.max() > slots:
        raise LayoutError(
            f"layout {layout.name}: a block of {block} stores {counts.max()} weights, at most {slots} fit"
        )
    positions = np.argsort(~blocks, axis=2, kind="stable")[:, :, :slots]
    used = np.arange(slots) < counts[:, :, None]
    return np.where(used, positions, 0), used


def _gather(values: NDArray[Any], positions: NDArray[np.intp], used: NDArray[np.bool_], block: int) -> NDArray[Any]:
    blocks = values.reshape(values.shape[0], -1, block)
    return np.where(used, np.take_along_axis(blocks, positions, axis=2), 0)


# row-major


def _write_row_major(tensor: QuantTensor, layout: RowMajor) -> Sections:
    packed = pack_bits(tensor.format.to_pattern(_filled_codes(tensor)), tensor.format.bits)
    return {"codes": packed.reshape(-1)}


def _read_row_major(packed: PackedTensor, layout: RowMajor, zero_points: NDArray[np.int16] | None) -> Parts:
    spec = packed.spec
    row_bytes = packed_bytes(spec.columns, spec.format.bits)
    raw = _section(packed, "codes", spec.rows * row_bytes).reshape(spec.rows, row_bytes)
    return spec.format.from_pattern(unpack_bits(raw, spec.format.bits, spec.columns)).astype(np.int16), None


# sparse: N:M by index or bitmap, unstructured by bitmap


def _write_sparse(tensor: QuantTensor, layout: Sparse) -> Sections:
    pattern, bits, mask = tensor.pattern, tensor.format.bits, tensor.stored_mask
    patterns = tensor.format.to_pattern(_filled_codes(tensor))
    bitmap = np.packbits(mask, axis=1, bitorder="little").reshape(-1)
    if isinstance(pattern, Unstructured) and layout.encoding == "bitmap":
        return {"codes": pack_bits(patterns[mask], bits), "bitmap": bitmap}
    if not isinstance(pattern, NM):
        raise LayoutError(f"layout {layout.name} does not hold pattern {pattern.name}")
    positions, used = _slots(mask, pattern.m, pattern.n, layout)
    codes = _gather(patterns, positions, used, pattern.m).reshape(tensor.shape[0], -1)
    if layout.encoding == "bitmap":
        return {"codes": pack_bits(codes, bits).reshape(-1), "bitmap": bitmap}
    # a free slot repeats position 0 with the zero code: descending or repeated positions mark it free
    zeros = tensor.format.to_pattern(_zero_codes(tensor.spec, tensor.zero_points))
    zero_at_first = zeros.reshape(tensor.shape[0], -1, pattern.m)[:, :, :1]
    codes = np.where(used, codes.reshape(used.shape), zero_at_first).reshape(tensor.shape[0], -1)
    indices = pack_bits(positions.reshape(tensor.shape[0], -1).astype(np.uint16), pattern.index_bits)
    return {"codes": pack_bits(codes, bits).reshape(-1), "indices": indices.reshape(-1)}


def _read_sparse(packed: PackedTensor, layout: Sparse, zero_points: NDArray[np.int16] | None) -> Parts:
    spec = packed.spec
    pattern, bits = spec.pattern, spec.format.bits
    sizes = layout.section_bytes(spec)
    codes = _zero_codes(spec, zero_points).copy()
    if layout.encoding == "bitmap":
        raw = _section(packed, "bitmap", sizes["bitmap"]).reshape(spec.rows, -1)
        mask = np.unpackbits(raw, axis=1, bitorder="little", count=spec.columns).astype(np.bool_)
        if isinstance(pattern, Unstructured):
            stored = unpack_bits(_section(packed, "codes", sizes["codes"]), bits, spec.stored)
            codes[mask] = spec.format.from_pattern(stored).astype(np.int16)
            return codes, mask
    if not isinstance(pattern, NM):
        raise LayoutError(f"layout {layout.name} does not hold pattern {pattern.name}")
    blocks = spec.columns // pattern.m
    slots = blocks * pattern.n
    raw = _section(packed, "codes", sizes["codes"]).reshape(spec.rows, -1)
    stored = spec.format.from_pattern(unpack_bits(raw, bits, slots)).astype(np.int16)
    stored = stored.reshape(spec.rows, blocks, pattern.n)
    if layout.encoding == "bitmap":
        positions, used = _slots(mask, pattern.m, pattern.n, layout)
    else:
        raw = _section(packed, "indices", sizes["indices"]).reshape(spec.rows, -1)
        positions = unpack_bits(raw, pattern.index_bits, slots).astype(np.intp).reshape(stored.shape)
        used = np.ones(stored.shape, np.bool_)
        used[:, :, 1:] = positions[:, :, 1:] > positions[:, :, :-1]
        used = np.logical_and.accumulate(used, axis=2)
        mask = np.zeros((spec.rows, spec.columns), np.bool_)
    rows, block, slot = np.nonzero(used)
    columns = block * pattern.m + positions[rows, block, slot]
    codes[rows, columns] = stored[rows, block, slot]
    mask[rows, columns] = True
    return codes, mask


# block-sparse rows


def _write_block_rows(tensor: QuantTensor, layout: BlockRows) -> Sections:
    pattern = tensor.pattern
    if not isinstance(pattern, Block):
        raise LayoutError(f"layout {layout.name} does not hold pattern {pattern.name}")
    rows, columns = tensor.shape
    if columns // pattern.columns > 65_536:
        raise LayoutError(f"layout {layout.name}: {columns // pattern.columns} block columns exceed 16-bit indices")
    grid = (rows // pattern.rows, pattern.rows, columns // pattern.columns, pattern.columns)
    kept = tensor.stored_mask.reshape(grid).any(axis=(1, 3))  # [block rows, block columns]
    tiles = tensor.format.to_pattern(tensor.codes).reshape(grid).transpose(0, 2, 1, 3)
    pointers = np.concatenate([[0], kept.sum(axis=1).cumsum()]).astype(np.uint32)
    return {
        "codes": pack_bits(tiles[kept].reshape(-1), tensor.format.bits),
        "columns": np.nonzero(kept)[1].astype(np.uint16).view(np.uint8),
        "pointers": pointers.view(np.uint8),
    }


def _read_block_rows(packed: PackedTensor, layout: BlockRows, zero_points: NDArray[np.int16] | None) -> Parts:
    spec, pattern = packed.spec, packed.spec.pattern
    if not isinstance(pattern, Block):
        raise LayoutError(f"layout {layout.name} does not hold pattern {pattern.name}")
    sizes = layout.section_bytes(spec)
    pointers = _section(packed, "pointers", sizes["pointers"]).view(np.uint32)
    block_columns = _section(packed, "columns", sizes["columns"]).view(np.uint16).astype(np.intp)
    block_rows = np.repeat(np.arange(len(pointers) - 1), (pointers[1:] - pointers[:-1]).astype(np.int64))
    stored = unpack_bits(_section(packed, "codes", sizes["codes"]), spec.format.bits, spec.stored)
    grid = (spec.rows // pattern.rows, pattern.rows, spec.columns // pattern.columns, pattern.columns)
    codes = _zero_codes(spec, zero_points).reshape(grid).transpose(0, 2, 1, 3).copy()
    mask = np.zeros(codes.shape, np.bool_)
    decoded = spec.format.from_pattern(stored).astype(np.int16)
    codes[block_rows, block_columns] = decoded.reshape(-1, pattern.rows, pattern.columns)
    mask[block_rows, block_columns] = True
    return tuple(a.transpose(0, 2, 1, 3).reshape(spec.rows, spec.columns) for a in (codes, mask))  # type: ignore[return-value]


# VNNI quads of a 4-row group


def _write_vnni(tensor: QuantTensor, layout: Vnni4x1) -> Sections:
    if tensor.group_size < tensor.shape[1]:
        raise LayoutError(f"layout {layout.name} holds one scale a row, not groups of {tensor.group_size}")
    rows, columns = tensor.shape
    if columns > VNNI_MAX_COLUMNS:
        raise LayoutError(f"layout {layout.name}: {columns} inputs may overflow int32; at most {VNNI_MAX_COLUMNS}")
    groups = -(-rows // 4)
    values = np.zeros((groups * 4, columns), np.int8)
    values[:rows] = _centred_s8(tensor, layout)
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


def _read_vnni(packed: PackedTensor, layout: Vnni4x1, zero_points: NDArray[np.int16] | None) -> Parts:
    spec = packed.spec
    groups = -(-spec.rows // 4)
    pointers = _section(packed, "pointers", 8 * (groups + 1)).view(np.int64)
    quads = int(pointers[-1])
    quad_values = _section(packed, "values", 16 * quads).view(np.int8).reshape(quads, 4, 4)
    columns = _section(packed, "offsets", 16 * quads).view(np.int32).reshape(quads, 4) // VNNI_PANEL_TOKENS
    values = np.zeros((groups * 4, spec.columns), np.int8)
    mask = np.zeros(values.shape, np.bool_)
    group_of_quad = np.repeat(np.arange(groups), np.diff(pointers))
    for row in range(4):
        # padding repeats the last input with zeros, so adding is what assigning would overwrite
        np.add.at(values, (group_of_quad[:, None] * 4 + row, columns), quad_values[:, row])
        mask[group_of_quad[:, None] * 4 + row, columns] = True
    values, mask = values[: spec.rows], mask[: spec.rows]
    return _codes_of_centred(spec, values, zero_points), mask


# chain beats


def _write_chain(tensor: QuantTensor, layout: Chain) -> Sections:
    rows, columns = tensor.shape
    tiles = layout.tiles(columns)
    padded = tiles * layout.tile_columns - columns
    values = np.pad(_centred_s8(tensor, layout), ((0, 0), (0, padded)))
    mask = np.pad(tensor.stored_mask, ((0, 0), (0, padded)))
    positions, used = _slots(mask, layout.block, layout.slots, layout)
    weights = _gather(values, positions, used, layout.block)  # [rows, blocks, slots]
    used_dsps = layout.blocks_per_tile * layout.slots
    beats = np.zeros((tiles, rows, layout.dsps), np.int8)
    indices = np.zeros((tiles, rows, layout.dsps), np.uint16)
    shape = (rows, tiles, used_dsps)
    beats[:, :, :used_dsps] = weights.reshape(shape).transpose(1, 0, 2)
    indices[:, :, :used_dsps] = positions.reshape(shape).transpose(1, 0, 2)
    return {"beats": np.concatenate([beats.view(np.uint8), pack_bits(indices, 4)], axis=2).reshape(-1)}


def _read_chain(packed: PackedTensor, layout: Chain, zero_points: NDArray[np.int16] | None) -> Parts:
    spec = packed.spec
    tiles = layout.tiles(spec.columns)
    raw = _section(packed, "beats", tiles * spec.rows * layout.beat_bytes).reshape(tiles, spec.rows, layout.beat_bytes)
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
    return _codes_of_centred(spec, values, zero_points), None


_WRITERS: dict[type, Callable[[QuantTensor, Any], Sections]] = {
    RowMajor: _write_row_major,
    Sparse: _write_sparse,
    BlockRows: _write_block_rows,
    Vnni4x1: _write_vnni,
    Chain: _write_chain,
}
_READERS: dict[type, Callable[[PackedTensor, Any, NDArray[np.int16] | None], Parts]] = {
    RowMajor: _read_row_major,
    Sparse: _read_sparse,
    BlockRows: _read_block_rows,
    Vnni4x1: _read_vnni,
    Chain: _read_chain,
}
