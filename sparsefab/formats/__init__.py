"""Number formats, sparsity patterns, layouts, and the packed tensor that every reader shares."""

from sparsefab.formats.activations import ActivationCodes, StaticScale, quantize_dynamic, quantize_static
from sparsefab.formats.catalog import CATALOG, SCALE_FORMATS, Format, get_format
from sparsefab.formats.decode import DecodeTable, FixedPoint
from sparsefab.formats.floats import FloatFormat
from sparsefab.formats.ints import IntFormat
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
    storage_layout,
)
from sparsefab.formats.mx import BlockFormat
from sparsefab.formats.packing import pack, unpack
from sparsefab.formats.packing_vnni import safe_pairs
from sparsefab.formats.requantize import Requantizer, requantize, requantize_scalar
from sparsefab.formats.scales import group_count, multiplier_loss, to_multipliers
from sparsefab.formats.sparsity import NM, Block, BlockN, Dense, Pattern, Unstructured, parse_pattern
from sparsefab.formats.tensors import PackedTensor, QuantTensor, TensorSpec

__all__ = [
    "CATALOG",
    "NM",
    "SCALE_FORMATS",
    "ActivationCodes",
    "Block",
    "BlockFormat",
    "BlockN",
    "BlockRows",
    "Chain",
    "ChainMemory",
    "ChainRows",
    "DecodeTable",
    "Dense",
    "FixedPoint",
    "FloatFormat",
    "Format",
    "GroupRows",
    "IntFormat",
    "Lanes16",
    "Layout",
    "PackedTensor",
    "Pattern",
    "QuantTensor",
    "Requantizer",
    "RowMajor",
    "Sparse",
    "SparseRows",
    "StaticScale",
    "TensorSpec",
    "Unstructured",
    "Vnni4x1",
    "Vnni4x4",
    "VnniNM",
    "get_format",
    "group_count",
    "multiplier_loss",
    "pack",
    "parse_pattern",
    "quantize_dynamic",
    "quantize_static",
    "requantize",
    "requantize_scalar",
    "safe_pairs",
    "storage_layout",
    "to_multipliers",
    "unpack",
]
