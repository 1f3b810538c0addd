"""Group-sparse integers: the kept 1 x G groups of each row with a multiplier and a zero point each."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats.bits import pack_bits, unpack_bits
from sparsefab.formats.layout_groups import GROUP_SPARE_UNITS, GROUP_UNIT, GroupRows
from sparsefab.formats.packing_parts import Groups, Parts, Sections, section, zero_codes
from sparsefab.formats.tensors import PackedTensor, QuantTensor

__all__ = ["read_group_rows", "read_group_rows_groups", "write_group_rows"]

Places = tuple[NDArray[np.intp], NDArray[np.intp]]  # row and group of each kept group


def write_group_rows(tensor: QuantTensor, layout: GroupRows) -> Sections:
    spec = tensor.spec
    width, offset = layout.width(spec), layout.zero_code(spec)
    kept = tensor.stored_mask[:, ::width]  # the pattern holds: a group is kept as a whole
    codes = (tensor.codes + offset).astype(np.uint8).reshape(spec.rows, -1, width)[kept].reshape(-1)
    sections = {
        "codes": pack_bits(_with_spare(codes, GROUP_UNIT), layout.bits),
        "groups": _with_spare(np.nonzero(kept)[1].astype(np.uint16)).view(np.uint8),
        "multipliers": _with_spare(_multipliers(tensor, layout, width)[kept]),
    }
    if tensor.zero_points is not None:
        sections["zero_points"] = _with_spare(_spread(tensor.zero_points + offset, tensor, width)[kept])
    pointers = np.concatenate([[0], kept.sum(axis=1).cumsum()]).astype(np.uint32)
    return {**sections, "pointers": pointers.view(np.uint8)}


def read_group_rows(packed: PackedTensor, layout: GroupRows, zero_points: NDArray[np.int16] | None) -> Parts:
    spec = packed.spec
    width, places = layout.width(spec), _places(packed, layout)
    raw = section(packed, "codes", layout.section_bytes(spec)["codes"])
    stored = unpack_bits(raw, layout.bits, len(places[0]) * width).astype(np.int16) - layout.zero_code(spec)
    codes = zero_codes(spec, zero_points).reshape(spec.rows, -1, width).copy()
    mask = np.zeros(codes.shape[:2], np.bool_)
    codes[places] = stored.reshape(-1, width)
    mask[places] = True
    return codes.reshape(spec.rows, spec.columns), np.repeat(mask, width, axis=1)


def read_group_rows_groups(packed: PackedTensor, layout: GroupRows) -> Groups:
    """Return multipliers and zero points [out, groups]; 1 and 0 where nothing of a group is kept."""
    spec = packed.spec
    sizes = layout.section_bytes(spec)
    row, group = _places(packed, layout)
    place = (row, group * layout.width(spec) // spec.group_size)
    multipliers, zero_points = None, None
    if spec.group_size < spec.columns:
        multipliers = np.ones((spec.rows, spec.groups), np.uint16)
        multipliers[place] = section(packed, "multipliers", sizes["multipliers"])[: len(row)]
    if spec.asymmetric:
        zero_points = np.zeros((spec.rows, spec.groups), np.int16)
        stored = section(packed, "zero_points", sizes["zero_points"])[: len(row)]
        zero_points[place] = stored.astype(np.int16) - np.int16(layout.zero_code(spec))
    return multipliers, zero_points


def _places(packed: PackedTensor, layout: GroupRows) -> Places:
    """Where the kept groups are; raises LayoutError where pointers or indices make no sense."""
    spec = packed.spec
    sizes, width = layout.section_bytes(spec), layout.width(spec)
    kept = spec.stored // width
    pointers = section(packed, "pointers", sizes["pointers"]).view(np.uint32).astype(np.int64)
    if pointers[0] != 0 or pointers[-1] != kept or (np.diff(pointers) < 0).any():
        raise LayoutError(f"layout {layout.name}: section 'pointers' must rise from 0 to {kept} groups")
    group = section(packed, "groups", sizes["groups"]).view(np.uint16)[:kept].astype(np.intp)
    row = np.repeat(np.arange(spec.rows), np.diff(pointers))
    if group.max(initial=0) >= spec.columns // width:
        raise LayoutError(
            f"layout {layout.name}: section 'groups' must be below {spec.columns // width}, not {group.max()}"
        )
    if ((np.diff(group) <= 0) & (np.diff(row) == 0)).any():
        raise LayoutError(f"layout {layout.name}: section 'groups' must ascend in each row")
    return row, group


def _multipliers(tensor: QuantTensor, layout: GroupRows, width: int) -> NDArray[np.uint8]:
    """uint8[out, in / width]."""
    if tensor.group_multipliers is None:
        return np.ones((tensor.shape[0], tensor.shape[1] // width), np.uint8)
    if tensor.group_multipliers.max(initial=0) > 255:
        raise LayoutError(
            f"layout {layout.name}: multipliers must fit 8 bits, not reach {tensor.group_multipliers.max()}"
        )
    return _spread(tensor.group_multipliers, tensor, width)


def _spread(groups: NDArray[Any], tensor: QuantTensor, width: int) -> NDArray[np.uint8]:
    """Give each `width` inputs the number of their group: [out, groups] -> uint8[out, in / width]."""
    return tensor.per_weight(groups, 1)[:, ::width].astype(np.uint8)


def _with_spare(values: NDArray[Any], inner: int = 1) -> NDArray[Any]:
    return np.concatenate([values, np.zeros(GROUP_SPARE_UNITS * inner, values.dtype)])
