"""Layouts that store and move weights: row-major, N:M and unstructured, block-sparse rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats.bits import pack_bits, packed_bytes, unpack_bits
from sparsefab.formats.layout import BlockRows, RowMajor, Sparse
from sparsefab.formats.packing_parts import Parts, Sections, filled_codes, gather, section, slots_of, zero_codes
from sparsefab.formats.sparsity import BLOCK_N_SIDE, NM, Block, BlockN, Unstructured
from sparsefab.formats.tensors import PackedTensor, QuantTensor

__all__ = ["read_block_rows", "read_row_major", "read_sparse", "write_block_rows", "write_row_major", "write_sparse"]

# row-major


def write_row_major(tensor: QuantTensor, layout: RowMajor) -> Sections:
    packed = pack_bits(tensor.format.to_pattern(filled_codes(tensor)), tensor.format.bits)
    return {"codes": packed.reshape(-1)}


def read_row_major(packed: PackedTensor, layout: RowMajor, zero_points: NDArray[np.int16] | None) -> Parts:
    spec = packed.spec
    row_bytes = packed_bytes(spec.columns, spec.format.bits)
    raw = section(packed, "codes", spec.rows * row_bytes).reshape(spec.rows, row_bytes)
    return spec.format.from_pattern(unpack_bits(raw, spec.format.bits, spec.columns)).astype(np.int16), None


# sparse: N:M and per-block N by index or bitmap, unstructured by bitmap


def write_sparse(tensor: QuantTensor, layout: Sparse) -> Sections:
    pattern, bits, mask = tensor.pattern, tensor.format.bits, tensor.stored_mask
    if isinstance(pattern, BlockN):
        return write_block_n(tensor, layout)
    patterns = tensor.format.to_pattern(filled_codes(tensor))
    bitmap = np.packbits(mask, axis=1, bitorder="little").reshape(-1)
    if isinstance(pattern, Unstructured) and layout.encoding == "bitmap":
        return {"codes": pack_bits(patterns[mask], bits), "bitmap": bitmap}
    if not isinstance(pattern, NM):
        raise LayoutError(f"layout {layout.name} does not hold pattern {pattern.name}")
    positions, used = slots_of(mask, pattern.m, pattern.n, layout)
    codes = gather(patterns, positions, used, pattern.m).reshape(tensor.shape[0], -1)
    if layout.encoding == "bitmap":
        shared = bitmap.reshape(tensor.shape[0], -1)[:: pattern.rows].reshape(-1)
        return {"codes": pack_bits(codes, bits).reshape(-1), "bitmap": shared}
    # a free slot repeats position 0 with the zero code: descending or repeated positions mark it free
    zeros = tensor.format.to_pattern(zero_codes(tensor.spec, tensor.zero_points))
    zero_at_first = zeros.reshape(tensor.shape[0], -1, pattern.m)[:, :, :1]
    codes = np.where(used, codes.reshape(used.shape), zero_at_first).reshape(tensor.shape[0], -1)
    shared = positions[:: pattern.rows].astype(np.uint16)
    indices = pack_bits(shared.reshape(len(shared), -1), pattern.index_bits)
    return {"codes": pack_bits(codes, bits).reshape(-1), "indices": indices.reshape(-1)}


def read_sparse(packed: PackedTensor, layout: Sparse, zero_points: NDArray[np.int16] | None) -> Parts:
    spec = packed.spec
    pattern, bits = spec.pattern, spec.format.bits
    if isinstance(pattern, BlockN):
        return read_block_n(packed, layout, zero_points)
    sizes = layout.section_bytes(spec)
    codes = zero_codes(spec, zero_points).copy()
    together = pattern.rows if isinstance(pattern, NM) else 1
    if layout.encoding == "bitmap":
        raw = section(packed, "bitmap", sizes["bitmap"]).reshape(spec.rows // together, -1)
        mask = np.unpackbits(raw, axis=1, bitorder="little", count=spec.columns).astype(np.bool_)
        mask = np.repeat(mask, together, axis=0)
        if isinstance(pattern, Unstructured):
            stored = unpack_bits(section(packed, "codes", sizes["codes"]), bits, spec.stored)
            codes[mask] = spec.format.from_pattern(stored).astype(np.int16)
            return codes, mask
    if not isinstance(pattern, NM):
        raise LayoutError(f"layout {layout.name} does not hold pattern {pattern.name}")
    blocks = spec.columns // pattern.m
    slots = blocks * pattern.n
    raw = section(packed, "codes", sizes["codes"]).reshape(spec.rows, -1)
    stored = spec.format.from_pattern(unpack_bits(raw, bits, slots)).astype(np.int16)
    stored = stored.reshape(spec.rows, blocks, pattern.n)
    if layout.encoding == "bitmap":
        positions, used = slots_of(mask, pattern.m, pattern.n, layout)
    else:
        raw = section(packed, "indices", sizes["indices"]).reshape(spec.rows // together, -1)
        positions = unpack_bits(raw, pattern.index_bits, slots).astype(np.intp)
        positions = np.repeat(positions, together, axis=0).reshape(stored.shape)
        used = np.ones(stored.shape, np.bool_)
        used[:, :, 1:] = positions[:, :, 1:] > positions[:, :, :-1]
        used = np.logical_and.accumulate(used, axis=2)
        mask = np.zeros((spec.rows, spec.columns), np.bool_)
    rows, block, slot = np.nonzero(used)
    columns = block * pattern.m + positions[rows, block, slot]
    codes[rows, columns] = stored[rows, block, slot]
    mask[rows, columns] = True
    return codes, mask


# per-block N: blocks of 16 x 16 in row-major order, inside one its rows, inside a row N slots


def write_block_n(tensor: QuantTensor, layout: Sparse) -> Sections:
    mask, bits = tensor.stored_mask, tensor.format.bits
    block_n = BlockN.block_n(mask)
    slots = _by_blocks(np.arange(BLOCK_N_SIDE) < np.repeat(block_n, BLOCK_N_SIDE, axis=0)[:, :, None])
    positions, used = slots_of(mask, BLOCK_N_SIDE, BLOCK_N_SIDE, layout)
    patterns = tensor.format.to_pattern(filled_codes(tensor))
    zeros = tensor.format.to_pattern(zero_codes(tensor.spec, tensor.zero_points))
    codes = np.where(
        used, gather(patterns, positions, used, BLOCK_N_SIDE), zeros.reshape(positions.shape)[:, :, :1]
    ).astype(np.uint16)
    metadata = {"bitmap": np.packbits(mask, bitorder="little")}
    if layout.encoding == "index":
        metadata = {"indices": pack_bits(_by_blocks(positions.astype(np.uint16))[slots], 4)}
    return {"codes": pack_bits(_by_blocks(codes)[slots], bits), **metadata, "block_n": block_n.reshape(-1)}


def read_block_n(packed: PackedTensor, layout: Sparse, zero_points: NDArray[np.int16] | None) -> Parts:
    spec = packed.spec
    sizes = layout.section_bytes(spec)
    grid = (spec.rows // BLOCK_N_SIDE, spec.columns // BLOCK_N_SIDE)
    block_n = section(packed, "block_n", sizes["block_n"]).reshape(grid)
    slots = np.broadcast_to(
        np.arange(BLOCK_N_SIDE) < block_n[:, :, None, None], (*grid, BLOCK_N_SIDE, BLOCK_N_SIDE)
    )  # [block rows, block columns, rows, slots]
    if int(slots.sum()) != spec.stored:
        raise LayoutError(f"layout {layout.name}: block_n stands for {slots.sum()} weights, not {spec.stored}")
    patterns = unpack_bits(section(packed, "codes", sizes["codes"]), spec.format.bits, spec.stored)
    if layout.encoding == "bitmap":
        raw = section(packed, "bitmap", sizes["bitmap"])
        flat = np.unpackbits(raw, bitorder="little", count=spec.rows * spec.columns)
        mask = flat.reshape(spec.rows, spec.columns).astype(np.bool_)
        positions, used = (_by_blocks(part) for part in slots_of(mask, BLOCK_N_SIDE, BLOCK_N_SIDE, layout))
    else:
        mask = np.zeros((spec.rows, spec.columns), np.bool_)
        positions = np.zeros(slots.shape, np.intp)
        positions[slots] = unpack_bits(section(packed, "indices", sizes["indices"]), 4, spec.stored)
        used = slots.copy()
        used[..., 1:] &= positions[..., 1:] > positions[..., :-1]
        used = np.logical_and.accumulate(used, axis=3)
    stored = np.zeros(slots.shape, np.int16)
    stored[slots] = spec.format.from_pattern(patterns).astype(np.int16)
    block_row, block_column, row, _ = np.nonzero(used)
    rows, columns = block_row * BLOCK_N_SIDE + row, block_column * BLOCK_N_SIDE + positions[used]
    codes = zero_codes(spec, zero_points).copy()
    codes[rows, columns] = stored[used]
    mask[rows, columns] = True
    return codes, mask


def _by_blocks(slots: NDArray[Any]) -> NDArray[Any]:
    """Bring [out, in / 16, 16 slots] into [out / 16, in / 16, 16 rows, 16 slots]."""
    return slots.reshape(-1, BLOCK_N_SIDE, *slots.shape[1:]).transpose(0, 2, 1, 3)


# block-sparse rows


def write_block_rows(tensor: QuantTensor, layout: BlockRows) -> Sections:
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


def read_block_rows(packed: PackedTensor, layout: BlockRows, zero_points: NDArray[np.int16] | None) -> Parts:
    spec, pattern = packed.spec, packed.spec.pattern
    if not isinstance(pattern, Block):
        raise LayoutError(f"layout {layout.name} does not hold pattern {pattern.name}")
    sizes = layout.section_bytes(spec)
    pointers = section(packed, "pointers", sizes["pointers"]).view(np.uint32)
    block_columns = section(packed, "columns", sizes["columns"]).view(np.uint16).astype(np.intp)
    block_rows = np.repeat(np.arange(len(pointers) - 1), (pointers[1:] - pointers[:-1]).astype(np.int64))
    stored = unpack_bits(section(packed, "codes", sizes["codes"]), spec.format.bits, spec.stored)
    grid = (spec.rows // pattern.rows, pattern.rows, spec.columns // pattern.columns, pattern.columns)
    codes = zero_codes(spec, zero_points).reshape(grid).transpose(0, 2, 1, 3).copy()
    mask = np.zeros(codes.shape, np.bool_)
    decoded = spec.format.from_pattern(stored).astype(np.int16)
    codes[block_rows, block_columns] = decoded.reshape(-1, pattern.rows, pattern.columns)
    mask[block_rows, block_columns] = True
    shape = (spec.rows, spec.columns)
    return codes.transpose(0, 2, 1, 3).reshape(shape), mask.transpose(0, 2, 1, 3).reshape(shape)
