"""4-bit group-quantized weights times s8 activations, a few tokens at a time, on 512-bit registers.

    for block in M / 16:                           16 rows, one in each dword
      for token:                                   the block's weights come from memory once, then from the cache
        for group along the inputs:
          for 32 inputs of the group:              4 lines; low nibbles are inputs 0-3, high nibbles 4-7 of a line's 8
            8 x vpdpbusd                           nibbles u8 times four broadcast activations s8
          acc += multiplier * (low + high / 16 - zero_point * sum of activations)           vpmulld, exact in s32

High nibbles are multiplied where they lie, as multiples of 16, and the sum is shifted once a group.  Bound by memory: 4
bits a weight and a byte or two a group and row; a line is asked for some KiB before it is needed.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu.intrinsics import (
    broadcast,
    dot,
    load,
    load_bytes,
    prefetch,
    read_f32,
    splat,
    store,
    to_float,
    view,
)
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.vector import f32x16, i8x64, i16x32, i32x16

__all__ = ["gemv"]

_AHEAD_BYTES = 4096


@functools.cache
def gemv(*, asymmetric: bool, output: str) -> Any:
    """Return the compiled kernel, for weights with zero points a group or one for all, and 's32' or 'f32' results.

    Returns
    -------
    kernel(values, multipliers, zeros, codes, shifts, row_scales, token_scales, out, first, last)
        values uint8[M / 16, groups, parts, 256], multipliers uint8[M / 16, groups, 16], zeros the same (with one zero
        point it is not read), codes int8[tokens, groups, 32 * parts], shifts int32[tokens, groups]: the sum of the
        group's codes (with one zero point, minus their sum times that), row_scales float32[M], token_scales
        float32[tokens], out [tokens, M]; blocks first to last are computed.
    """
    return _assemble(_each if asymmetric else _one, _reals if output == "f32" else _sums)


def _assemble(settled: Any, finish: Any) -> Any:
    @kernel
    def gemv_16(values, multipliers, zeros, codes, shifts, row_scales, token_scales, out, first, last):
        groups, parts = values.shape[1], values.shape[2]
        for block in range(first, last):
            for token in range(codes.shape[0]):
                weights = values.ctypes.data + 256 * parts * groups * block
                x = codes.ctypes.data + 32 * parts * groups * token
                scales, shift = 16 * groups * block, shifts.ctypes.data + 4 * groups * token
                acc = splat(i32x16, 0)
                for _ in range(groups):
                    low = high = splat(i32x16, 0)
                    for _ in range(parts):
                        low, high = _line(low, high, weights, x)
                        low, high = _line(low, high, weights + 64, x + 8)
                        low, high = _line(low, high, weights + 128, x + 16)
                        low, high = _line(low, high, weights + 192, x + 24)
                        weights += 256
                        x += 32
                    partial = low + (high >> splat(i32x16, 4))
                    partial = settled(partial, zeros.ctypes.data + scales, shift)
                    acc = acc + load_bytes(i32x16, multipliers.ctypes.data + scales) * partial
                    prefetch(multipliers.ctypes.data + scales + _AHEAD_BYTES // 4)
                    scales += 16
                    shift += 4
                to = out.ctypes.data + 4 * (out.shape[1] * token + 16 * block)
                finish(to, acc, row_scales.ctypes.data + 64 * block, token_scales.ctypes.data + 4 * token)

    return gemv_16


@piece
def _line(low, high, weights, x):
    """Add the products of 16 rows and 8 inputs."""
    nibbles = view(i16x32, load(i8x64, weights))
    prefetch(weights + _AHEAD_BYTES)
    low = dot(low, view(i8x64, nibbles & splat(i16x32, 0x0F0F)), broadcast(i8x64, x))
    return low, dot(high, view(i8x64, nibbles & splat(i16x32, 0xF0F0)), broadcast(i8x64, x + 4))


@piece
def _each(partial, zeros, shift):
    return partial - load_bytes(i32x16, zeros) * view(i32x16, broadcast(i8x64, shift))


@piece
def _one(partial, zeros, shift):
    return partial + view(i32x16, broadcast(i8x64, shift))


@piece
def _sums(to, acc, row_scales, token_scale):
    store(to, acc)


@piece
def _reals(to, acc, row_scales, token_scale):
    store(to, to_float(acc) * load(f32x16, row_scales) * splat(f32x16, read_f32(token_scale)))
