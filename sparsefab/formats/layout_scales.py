"""The sections that every layout ends with: the bytes of scales."""

from sparsefab.formats.bits import packed_bytes
from sparsefab.formats.mx import BlockFormat
from sparsefab.formats.tensors import ROW_SCALE_BYTES, TensorSpec

__all__ = ["scale_sections"]


def scale_sections(spec: TensorSpec) -> dict[str, int]:
    """Bytes of multipliers, zero points and row scales, or of what a block format has in their place."""
    sections: dict[str, int] = {}
    if isinstance(spec.format, BlockFormat):
        return {"block_scales": spec.rows * spec.groups, **_outer_sections(spec.rows, spec.format)}
    if spec.group_size < spec.columns:
        sections["multipliers"] = packed_bytes(spec.rows * spec.groups, spec.multiplier_bits)
    if spec.asymmetric:
        sections["zero_points"] = packed_bytes(spec.rows * spec.groups, spec.format.bits)
    sections["row_scales"] = spec.rows * ROW_SCALE_BYTES
    return sections


def _outer_sections(rows: int, fmt: BlockFormat) -> dict[str, int]:
    """Bytes of what stands above block scales."""
    if fmt.is_mx:
        return {"row_exponents": rows}
    return {"row_scales": rows * ROW_SCALE_BYTES} if fmt.row_scales else {"tensor_scale": ROW_SCALE_BYTES}
