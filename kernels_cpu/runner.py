"""A compressed model's layers on the CPU kernels: the runner that `sparsefab.models.execute` calls.

    runner = KernelRunner(compressed, threads=2)
    outputs = execute(compressed.model, feeds, runner=runner)
    runner.kernels                                # which kernel each layer runs on, or why on none

The results are those of `sparsefab.models.evaluate.BitTrueRunner`, to the bit; a layer that no kernel serves (weights
beyond 8 bits, activations that are no 8-bit integers, grouped convolutions) is left to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats import BlockFormat, IntFormat, Requantizer
from sparsefab.kernels_cpu.gemv import MatrixVector
from sparsefab.kernels_cpu.layer_weights import block_weights, takes_vector, vector_product
from sparsefab.kernels_cpu.panels import interleaved as interleave
from sparsefab.kernels_cpu.panels import panels_of, rows_of
from sparsefab.kernels_cpu.spmm import Codes, Product, Reals
from sparsefab.kernels_cpu.threads import check_threads
from sparsefab.models.compress import CompressedLayer, CompressedModel
from sparsefab.models.evaluate.runner import BitTrueRunner, OutputCodes, output_codes, quantize_input, static_bias
from sparsefab.models.operators.attributes import integer

__all__ = ["KernelRunner"]

Floats = NDArray[np.float32]

# Products of fewer multiplications, some 0.1 ms, are done before a team of threads has met.
_THREADED_MACS = 1 << 24


class KernelRunner:
    """Run the layers of a compressed model on kernels.

    Parameters
    ----------
    compressed : CompressedModel              Calibrated where activations are static.
    threads : int                             At most `available_threads()`; small products take one.

    Raises
    ------
    ModelError                                If a static scale is missing.
    """

    adds_bias = True

    def __init__(self, compressed: CompressedModel, *, threads: int = 1) -> None:
        check_threads(threads)
        self._exact = BitTrueRunner(compressed)
        self._threads = threads
        codes = output_codes(compressed)
        nodes = compressed.model.graph.layer_nodes()
        self._plans: dict[str, _BlockPlan | _VectorPlan] = {}
        self._kernels: dict[str, str] = {}
        for name, layer in compressed.layers.items():
            try:
                if integer(nodes[name].attributes, "group", 1) > 1:
                    raise LayoutError("no kernel for convolutions with groups")
                plan = _plan(layer, compressed.model.bias(name), codes.get(name))
            except LayoutError as error:
                self._kernels[name] = f"none: {error}"
            else:
                self._plans[name] = plan
                self._kernels[name] = plan.name

    @property
    def kernels(self) -> Mapping[str, str]:
        """The kernel of each layer, or 'none: ' and the reason."""
        return self._kernels

    @property
    def output_codes(self) -> Mapping[str, OutputCodes]:
        """The layers whose output leaves as codes."""
        return self._exact.output_codes

    def __call__(self, layer: str, x: Floats, /) -> Floats | None:
        plan = self._plans.get(layer)
        if plan is None:
            return self._exact(layer, x)
        rows, columns = plan.layer.tensor.shape
        return plan.run(x, self._threads if rows * columns * len(x) >= _THREADED_MACS else 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _BlockPlan:
    """A layer on the block kernels."""

    layer: CompressedLayer
    product: Product
    bias: Floats | None  # added to dynamic results; static ones have it in their sums
    codes_out: OutputCodes | None

    @property
    def name(self) -> str:
        return f"{self.product.weights.name}, {self.product.level.value}"

    def run(self, x: Floats, threads: int) -> Floats:
        codes = quantize_input(self.layer, x)
        stored = codes.integers + codes.zero_point
        signed = isinstance(self.layer.activations, IntFormat) and self.layer.activations.signed
        aligned = self.product.weights.aligned
        panels = panels_of(stored.astype(np.int8 if signed else np.uint8), width=self.product.width(len(x)))
        scales = codes.token_scales if self.codes_out is None else None
        result = self.product.run(interleave(panels) if aligned else panels, token_scales=scales, threads=threads)
        rows = rows_of(result, tokens=len(x), outputs=self.product.weights.rows)
        if self.codes_out is not None:
            static = self.codes_out.static
            return (rows.astype(np.int32) - static.zero_point).astype(np.float32) * np.float32(static.scale)
        return rows if self.bias is None else rows + self.bias


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _VectorPlan:
    """A layer with group scales on the matrix-vector kernel."""

    layer: CompressedLayer
    product: MatrixVector
    bias: Floats | None

    @property
    def name(self) -> str:
        return self.product.name

    def run(self, x: Floats, threads: int) -> Floats:
        codes = quantize_input(self.layer, x)
        rows: Floats = self.product.run(codes.integers.astype(np.int8), codes.token_scales, threads=threads)
        return rows if self.bias is None else rows + self.bias


def _plan(layer: CompressedLayer, bias: Floats | None, codes_out: OutputCodes | None) -> _BlockPlan | _VectorPlan:
    tensor, activations = layer.tensor, layer.activations
    if not isinstance(activations, IntFormat) or activations.bits > 8:
        raise LayoutError(f"activations in {activations.name} are no 8-bit integers")
    if isinstance(tensor.format, BlockFormat):
        raise LayoutError(f"weights in {tensor.format.name} have a scale a block")
    scale = tensor.accumulator_scale
    if takes_vector(tensor):
        if not (layer.dynamic and activations.signed):
            raise LayoutError("group scales and outliers need signed activations with a scale a token")
        return _VectorPlan(layer=layer, product=vector_product(tensor), bias=bias)
    offset = 128 if activations.signed else 0
    zero_point = offset + (0 if layer.static is None else layer.static.zero_point)
    if layer.static is None or codes_out is None:
        epilogue: Reals | Codes = Reals(row_scales=scale)
    else:
        out = codes_out.static
        ratios = scale.astype(np.float64) * layer.static.scale / out.scale
        lowest = out.zero_point if codes_out.relu else codes_out.format.code_min
        constants = Requantizer.of(ratios, out.zero_point, lowest, codes_out.format.code_max)
        epilogue = Codes(requantizer=constants, signed=codes_out.format.signed)
    product = Product(block_weights(tensor), epilogue, bias=static_bias(layer, bias), zero_point=zero_point)
    return _BlockPlan(
        layer=layer,
        product=product,
        bias=bias if layer.static is None else None,
        codes_out=None if layer.static is None else codes_out,
    )
