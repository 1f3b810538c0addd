"""Well-known models by shape alone: no weights, no download; enough for every cost model.

A file gives the dimensions of a decoder or encoder, or the layers of a CNN; `load_workload` spells the layers out.
"""

from sparsefab.workloads.catalog import WORKLOADS, load_workload, workload_names
from sparsefab.workloads.shapes import CnnShape, ConvolutionShape, Experts, ModelShape, TransformerShape, expand

__all__ = [
    "WORKLOADS", "CnnShape", "ConvolutionShape", "Experts", "ModelShape", "TransformerShape", "expand", "load_workload",
    "workload_names",
]  # fmt: skip
