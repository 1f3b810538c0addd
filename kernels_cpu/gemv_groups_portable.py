"""Group-sparse weights times s8 activations in plain loops with 64-bit sums: any processor, any range."""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

import numpy as np

from sparsefab.kernels_cpu.kernel import kernel, piece

__all__ = ["gemv"]


@functools.cache
def gemv(*, bits: int, width: int, asymmetric: bool, output: str) -> Any:
    """Return the compiled kernel; its arguments are those of `gemv_groups.gemv`, s32 results wrap."""
    finish = _reals if output == "f32" else _sums
    return _assemble(_of_4 if bits == 4 else _of_8, width, 1 if asymmetric else 0, finish)


def _assemble(code: Any, width: int, zero_step: int, finish: Any) -> Any:
    @kernel
    def gemv_groups_portable(
        codes, groups, multipliers, zeros, pointers, offsets, row_scales, tables, x, sums, start, token_scales, out,
        first, last,
    ):  # fmt: skip
        side = x.shape[2]
        for row in range(16 * first, min(16 * last, len(pointers) - 1)):
            for token in range(len(out)):
                acc = np.int64(start[token, row])
                for kept in range(np.int64(pointers[row]), np.int64(pointers[row + 1])):
                    partial, zero = np.int64(0), np.int64(zeros[kept * zero_step])
                    for k in range(width):
                        unit, i = divmod(np.int64(groups[kept]) * width + k, 16)
                        activation = np.int64(x[token // side, unit, token % side, i]) - 128
                        partial += (code(codes, kept * width + k) - zero) * activation
                    acc += np.int64(multipliers[kept]) * partial
                out[token, row] = finish(acc, row_scales[row], token_scales[token])

    return gemv_groups_portable


@piece
def _of_4(codes, place):
    return np.int64(codes[place // 2] >> 4 * (place % 2)) & 15


@piece
def _of_8(codes, place):
    return np.int64(codes[place])


@piece
def _reals(acc, row_scale, token_scale):
    return np.float32(np.float32(acc) * row_scale) * token_scale


@piece
def _sums(acc, row_scale, token_scale):
    return acc
