"""The sections that every layout ends with: the bytes of scales, and of outliers where there are any."""

from sparsefab.errors import LayoutError
from sparsefab.formats.bits import packed_bytes
from sparsefab.formats.mx import BlockFormat
from sparsefab.formats.tensors import ROW_SCALE_BYTES, TensorSpec

__all__ = ["outlier_sections", "scale_sections"]


def scale_sections(spec: TensorSpec) -> dict[str, int]:
    """Bytes of multipliers, zero points, row scales and outliers, or of what a block format has in their place."""
    sections: dict[str, int] = {}
    if isinstance(spec.format, BlockFormat):
        return {"block_scales": spec.rows * spec.groups, **_outer_sections(spec.rows, spec.format)}
    if spec.group_size < spec.columns:
        sections["multipliers"] = packed_bytes(spec.rows * spec.groups, spec.multiplier_bits)
    if spec.asymmetric:
        sections["zero_points"] = packed_bytes(spec.rows * spec.groups, spec.format.bits)
    sections["row_scales"] = spec.rows * ROW_SCALE_BYTES
    return sections | outlier_sections(spec)


def outlier_sections(spec: TensorSpec) -> dict[str, int]:
    """Bytes of outliers, row by row: int16 and its input as uint16 each, uint32 a row; nothing where there are none.

    Raises
    ------
    LayoutError                     If there are more than 65,536 inputs.
    """
    if not spec.outliers:
        return {}
    if spec.columns > 1 << 16:
        raise LayoutError(f"outliers of {spec.columns} inputs; at most 65,536 have an index of 16 bits")
    each = 2 * spec.outliers
    return {"outlier_codes": each, "outlier_inputs": each, "outlier_pointers": 4 * (spec.rows + 1)}


def _outer_sections(rows: int, fmt: BlockFormat) -> dict[str, int]:
    """Bytes of what stands above block scales."""
    if fmt.is_mx:
        return {"row_exponents": rows}
    return {"row_scales": rows * ROW_SCALE_BYTES} if fmt.row_scales else {"tensor_scale": ROW_SCALE_BYTES}
