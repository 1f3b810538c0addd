"""Block-sparse binary16 products: the public door, which checks everything before a pointer is touched.

product = HalfProduct(pack_half(weights, stored), bias=bias)          # float16[out, in], 4x1 blocks
results = product.run(half_panels(x))                                 # float32[panels, rows, 128]

The arithmetic is that of `sim.reference.half`: binary16 sums over 64 stored inputs, those added up in binary32.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.formats.halves import Half4x1
from sparsefab.kernels_cpu import half_native, half_portable
from sparsefab.kernels_cpu.call import check_array
from sparsefab.kernels_cpu.features import effective_features
from sparsefab.kernels_cpu.panels import aligned_empty, aligned_zeros
from sparsefab.kernels_cpu.threads import check_threads, run_blocks

__all__ = ["HALF_TOKENS", "HalfProduct", "half_panels", "half_rows", "native_halves"]

HALF_TOKENS = 128  # a panel


def native_halves() -> bool:
    """Say whether binary16 products have instructions here: AVX512-FP16."""
    return {"avx512fp16", "avx512bw", "avx512vl"} <= effective_features()


class HalfProduct:
    """A layer ready to run.

    Parameters
    ----------
    weights : Half4x1            The matrix.
    bias : float32[rows] | None  What each sum starts with; None is 0.
    native : bool | None         AVX512-FP16, or plain loops with every rounding written out, the same to the bit and
                                 some hundred times slower; None takes the former where it runs.

    Raises
    ------
    ValueError                   If the bias does not fit, or the processor lacks what `native` asks for.
    """

    def __init__(
        self, weights: Half4x1, *, bias: NDArray[np.float32] | None = None, native: bool | None = None
    ) -> None:
        if native and not native_halves():
            raise ValueError("native binary16 products need a processor with AVX512-FP16")
        self.weights = weights
        self.native = native_halves() if native is None else native
        self._bias = aligned_zeros((4 * self._groups,), np.float32)
        if bias is not None:
            if bias.dtype != np.float32 or bias.shape != (weights.rows,):
                raise ValueError(f"bias must be float32 of shape {(weights.rows,)}, not {bias.dtype} of {bias.shape}")
            self._bias[: weights.rows] = bias
        self._kernel = half_native.spmm() if self.native else half_portable.spmm()

    @property
    def _groups(self) -> int:
        return -(-self.weights.rows // 4)

    def run(
        self, activations: NDArray[np.float16], *, out: NDArray[np.float32] | None = None, threads: int = 1
    ) -> NDArray[np.float32]:
        """Multiply.

        Parameters
        ----------
        activations : float16[panels, inputs, 128]          From `half_panels`; inputs >= columns.
        out : float32[panels, padded rows, 128] | None      Buffer from `aligned_empty`; rows in whole groups of four.
        threads : int                                       At most `available_threads()`.

        Raises
        ------
        TypeError, ValueError    If an array's type, shape, order or alignment does not fit; nothing is written then.
        """
        if not isinstance(activations, np.ndarray) or activations.dtype != np.float16:
            found = getattr(activations, "dtype", type(activations).__name__)
            raise TypeError(f"activations must be an array of float16, not {found}")
        bits = activations.view(np.uint16)  # Numba has no binary16
        check_array("activations", bits, np.uint16, 3)
        panels, inputs, width = activations.shape
        if width != HALF_TOKENS or inputs < self.weights.columns:
            raise ValueError(
                f"activations must be [panels, {self.weights.columns} or more, {HALF_TOKENS}], "
                f"not {list(activations.shape)}"
            )
        check_threads(threads)
        shape = (panels, 4 * self._groups, HALF_TOKENS)
        if out is None:
            out = aligned_empty(shape, np.float32)
        else:
            check_array("out", out, np.float32, shape)
            if np.may_share_memory(out, activations):
                raise ValueError("out must not overlap activations")
        weights = self.weights
        arguments: tuple[Any, ...] = (
            weights.pointers, weights.offsets, weights.values, self._bias, bits, out,
        )  # fmt: skip
        if threads == 1:
            self._kernel(*arguments, 0, self._groups)
        else:
            run_blocks(self._kernel, threads, self._groups, arguments)
        return out


def half_panels(x: NDArray[np.float16]) -> NDArray[np.float16]:
    """Return activations float16[tokens, inputs] as panels [ceil(tokens / 128), inputs, 128], filled up with zeros."""
    if x.dtype != np.float16 or x.ndim != 2:
        raise TypeError(f"activations must be float16[tokens, inputs], not {x.dtype} with {x.ndim} axes")
    tokens, inputs = x.shape
    panels = -(-tokens // HALF_TOKENS)
    result: NDArray[np.float16] = aligned_zeros((panels, inputs, HALF_TOKENS), np.float16)
    padded = np.zeros((panels * HALF_TOKENS, inputs), np.float16)
    padded[:tokens] = x
    result[:] = padded.reshape(panels, HALF_TOKENS, inputs).transpose(0, 2, 1)
    return result


def half_rows(panels: NDArray[np.float32], *, tokens: int, outputs: int) -> NDArray[np.float32]:
    """Return results [panels, rows, 128] as a new array [tokens, outputs]."""
    rows = panels.transpose(0, 2, 1).reshape(-1, panels.shape[1])
    return np.ascontiguousarray(rows[:tokens, :outputs])
