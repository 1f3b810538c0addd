"""The only packer: a compressed matrix to the bytes of a layout, and back.

`unpack(pack(t, layout)).integers()` equals `t.integers()` for every layout that accepts `t`; a test holds it over the
catalogue. Bytes that hold no positions (row-major, and the kernels' dense forms) give an absent weight back as a stored
zero.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats.layout import (
    BlockRows,
    Chain,
    ChainMemory,
    ChainRows,
    GroupRows,
    Lanes16,
    Layout,
    RowMajor,
    Sparse,
    SparseRows,
    Vnni4x1,
    Vnni4x4,
    VnniNM,
)
from sparsefab.formats.mx import BlockFormat
from sparsefab.formats.packing_chain import read_chain, write_chain
from sparsefab.formats.packing_groups import read_group_rows, read_group_rows_groups, write_group_rows
from sparsefab.formats.packing_lanes import read_lanes16, read_lanes16_groups, write_lanes16
from sparsefab.formats.packing_memory import read_chain_memory, read_chain_memory_zero_points, write_chain_memory
from sparsefab.formats.packing_outliers import pack_outliers, read_sparse_rows, unpack_outliers, write_sparse_rows
from sparsefab.formats.packing_parts import (
    Parts,
    Sections,
    pack_scales,
    section,
    unpack_blocks,
    unpack_groups,
    unpack_multipliers,
)
from sparsefab.formats.packing_rows import read_chain_rows, write_chain_rows
from sparsefab.formats.packing_storage import (
    read_block_rows,
    read_row_major,
    read_sparse,
    write_block_rows,
    write_row_major,
    write_sparse,
)
from sparsefab.formats.packing_vnni import (
    read_vnni4x1,
    read_vnni4x4,
    read_vnni_nm,
    write_vnni4x1,
    write_vnni4x4,
    write_vnni_nm,
)
from sparsefab.formats.sparsity import Dense, Pattern, Unstructured
from sparsefab.formats.tensors import PackedTensor, QuantTensor

__all__ = ["pack", "unpack"]


def pack(tensor: QuantTensor, layout: Layout) -> PackedTensor:
    """Write a compressed matrix in a layout.

    Raises
    ------
    LayoutError                     If the layout cannot hold the tensor's format, pattern, scales, range or outliers.
    """
    writer: Callable[[QuantTensor, Any], Sections] = _WRITERS[type(layout)]
    sections = writer(tensor, layout) | pack_scales(tensor, grouped=not isinstance(layout, Lanes16 | GroupRows))
    if isinstance(layout, ChainMemory):
        sections.pop("zero_points", None)  # they are in the pieces
    sections |= pack_outliers(tensor, layout)
    return PackedTensor(spec=tensor.spec, layout=layout, sections=sections)


def unpack(packed: PackedTensor) -> QuantTensor:
    """Read a compressed matrix back from its bytes alone.

    Raises
    ------
    LayoutError                     If a section's length does not match the header, or positions are impossible.
    """
    spec, layout = packed.spec, packed.layout
    if isinstance(layout, Lanes16):  # these in an order of its own, as has the next
        multipliers, zero_points = read_lanes16_groups(packed, layout)
    elif isinstance(layout, GroupRows):
        multipliers, zero_points = read_group_rows_groups(packed, layout)
    elif isinstance(layout, ChainMemory):
        multipliers, zero_points = unpack_multipliers(packed), read_chain_memory_zero_points(packed, layout)
    else:
        multipliers, zero_points = unpack_groups(packed)
    reader: Callable[[PackedTensor, Any, NDArray[np.int16] | None], Parts] = _READERS[type(layout)]
    codes, mask = reader(packed, layout, zero_points)
    if isinstance(spec.format, BlockFormat):
        block_scales, outer = unpack_blocks(packed, spec.format)
        pattern = Dense() if mask is None else _pattern_of(packed, mask)
        return QuantTensor.of_blocks(codes, spec.format, block_scales, outer, pattern, mask)
    return QuantTensor(
        codes=codes,
        format=spec.format,
        group_size=spec.group_size,
        pattern=Dense() if mask is None else _pattern_of(packed, mask),
        mask=mask,
        row_scales=section(packed, "row_scales", 4 * spec.rows).view(np.float32),
        group_multipliers=multipliers,
        zero_points=zero_points,
        outliers=unpack_outliers(packed),
    )


def _pattern_of(packed: PackedTensor, mask: NDArray[np.bool_]) -> Pattern:
    """The spec's pattern where the read mask obeys it (padding slots may hold zeros elsewhere)."""
    pattern = packed.spec.pattern
    return pattern if pattern.holds(mask) else Unstructured()


_WRITERS: dict[type, Callable[[QuantTensor, Any], Sections]] = {
    RowMajor: write_row_major,
    Sparse: write_sparse,
    BlockRows: write_block_rows,
    GroupRows: write_group_rows,
    Vnni4x1: write_vnni4x1,
    Vnni4x4: write_vnni4x4,
    VnniNM: write_vnni_nm,
    Lanes16: write_lanes16,
    SparseRows: write_sparse_rows,
    Chain: write_chain,
    ChainRows: write_chain_rows,
    ChainMemory: write_chain_memory,
}
_READERS: dict[type, Callable[[PackedTensor, Any, NDArray[np.int16] | None], Parts]] = {
    RowMajor: read_row_major,
    Sparse: read_sparse,
    BlockRows: read_block_rows,
    GroupRows: read_group_rows,
    Vnni4x1: read_vnni4x1,
    Vnni4x4: read_vnni4x4,
    VnniNM: read_vnni_nm,
    Lanes16: read_lanes16,
    SparseRows: read_sparse_rows,
    Chain: read_chain,
    ChainRows: read_chain_rows,
    ChainMemory: read_chain_memory,
}
