"""The linear layers of a decoder: layers that read the same codes in one product, for one token or a bucket of them.

Weights with one scale a row run on the block kernels, with group scales on the products of few tokens (`layer_weights`
says in which form); both take s8 codes with a scale a token and give float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError, ModelError
from sparsefab.formats import BlockFormat, IntFormat, QuantTensor
from sparsefab.kernels_cpu.gemv import MatrixVector, VectorCall
from sparsefab.kernels_cpu.layer_weights import block_weights, takes_vector, vector_product
from sparsefab.kernels_cpu.panels import aligned_zeros, fill_interleaved, fill_rows, interleaved, panels_of
from sparsefab.kernels_cpu.spmm import Call, Product, Reals
from sparsefab.models.compress import CompressedModel

__all__ = ["Linears", "Shared"]

Floats = NDArray[np.float32]


class Shared:
    """Buffers of the layers of one plan, by purpose and shape: what a layer leaves is read before another writes."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, tuple[int, ...]], NDArray[Any]] = {}

    def array(self, purpose: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return the buffer, made of zeros when it is first asked for."""
        found = self._arrays.get((purpose, shape))
        if found is None:
            found = self._arrays[purpose, shape] = aligned_zeros(shape, dtype)
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return sum(array.nbytes for array in self._arrays.values())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Bucket:
    """The call for some panels of a width, on shared buffers; plain: its activations are not interleaved."""

    call: Call
    scales: Floats
    plain: bool


class Linears:
    """Some layers of one input, their results side by side.

    Parameters
    ----------
    compressed : CompressedModel
    names : layers               Of one format, group size and kind of scales.
    threads : int                For large products.
    shared : Shared              Buffers of the plan; the results of several tokens are one of them.

    Raises
    ------
    ModelError                   If a layer stays in float32, or its activations are no s8 with a scale a token.
    LayoutError                  If no kernel holds the weights.
    """

    def __init__(self, compressed: CompressedModel, names: Sequence[str], *, threads: int, shared: Shared) -> None:
        for name in names:
            _check(compressed, name)
        tensor = _stacked([compressed.layers[name].tensor for name in names])
        biases = [compressed.model.bias(name) for name in names]
        rows = [len(compressed.layers[name].tensor.codes) for name in names]
        self._bias: Floats | None = None
        if any(bias is not None for bias in biases):
            parts = [np.zeros(count, np.float32) if b is None else b for b, count in zip(biases, rows, strict=True)]
            self._bias = np.concatenate(parts)
        self.rows, self.columns = tensor.shape
        self._threads, self._shared = threads, shared
        self._blocks: Product | None = None
        self._vector: MatrixVector | None = None
        if takes_vector(tensor):
            self._vector = vector_product(tensor)
            self.name, self.nbytes = self._vector.name, self._vector.nbytes
        else:
            weights = block_weights(tensor)
            self._blocks = Product(weights, Reals(row_scales=tensor.accumulator_scale), zero_point=128)
            self.name, self.nbytes = f"{weights.name}, {self._blocks.level.value}", weights.nbytes
        self._one: tuple[NDArray[np.uint8], Call] | None = None
        self._buckets: dict[tuple[int, int], _Bucket] = {}
        self._single: tuple[tuple[int, int], VectorCall] | None = None

    @property
    def offset(self) -> int:
        """What is added to each code on the way in."""
        return 0 if self._blocks is None else 128

    def run(self, codes: NDArray[np.uint8], scales: Floats) -> Floats:
        """Multiply.

        Parameters
        ----------
        codes : uint8[tokens, columns]       Codes plus `offset`; a buffer that stays the same for single tokens.
        scales : float32[tokens]

        Returns
        -------
        float32[tokens, rows]                May be a buffer that the next call writes to.
        """
        if self._vector is not None:
            result = self._by_vector(self._vector, codes.view(np.int8), scales)
        elif self._blocks is not None:
            result = self._by_blocks(self._blocks, codes, scales)
        return result if self._bias is None else result + self._bias

    def _by_vector(self, product: MatrixVector, codes: NDArray[np.int8], scales: Floats) -> Floats:
        """Multiply; the call for one token is made once for the buffers that codes and scales come in."""
        if len(codes) > 1:
            many: Floats = product.run(codes, scales, threads=self._threads)
            return many
        places = codes.ctypes.data, scales.ctypes.data
        if self._single is None or self._single[0] != places:
            self._single = places, product.bind(codes, scales, threads=self._threads)
        self._single[1]()
        return self._single[1].out

    def _by_blocks(self, product: Product, codes: NDArray[np.uint8], scales: Floats) -> Floats:
        aligned, width = product.weights.aligned, product.width(len(codes))
        if len(codes) == 1 and width == 1 and not (aligned and self.columns % 4):
            call = self._bound(product, codes, scales)
            call()
            rows: Floats = call.out.reshape(1, -1)[:, : self.rows]
            return rows
        bucket = self._bucket(product, -(-len(codes) // width), width)
        bucket.scales[: len(codes)] = scales
        if bucket.plain:
            panels_of(codes, width=width, out=bucket.call.activations)
        elif self.columns % 4:
            interleaved(panels_of(codes, width=width), out=bucket.call.activations)
        else:
            fill_interleaved(codes, bucket.call.activations)
        bucket.call()
        whole = self._shared.array("rows", (bucket.scales.size, self.rows), np.float32)
        wide: Floats = whole[: len(codes)]
        fill_rows(bucket.call.out, wide)
        return wide

    def _bucket(self, product: Product, panels: int, width: int) -> _Bucket:
        """The call for so many panels, made once on the plan's buffers."""
        found = self._buckets.get((panels, width))
        if found is None:
            plain = not product.weights.aligned
            lines = (self.columns, width) if plain else (-(-self.columns // 4), 4 * width)
            activations = self._shared.array("activations", (panels, *lines), np.uint8)
            scales = self._shared.array("scales", (panels * width,), np.float32)
            out = self._shared.array("results", (panels, product.padded_rows, width), np.float32)
            call = product.bind(activations, token_scales=scales, out=out, threads=self._threads)
            found = self._buckets[panels, width] = _Bucket(call=call, scales=scales, plain=plain)
        return found

    def _bound(self, product: Product, codes: NDArray[np.uint8], scales: Floats) -> Call:
        """The call for one token, made once for the buffers that codes and scales come in."""
        if self._one is None or self._one[0].ctypes.data != codes.ctypes.data:
            shape = (1, self.columns // 4, 4) if product.weights.aligned else (1, self.columns, 1)
            call = product.bind(codes.reshape(shape), token_scales=scales, threads=self._threads)
            if call.scales is not scales:
                raise ValueError("scales must be float32[1] on a 64-byte boundary, which is read anew at each call")
            self._one = codes, call
        return self._one[1]


def _check(compressed: CompressedModel, name: str) -> None:
    layer = compressed.layers.get(name)
    if layer is None:
        raise ModelError(f"layer {name} stays in float32; a compiled decoder needs all its layers quantized")
    fmt = layer.activations
    if not (layer.dynamic and isinstance(fmt, IntFormat) and fmt.signed and fmt.bits == 8):
        raise ModelError(
            f"layer {name} reads {fmt.name} activations; a compiled decoder needs int8 with a scale a token"
        )
    if isinstance(layer.tensor.format, BlockFormat) or not isinstance(layer.tensor.format, IntFormat):
        raise LayoutError(f"layer {name}: weights in {layer.tensor.format.name} are no integers with a scale a row")


def _stacked(tensors: Sequence[QuantTensor]) -> QuantTensor:
    """Matrices one below the other."""
    first = tensors[0]
    if len(tensors) == 1:
        return first
    for other in tensors[1:]:
        alike = (other.format, other.group_size, other.pattern) == (first.format, first.group_size, first.pattern)
        if not alike or (other.group_multipliers is None) != (first.group_multipliers is None):
            raise LayoutError("layers that read one input have different formats or patterns")
    if any(len(tensor.codes) % 16 for tensor in tensors):
        raise LayoutError("layers that read one input must have multiples of 16 rows")

    if any((tensor.zero_points is None) != (first.zero_points is None) for tensor in tensors):
        raise LayoutError("of layers that read one input, some have zero points")
    masked = any(tensor.mask is not None for tensor in tensors)
    grouped, shifted = first.group_multipliers is not None, first.zero_points is not None
    return replace(
        first,
        codes=np.concatenate([tensor.codes for tensor in tensors]),
        row_scales=np.concatenate([tensor.row_scales for tensor in tensors]),
        group_multipliers=_joined([tensor.group_multipliers for tensor in tensors]) if grouped else None,
        zero_points=_joined([tensor.zero_points for tensor in tensors]) if shifted else None,
        mask=np.concatenate([tensor.stored_mask for tensor in tensors]) if masked else None,
        outliers=_outliers(tensors),
    )


def _outliers(tensors: Sequence[QuantTensor]) -> NDArray[np.int16] | None:
    if all(tensor.outliers is None for tensor in tensors):
        return None
    parts = [np.zeros(each.shape, np.int16) if each.outliers is None else each.outliers for each in tensors]
    return np.concatenate(parts)


def _joined(parts: Sequence[Any]) -> NDArray[Any]:
    return np.concatenate(parts)
