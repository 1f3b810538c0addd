"""Block-sparse binary16 products in plain loops: any processor, every rounding written out."""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

import numpy as np

from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.sim.reference.half import HALF_RUN, half_fma

__all__ = ["spmm"]


@functools.cache
def spmm() -> Any:
    """Return the compiled kernel; its arguments are those of `half_native.spmm`."""

    @kernel
    def half_portable(pointers, offsets, values, bias, activations, out, first, last):
        for panel in range(activations.shape[0]):
            for group in range(first, last):
                for r in range(4):
                    row = 4 * group + r
                    for token in range(activations.shape[2]):
                        total = bias[row]
                        for begin in range(pointers[group], pointers[group + 1], HALF_RUN):
                            run = 0.0
                            for i in range(begin, min(begin + HALF_RUN, pointers[group + 1])):
                                x = activations[panel, offsets[i] >> 8, token]
                                run = half_fma(_half(values[i, r] & 0xFFFF), _half(x), run)
                            total = np.float32(total + np.float32(run))
                        out[panel, row, token] = total

    return half_portable


@piece
def _half(bits):
    """Return the number that 16 bits are."""
    wide = np.int64(bits)
    exponent, fraction = wide >> 10 & 31, float(wide & 1023)
    if exponent == 0:
        magnitude = fraction * 2.0**-24
    elif exponent == 31:
        magnitude = np.inf if fraction == 0.0 else np.nan
    else:
        magnitude = (fraction + 1024.0) * 2.0 ** (exponent - 25)
    return -magnitude if wide >> 15 else magnitude
