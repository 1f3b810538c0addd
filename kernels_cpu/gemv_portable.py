"""Group-quantized weights times s8 activations in plain loops with 64-bit sums: any processor, any range."""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

import numpy as np

from sparsefab.kernels_cpu.codes import code_of
from sparsefab.kernels_cpu.kernel import kernel, piece

__all__ = ["gemv"]


@functools.cache
def gemv(*, bits: int, asymmetric: bool, output: str) -> Any:
    """Return the compiled kernel; its arguments are those of `gemv_lanes.gemv`, s32 results wrap."""
    return _assemble(code_of(bits), _each if asymmetric else _one, _reals if output == "f32" else _sums)


def _assemble(code: Any, settled: Any, finish: Any) -> Any:
    @kernel
    def gemv_portable(values, multipliers, zeros, row_scales, codes, shifts, start, token_scales, out, first, last):
        groups, parts = values.shape[1], values.shape[2]
        for block in range(first, last):
            for token in range(codes.shape[0]):
                for r in range(16):
                    row = 16 * block + r
                    acc = np.int64(start[token, row])
                    for group in range(groups):
                        partial = np.int64(0)
                        for part in range(parts):
                            for k in range(32):
                                x = codes[token, group, 32 * part + k]
                                partial += code(values[block, group, part], r, k) * x
                        partial = settled(partial, zeros, block, group, r, np.int64(shifts[token, group]))
                        acc += np.int64(multipliers[block, group, r]) * partial
                    out[token, row] = finish(acc, row_scales[row], token_scales[token])

    return gemv_portable


@piece
def _each(partial, zeros, block, group, r, shift):
    return partial + np.int64(zeros[block, group, r]) * shift


@piece
def _one(partial, zeros, block, group, r, shift):
    return partial + shift


@piece
def _sums(acc, row_scale, token_scale):
    return acc


@piece
def _reals(acc, row_scale, token_scale):
    return np.float32(np.float32(acc) * row_scale) * token_scale
