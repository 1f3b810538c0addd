"""Weights of up to 8 bits with a multiplier a group, 16 rows in the lanes of a register."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats.layout_lanes import LANE_PART_INPUTS, LANE_ROWS, Lanes16
from sparsefab.formats.packing_parts import Groups, Parts, Sections, filled_codes, section
from sparsefab.formats.tensors import PackedTensor, QuantTensor, TensorSpec

__all__ = ["read_lanes16", "read_lanes16_groups", "write_lanes16"]


def write_lanes16(tensor: QuantTensor, layout: Lanes16) -> Sections:
    spec = tensor.spec
    blocks, groups, parts = layout.grid(spec)
    multipliers = tensor.group_multipliers
    if multipliers is None:
        multipliers = np.ones((spec.rows, groups), np.uint16)
    if multipliers.max(initial=0) > 255:
        raise LayoutError(f"layout {layout.name}: multipliers must fit 8 bits, not reach {multipliers.max()}")
    offset = layout.zero_code(spec)
    codes = np.full((blocks * LANE_ROWS, spec.columns), offset, np.uint8)
    codes[: spec.rows] = filled_codes(tensor) + offset
    codes = _by_groups(codes, min(spec.group_size, spec.columns))
    # [block, row, group, part, four, byte] -> [block, group, part, four, row, byte]: a dword of a row by a dword
    quads = codes.reshape(blocks, LANE_ROWS, groups, parts, 8, 4).transpose(0, 2, 3, 4, 1, 5)
    sections = {
        "values": np.ascontiguousarray(_PACK[layout.bits](quads)).reshape(-1),
        "multipliers": _by_blocks(multipliers, blocks),
    }
    if tensor.zero_points is not None:
        sections["zero_points"] = _by_blocks(tensor.zero_points + offset, blocks)
    return sections


def read_lanes16(packed: PackedTensor, layout: Lanes16, zero_points: NDArray[np.int16] | None) -> Parts:
    spec = packed.spec
    blocks, groups, parts = layout.grid(spec)
    raw = section(packed, "values", layout.section_bytes(spec)["values"])
    quads = _UNPACK[layout.bits](raw.reshape(blocks, groups, parts, layout.bits, LANE_ROWS, 4))
    width = LANE_PART_INPUTS * parts
    codes = quads.transpose(0, 4, 1, 2, 3, 5).reshape(blocks * LANE_ROWS, groups, width)
    codes = codes[: spec.rows, :, : min(spec.group_size, spec.columns)].reshape(spec.rows, -1)[:, : spec.columns]
    return codes.astype(np.int16) - layout.zero_code(spec), None


def read_lanes16_groups(packed: PackedTensor, layout: Lanes16) -> Groups:
    """Return multipliers and zero points [out, groups] from their lanes; None where all are 1, or there are none."""
    spec = packed.spec
    sizes = layout.section_bytes(spec)
    multipliers = _by_rows(section(packed, "multipliers", sizes["multipliers"]), spec).astype(np.uint16)
    zero_points = None
    if spec.asymmetric:
        zeros = _by_rows(section(packed, "zero_points", sizes["zero_points"]), spec)
        zero_points = zeros.astype(np.int16) - np.int16(layout.zero_code(spec))
    return None if (multipliers == 1).all() else multipliers, zero_points


# [block, group, part, 8 fours of inputs, row, byte] <-> [block, group, part, `bits` lines, row, byte]


def _pack_8(quads: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return quads


def _pack_4(quads: NDArray[np.uint8]) -> NDArray[np.uint8]:
    result: NDArray[np.uint8] = quads[..., 0::2, :, :] | (quads[..., 1::2, :, :] << 4).astype(np.uint8)
    return result


def _unpack_4(lines: NDArray[np.uint8]) -> NDArray[np.uint8]:
    result = np.empty((*lines.shape[:3], 8, *lines.shape[4:]), np.uint8)
    result[..., 0::2, :, :], result[..., 1::2, :, :] = lines & 15, lines >> 4
    return result


def _pack_3(quads: NDArray[np.uint8]) -> NDArray[np.uint8]:
    result = np.zeros((*quads.shape[:3], 3, *quads.shape[4:]), np.uint8)
    for four in range(8):
        result[:, :, :, four // 4] |= (quads[:, :, :, four] & 3) << 2 * (four % 4)
        result[:, :, :, 2] |= (quads[:, :, :, four] >> 2) << four
    return result


def _unpack_3(lines: NDArray[np.uint8]) -> NDArray[np.uint8]:
    result = np.empty((*lines.shape[:3], 8, *lines.shape[4:]), np.uint8)
    for four in range(8):
        low = lines[:, :, :, four // 4] >> 2 * (four % 4) & 3
        result[:, :, :, four] = low | (lines[:, :, :, 2] >> four & 1) << 2
    return result


_PACK = {3: _pack_3, 4: _pack_4, 8: _pack_8}
_UNPACK = {3: _unpack_3, 4: _unpack_4, 8: _pack_8}


def _by_groups(matrix: NDArray[np.uint8], group_size: int) -> NDArray[np.uint8]:
    """Bring [rows, columns] into [rows, groups, 32 * parts]; what fills up a group is 0."""
    rows, columns = matrix.shape
    groups, width = -(-columns // group_size), -(-group_size // LANE_PART_INPUTS) * LANE_PART_INPUTS
    result = np.zeros((rows, groups, width), np.uint8)
    for group in range(groups):
        part = matrix[:, group * group_size : (group + 1) * group_size]
        result[:, group, : part.shape[1]] = part
    return result


def _by_blocks(values: NDArray[Any], blocks: int) -> NDArray[np.uint8]:
    """Bring [rows, groups] into [blocks, groups, 16], flat; missing rows are 0."""
    padded = np.zeros((blocks * LANE_ROWS, values.shape[1]), np.uint8)
    padded[: len(values)] = values
    return np.ascontiguousarray(padded.reshape(blocks, LANE_ROWS, -1).transpose(0, 2, 1)).reshape(-1)


def _by_rows(lanes: NDArray[np.uint8], spec: TensorSpec) -> NDArray[np.uint8]:
    """Undo `_by_blocks`."""
    grid = lanes.reshape(-1, spec.groups, LANE_ROWS).transpose(0, 2, 1)
    return grid.reshape(-1, spec.groups)[: spec.rows]
