"""Single weights row by row with their inputs: a whole matrix (SparseRows), or outliers beside another layout."""

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats.layout import BlockRows, GroupRows, Lanes16, Layout, RowMajor, Sparse
from sparsefab.formats.layout_lanes import SparseRows
from sparsefab.formats.layout_scales import outlier_sections
from sparsefab.formats.packing_parts import Parts, Sections, section
from sparsefab.formats.tensors import PackedTensor, QuantTensor

__all__ = ["pack_outliers", "read_sparse_rows", "unpack_outliers", "write_sparse_rows"]

_HOLD_OUTLIERS = (RowMajor, Sparse, BlockRows, GroupRows, Lanes16)  # the others' readers add nothing up


def write_sparse_rows(tensor: QuantTensor, layout: SparseRows) -> Sections:
    sizes = layout.section_bytes(tensor.spec)  # refuses what does not fit
    sections = _rows_of(tensor.codes, tensor.stored_mask)
    assert all(part.nbytes == sizes[name] for name, part in sections.items())
    return sections


def read_sparse_rows(packed: PackedTensor, layout: SparseRows, zero_points: NDArray[np.int16] | None) -> Parts:
    return _matrix_of(packed, "", layout.section_bytes(packed.spec), packed.spec.stored)


def pack_outliers(tensor: QuantTensor, layout: Layout) -> Sections:
    """Write the outliers of a tensor, if it has any.

    Raises
    ------
    LayoutError                     If the layout holds none, or they have too many inputs.
    """
    if tensor.outliers is None or not outlier_sections(tensor.spec):
        return {}
    if not isinstance(layout, _HOLD_OUTLIERS):
        raise LayoutError(f"layout {layout.name} holds no outliers")
    return {f"outlier_{name}": part for name, part in _rows_of(tensor.outliers, tensor.outliers != 0).items()}


def unpack_outliers(packed: PackedTensor) -> NDArray[np.int16] | None:
    """Read outliers int16[out, in] back, None where there are none."""
    sizes = outlier_sections(packed.spec)
    return _matrix_of(packed, "outlier_", sizes, packed.spec.outliers)[0] if sizes else None


def _rows_of(codes: NDArray[np.int16], mask: NDArray[np.bool_]) -> Sections:
    pointers = np.concatenate([[0], mask.sum(axis=1).cumsum()]).astype(np.uint32)
    return {
        "codes": codes[mask].astype(np.int16).view(np.uint8),
        "inputs": np.nonzero(mask)[1].astype(np.uint16).view(np.uint8),
        "pointers": pointers.view(np.uint8),
    }


def _matrix_of(
    packed: PackedTensor, prefix: str, sizes: dict[str, int], count: int
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Codes and mask [out, in]; raises LayoutError where pointers or inputs make no sense."""
    spec = packed.spec

    def part(name: str) -> NDArray[np.uint8]:
        return section(packed, prefix + name, sizes[prefix + name])

    pointers, inputs = part("pointers").view(np.uint32).astype(np.int64), part("inputs").view(np.uint16)
    if pointers[0] != 0 or pointers[-1] != count or (np.diff(pointers) < 0).any():
        raise LayoutError(f"layout {packed.layout.name}: section '{prefix}pointers' must rise from 0 to {count}")
    if inputs.max(initial=0) >= spec.columns:
        raise LayoutError(
            f"layout {packed.layout.name}: section '{prefix}inputs' must be below {spec.columns}, not {inputs.max()}"
        )
    place = (np.repeat(np.arange(spec.rows), np.diff(pointers)), inputs)
    codes = np.zeros((spec.rows, spec.columns), np.int16)
    mask = np.zeros(codes.shape, np.bool_)
    codes[place] = part("codes").view(np.int16)
    mask[place] = True
    return codes, mask
