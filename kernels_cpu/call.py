"""A product with its buffers: what is checked once and then called any number of times."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.kernels_cpu.panels import aligned_empty, aligned_zeros, interleaved, misaligned
from sparsefab.kernels_cpu.threads import run_threaded

__all__ = ["Call", "check_array", "padded_scales"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """A product with its buffers, checked: what a plan keeps of a layer. Made by `Product.bind`.

    Attributes
    ----------
    kernel : compiled function   With the signature that `layer` describes.
    layer : LAYER[1 or threads]    Its record.
    by_panel : bool              A panel's rows must all be done by one thread, in order.
    unit : int                   Groups that the kernel does together.
    held : tuple                 What else must stay alive.
    """

    kernel: Any
    layer: NDArray[np.void]
    activations: NDArray[np.uint8]
    out: NDArray[Any]
    scales: NDArray[np.float32]
    groups: int
    by_panel: bool
    unit: int
    threads: int
    unordered: NDArray[Any] | None
    held: tuple[Any, ...]

    def __call__(self) -> None:
        """Multiply what is in the buffers now."""
        out = self.out if self.unordered is None else self.unordered
        if self.threads == 1:
            panels = len(self.activations)
            self.kernel(self.layer, self.activations, out, self.scales, 0, 0, panels, 0, self.groups)
        else:
            run_threaded(
                self.kernel,
                self.threads,
                self.layer,
                self.activations,
                out,
                self.scales,
                self.groups,
                by_panel=self.by_panel,
                unit=self.unit,
            )
        if self.unordered is not None:
            interleaved(self.unordered, out=self.out)


def padded_scales(scales: NDArray[np.float32] | None, panels: int, width: int) -> NDArray[np.float32]:
    """Return a whole, aligned buffer of scales: the one given if it is that, else a copy."""
    tokens = panels * width
    if scales is None:
        result = aligned_empty((tokens,), np.float32)
        result.fill(1)
        return result
    if scales.dtype != np.float32 or scales.ndim != 1 or not tokens - width < scales.size <= tokens:
        raise ValueError(
            f"token_scales must be float32 with one element a token, {tokens} at most, not {scales.dtype} of "
            f"{scales.shape}"
        )
    if not np.isfinite(scales).all():
        raise ValueError("token_scales must be finite")
    if scales.size == tokens and scales.flags.c_contiguous and not misaligned(scales):
        return scales
    result = aligned_zeros((tokens,), np.float32)
    result[: scales.size] = scales
    return result


def check_array(name: str, array: NDArray[Any], dtype: Any, shape: tuple[int, ...] | int) -> None:
    """Check type, axes or shape, order and alignment; an array of a given shape is written to."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        raise TypeError(
            f"{name} must be an array of {np.dtype(dtype)}, not {getattr(array, 'dtype', type(array).__name__)}"
        )
    axes = shape if isinstance(shape, int) else len(shape)
    if array.ndim != axes or not array.flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous with {axes} axes, not {array.shape}")
    if not isinstance(shape, int) and (array.shape != shape or not array.flags.writeable):
        raise ValueError(f"{name} must be writable, of shape {list(shape)}, not {list(array.shape)}")
    if array.size and misaligned(array):
        raise ValueError(f"{name} must start on a 64-byte boundary; make it with aligned_empty or panels_of")
