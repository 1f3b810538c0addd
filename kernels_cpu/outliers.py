"""Outliers before a group-quantized product: a few weights of many bits a row, in what each sum starts with.

    for row, for token:                            the row's outliers come from memory once
      for outlier of the row:                      start += value s16 * activation s8, one byte of them read at a time

Some 1.5 cycles an outlier and token, 4 bytes each.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

import numpy as np

from sparsefab.kernels_cpu.kernel import kernel

__all__ = ["with_outliers"]


@functools.cache
def with_outliers(gemv: Any) -> Any:
    """Return the compiled kernel that adds up outliers, then calls a kernel of group-quantized weights.

    Returns
    -------
    kernel(pointers, inputs, outliers, tokens, start, *arguments)
        pointers uint32[rows + 1], inputs uint16[n], outliers int16[n], tokens int8[tokens, columns], start
        int32[tokens, M], written to; the arguments are those of `gemv`, `start` once more and the blocks among them.
    """

    @kernel
    def gemv_outliers(pointers, inputs, outliers, tokens, start, *arguments):
        first, last = arguments[-2], arguments[-1]
        for row in range(16 * first, min(16 * last, len(pointers) - 1)):
            begin, end = np.int64(pointers[row]), np.int64(pointers[row + 1])
            for token in range(tokens.shape[0]):
                total = np.int32(0)
                for i in range(begin, end):
                    total += np.int32(outliers[i]) * np.int32(tokens[token, inputs[i]])
                start[token, row] = total
        gemv(*arguments)

    return gemv_outliers
