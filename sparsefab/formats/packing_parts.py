"""What the writers and readers of layouts share: sections, scales, centred values, slots.

A writer takes a tensor and its layout and returns sections without the scales; a reader takes the packed tensor, its
layout and the zero points [out, groups], and returns codes and mask. Both raise LayoutError for what does not fit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats.bits import pack_bits, packed_bytes, unpack_bits
from sparsefab.formats.ints import IntFormat
from sparsefab.formats.layout import Layout
from sparsefab.formats.mx import BlockFormat
from sparsefab.formats.tensors import ROW_SCALE_BYTES, PackedTensor, QuantTensor, TensorSpec

__all__ = [
    "Groups",
    "Parts",
    "Sections",
    "centred_s8",
    "codes_of_centred",
    "filled_codes",
    "gather",
    "pack_scales",
    "section",
    "slots_of",
    "unpack_blocks",
    "unpack_groups",
    "unpack_multipliers",
    "zero_codes",
]

Sections = dict[str, NDArray[np.uint8]]
Parts = tuple[NDArray[np.int16], NDArray[np.bool_] | None]  # codes[out, in], mask[out, in]
Groups = tuple[NDArray[np.uint16] | None, NDArray[np.int16] | None]  # multipliers, zero points, each [out, groups]

# scales


def pack_scales(tensor: QuantTensor, *, grouped: bool) -> Sections:
    """Write the scale sections that layouts share; `grouped` includes multipliers and zero points."""
    spec = tensor.spec
    sections: Sections = {}
    if isinstance(tensor.format, BlockFormat) and tensor.block_scales is not None:
        return {"block_scales": np.ascontiguousarray(tensor.block_scales).reshape(-1), **_pack_outer(tensor)}
    if grouped and spec.group_size < spec.columns:
        multipliers = tensor.group_multipliers
        if multipliers is None:
            multipliers = np.ones((spec.rows, spec.groups), np.uint16)
        sections["multipliers"] = pack_bits(multipliers.reshape(-1), spec.multiplier_bits)
    if grouped and tensor.zero_points is not None:
        sections["zero_points"] = pack_bits(tensor.format.to_pattern(tensor.zero_points).reshape(-1), spec.format.bits)
    sections["row_scales"] = tensor.row_scales.view(np.uint8)
    return sections


def _pack_outer(tensor: QuantTensor) -> Sections:
    """Write what stands above block scales."""
    fmt = tensor.format
    assert isinstance(fmt, BlockFormat)
    if fmt.is_mx:
        return {"row_exponents": fmt.scale.encode(tensor.row_scales.astype(np.float64)).astype(np.uint8)}
    if fmt.row_scales:
        return {"row_scales": tensor.row_scales.view(np.uint8)}
    return {"tensor_scale": tensor.row_scales[:1].view(np.uint8)}


def unpack_blocks(packed: PackedTensor, fmt: BlockFormat) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Read block scales uint8[out, blocks] and the scales above them, float32[out]."""
    spec = packed.spec
    scales = section(packed, "block_scales", spec.rows * spec.groups).reshape(spec.rows, spec.groups)
    if fmt.is_mx:
        outer = fmt.scale.decode(section(packed, "row_exponents", spec.rows)).astype(np.float32)
    elif fmt.row_scales:
        outer = section(packed, "row_scales", ROW_SCALE_BYTES * spec.rows).view(np.float32)
    else:
        outer = np.repeat(section(packed, "tensor_scale", ROW_SCALE_BYTES).view(np.float32), spec.rows)
    return scales, outer


def unpack_groups(packed: PackedTensor) -> Groups:
    """Read multipliers and zero points from the sections that layouts share."""
    spec = packed.spec
    count = spec.rows * spec.groups
    grid = (spec.rows, spec.groups)
    zero_points = None
    if isinstance(spec.format, BlockFormat):
        return None, None
    if spec.asymmetric:
        raw = section(packed, "zero_points", packed_bytes(count, spec.format.bits))
        patterns = unpack_bits(raw, spec.format.bits, count)
        zero_points = spec.format.from_pattern(patterns).astype(np.int16).reshape(grid)
    return unpack_multipliers(packed), zero_points


def unpack_multipliers(packed: PackedTensor) -> NDArray[np.uint16] | None:
    """Read multipliers uint16[out, groups] from their section; None where there is one scale a row."""
    spec = packed.spec
    if spec.group_size >= spec.columns or isinstance(spec.format, BlockFormat):
        return None
    count = spec.rows * spec.groups
    raw = section(packed, "multipliers", packed_bytes(count, spec.multiplier_bits))
    return unpack_bits(raw, spec.multiplier_bits, count).reshape(spec.rows, spec.groups)


def section(packed: PackedTensor, name: str, nbytes: int) -> NDArray[np.uint8]:
    """Return a section of so many bytes; raises LayoutError."""
    part = packed.sections.get(name)
    if part is None or part.nbytes != nbytes:
        found = "absent" if part is None else f"{part.nbytes} bytes"
        raise LayoutError(f"layout {packed.layout.name}: section {name!r} must have {nbytes} bytes, is {found}")
    return np.ascontiguousarray(part)


# centred values <-> codes


def zero_codes(spec: TensorSpec, zero_points: NDArray[np.int16] | None) -> NDArray[np.int16]:
    """int16[out, in]: the code that contributes nothing."""
    if zero_points is None:
        return np.zeros((spec.rows, spec.columns), np.int16)
    return np.repeat(zero_points, spec.group_size, axis=1)[:, : spec.columns]


def filled_codes(tensor: QuantTensor) -> NDArray[np.int16]:
    """Codes with the zero code where nothing is stored."""
    if tensor.mask is None:
        return tensor.codes
    return np.where(tensor.mask, tensor.codes, zero_codes(tensor.spec, tensor.zero_points))


def centred_s8(tensor: QuantTensor, layout: Layout) -> NDArray[np.int8]:
    """int8[out, in]: value(code) - zero_point; raises LayoutError where it leaves s8."""
    if tensor.format.decode_table().wide:
        raise LayoutError(f"layout {layout.name}: values of {tensor.format.name} need more than 8 bits, not s8")
    values = tensor.centred()
    if values.size and (values.min() < -128 or values.max() > 127):
        raise LayoutError(
            f"layout {layout.name}: centred values of {tensor.format.name} span {values.min()}..{values.max()}, not s8"
        )
    return values.astype(np.int8)


def codes_of_centred(
    spec: TensorSpec, values: NDArray[np.int8], zero_points: NDArray[np.int16] | None
) -> NDArray[np.int16]:
    """int16[out, in]: undo `centred_s8`."""
    if isinstance(spec.format, IntFormat):
        return values.astype(np.int16) + zero_codes(spec, zero_points)
    table = spec.format.fixed_point().values
    order = np.argsort(table, kind="stable")
    found = order[np.searchsorted(table[order], values.astype(np.int64))]
    return spec.format.from_pattern(found.astype(np.uint16)).astype(np.int16)


# slots: the stored weights of each block of m inputs, in ascending position


def slots_of(
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


def gather(values: NDArray[Any], positions: NDArray[np.intp], used: NDArray[np.bool_], block: int) -> NDArray[Any]:
    """Return the values at `slots_of` positions, [out, blocks, slots]; 0 in free slots."""
    blocks = values.reshape(values.shape[0], -1, block)
    return np.where(used, np.take_along_axis(blocks, positions, axis=2), 0)
