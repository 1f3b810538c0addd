"""Weights of up to 4 bits with a multiplier a group, 16 rows in the lanes of a register."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats.layout_lanes import NIBBLE_PART_INPUTS, NIBBLE_ROWS, Nibbles16
from sparsefab.formats.packing_parts import Groups, Parts, Sections, filled_codes, section
from sparsefab.formats.tensors import PackedTensor, QuantTensor, TensorSpec

__all__ = ["read_nibbles16", "read_nibbles16_groups", "write_nibbles16"]


def write_nibbles16(tensor: QuantTensor, layout: Nibbles16) -> Sections:
    spec = tensor.spec
    blocks, groups, parts = layout.grid(spec)
    multipliers = tensor.group_multipliers
    if multipliers is None:
        multipliers = np.ones((spec.rows, groups), np.uint16)
    if multipliers.max(initial=0) > 255:
        raise LayoutError(f"layout {layout.name}: multipliers must fit 8 bits, not reach {multipliers.max()}")
    offset = layout.zero_nibble(spec)
    nibbles = np.full((blocks * NIBBLE_ROWS, spec.columns), offset, np.uint8)
    nibbles[: spec.rows] = filled_codes(tensor) + offset
    nibbles = _by_groups(nibbles, min(spec.group_size, spec.columns))
    # [block, row, group, part, line, half, byte] -> [half, block, group, part, line, row, byte]
    low, high = nibbles.reshape(blocks, NIBBLE_ROWS, groups, parts, 4, 2, 4).transpose(5, 0, 2, 3, 4, 1, 6)
    sections = {"values": (low | high << 4).reshape(-1), "multipliers": _by_blocks(multipliers, blocks)}
    if tensor.zero_points is not None:
        sections["zero_points"] = _by_blocks(tensor.zero_points + offset, blocks)
    return sections


def read_nibbles16(packed: PackedTensor, layout: Nibbles16, zero_points: NDArray[np.int16] | None) -> Parts:
    spec = packed.spec
    blocks, groups, parts = layout.grid(spec)
    raw = section(packed, "values", layout.section_bytes(spec)["values"])
    lines = raw.reshape(blocks, groups, parts, 4, NIBBLE_ROWS, 4)
    halves = np.stack([lines & 15, lines >> 4])
    # [half, block, group, part, line, row, byte] -> [block, row, group, part, line, half, byte]
    width = NIBBLE_PART_INPUTS * parts
    nibbles = halves.transpose(1, 5, 2, 3, 4, 0, 6).reshape(blocks * NIBBLE_ROWS, groups, width)
    codes = nibbles[: spec.rows, :, : min(spec.group_size, spec.columns)].reshape(spec.rows, -1)[:, : spec.columns]
    return codes.astype(np.int16) - layout.zero_nibble(spec), None


def read_nibbles16_groups(packed: PackedTensor, layout: Nibbles16) -> Groups:
    """Return multipliers and zero points [out, groups] from their lanes; None where all are 1, or there are none."""
    spec = packed.spec
    sizes = layout.section_bytes(spec)
    multipliers = _by_rows(section(packed, "multipliers", sizes["multipliers"]), spec).astype(np.uint16)
    zero_points = None
    if spec.asymmetric:
        zeros = _by_rows(section(packed, "zero_points", sizes["zero_points"]), spec)
        zero_points = zeros.astype(np.int16) - np.int16(layout.zero_nibble(spec))
    return None if (multipliers == 1).all() else multipliers, zero_points


def _by_groups(matrix: NDArray[np.uint8], group_size: int) -> NDArray[np.uint8]:
    """Bring [rows, columns] into [rows, groups, 32 * parts]; what fills up a group is 0."""
    rows, columns = matrix.shape
    groups, width = -(-columns // group_size), -(-group_size // NIBBLE_PART_INPUTS) * NIBBLE_PART_INPUTS
    result = np.zeros((rows, groups, width), np.uint8)
    for group in range(groups):
        part = matrix[:, group * group_size : (group + 1) * group_size]
        result[:, group, : part.shape[1]] = part
    return result


def _by_blocks(values: NDArray[Any], blocks: int) -> NDArray[np.uint8]:
    """Bring [rows, groups] into [blocks, groups, 16], flat; missing rows are 0."""
    padded = np.zeros((blocks * NIBBLE_ROWS, values.shape[1]), np.uint8)
    padded[: len(values)] = values
    return np.ascontiguousarray(padded.reshape(blocks, NIBBLE_ROWS, -1).transpose(0, 2, 1)).reshape(-1)


def _by_rows(lanes: NDArray[np.uint8], spec: TensorSpec) -> NDArray[np.uint8]:
    """Undo `_by_blocks`."""
    grid = lanes.reshape(-1, spec.groups, NIBBLE_ROWS).transpose(0, 2, 1)
    return grid.reshape(-1, spec.groups)[: spec.rows]
