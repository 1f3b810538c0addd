"""Which form of a compressed matrix is the fastest on a CPU: the one rule that runners and decoders share."""

import numpy as np

from sparsefab.errors import LayoutError
from sparsefab.formats import NM, GroupRows, Lanes16, Layout, QuantTensor, TensorSpec, Vnni4x1, Vnni4x4, VnniNM, pack
from sparsefab.kernels_cpu.gemv import GroupWeights, LaneWeights, MatrixVector, OutlierWeights
from sparsefab.kernels_cpu.spmm import BlockWeights, MaskedWeights

__all__ = ["block_weights", "takes_vector", "vector_product"]

# Above this share of inputs that any of four rows keeps, whole 4x4 blocks without a shuffle are the faster ones.
_GATHER_DENSITY = 0.7
# Up to this share of N:M, what single tokens gain by fewer bytes is more than what many lose by expanding them.
_MASKED_DENSITY = 0.5


def block_weights(tensor: QuantTensor) -> BlockWeights | MaskedWeights:
    """Return a compressed matrix with one scale a row as N:M, or as 4x1 or aligned 4x4 blocks, whichever is faster.

    Raises
    ------
    LayoutError                  If it has group scales or outliers, or centred values beyond s8.
    """
    if takes_vector(tensor):
        raise LayoutError("block kernels hold one scale a row, not group multipliers or outliers")
    if isinstance(tensor.pattern, NM) and tensor.pattern.n / tensor.pattern.m <= _MASKED_DENSITY:
        return MaskedWeights.from_packed(pack(tensor, VnniNM()))
    rows, columns = tensor.shape
    shape = (-(-rows // 4), 4, -(-columns // 4), 4)
    stored = np.zeros((shape[0] * 4, shape[2] * 4), np.bool_)
    stored[:rows, :columns] = tensor.stored_mask
    groups = stored.reshape(shape)
    gathered = np.any(groups, axis=1).mean() < _GATHER_DENSITY * np.any(groups, axis=(1, 3)).mean()
    return BlockWeights.from_packed(pack(tensor, Vnni4x1() if gathered else Vnni4x4()))


def takes_vector(tensor: QuantTensor) -> bool:
    """Say whether a matrix runs on the products of few tokens: group scales and outliers have no others."""
    return tensor.group_multipliers is not None or tensor.outliers is not None


def vector_product(tensor: QuantTensor) -> MatrixVector:
    """Return the product of a matrix and its outliers, in reals, of kept groups alone where these are fewer bytes.

    Raises
    ------
    LayoutError                  If no layout of the kernels for few tokens holds it.
    """
    spec = tensor.spec
    lanes, groups = Lanes16.of(spec), GroupRows.of(spec)
    weights: LaneWeights | GroupWeights
    centred_s8 = not (spec.asymmetric and spec.format.bits == 8)
    if centred_s8 and groups.holds(spec) and _nbytes(groups, spec) < _nbytes(lanes, spec):
        weights = GroupWeights.from_packed(packed := pack(tensor, groups))
    else:
        weights = LaneWeights.from_packed(packed := pack(tensor, lanes))
    outliers = OutlierWeights.from_packed(packed) if spec.outliers else None
    return MatrixVector(weights, outliers=outliers, row_scales=tensor.accumulator_scale)


def _nbytes(layout: Layout, spec: TensorSpec) -> int:
    return sum(layout.section_bytes(spec).values())
