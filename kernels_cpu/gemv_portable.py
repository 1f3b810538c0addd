"""4-bit group-quantized weights times s8 activations in plain loops with 64-bit sums: any processor, any range."""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

import numpy as np

from sparsefab.kernels_cpu.kernel import kernel, piece

__all__ = ["gemv"]


@functools.cache
def gemv(*, asymmetric: bool, output: str) -> Any:
    """Return the compiled kernel; its arguments are those of `gemv_vnni.gemv`, s32 results wrap."""
    return _assemble(_each if asymmetric else _one, _reals if output == "f32" else _sums)


def _assemble(zero_of: Any, finish: Any) -> Any:
    @kernel
    def gemv_portable(values, multipliers, zeros, codes, sums, row_scales, token_scales, out, group_units, first, last):
        units, groups = values.shape[1], multipliers.shape[1]
        for block in range(first, last):
            for token in range(codes.shape[0]):
                for r in range(16):
                    acc = np.int64(0)
                    for group in range(groups):
                        partial = np.int64(0)
                        for unit in range(group * group_units, min((group + 1) * group_units, units)):
                            for k in range(4):
                                byte = np.int64(values[block, unit, 4 * r + k])
                                partial += (byte & 15) * codes[token, 8 * unit + k]
                                partial += (byte >> 4) * codes[token, 8 * unit + 4 + k]
                        zero = np.int64(zero_of(zeros, block, group, r))
                        partial -= zero * sums[token, group]
                        acc += np.int64(multipliers[block, group, r]) * partial
                    row = 16 * block + r
                    out[token, row] = finish(acc, row_scales[row], token_scales[token])

    return gemv_portable


@piece
def _each(zeros, block, group, r):
    return zeros[block, group, r]


@piece
def _one(zeros, block, group, r):
    return zeros[0]


@piece
def _sums(acc, row_scale, token_scale):
    return acc


@piece
def _reals(acc, row_scale, token_scale):
    return np.float32(np.float32(acc) * row_scale) * token_scale
