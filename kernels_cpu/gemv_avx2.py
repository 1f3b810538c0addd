"""4-bit group-quantized weights times s8 activations, a few tokens at a time, on 256-bit registers of plain AVX2.

    for block in M / 16:                           16 rows, eight in each of two registers
      for token:                                   the block's weights come from memory once, then from the cache
        for group along the inputs:
          for 32 inputs of the group:              4 lines; low nibbles are inputs 0-3, high nibbles 4-7 of a line's 8
            16 x vpmaddubsw                        nibbles u8 times four broadcast activations s8, added up as s16
            2 x vpmaddwd                           to s32, once for the 32 inputs
          acc += multiplier * (sum - zero_point * sum of activations)                       vpmulld, exact in s32

Eight products of words hold 16 * 15 * 127 = 30,480 at most: nothing saturates. Bound by memory, as `gemv_vnni` is.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu.intrinsics import (
    broadcast,
    load,
    load_bytes,
    multiply_add_bytes,
    multiply_add_words,
    prefetch,
    read_f32,
    splat,
    store,
    to_float,
    view,
)
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.vector import f32x8, i8x32, i16x16, i32x8

__all__ = ["gemv"]

_AHEAD_BYTES = 4096


@functools.cache
def gemv(*, asymmetric: bool, output: str) -> Any:
    """Return the compiled kernel; its arguments are those of `gemv_vnni.gemv`."""
    return _assemble(_each if asymmetric else _one, _reals if output == "f32" else _sums)


def _assemble(settled: Any, finish: Any) -> Any:
    @kernel
    def gemv_8(values, multipliers, zeros, codes, shifts, row_scales, token_scales, out, first, last):
        groups, parts = values.shape[1], values.shape[2]
        for block in range(first, last):
            for token in range(codes.shape[0]):
                weights = values.ctypes.data + 256 * parts * groups * block
                x = codes.ctypes.data + 32 * parts * groups * token
                scales, shift = 16 * groups * block, shifts.ctypes.data + 4 * groups * token
                a = b = splat(i32x8, 0)
                for _ in range(groups):
                    low = high = splat(i32x8, 0)
                    for _ in range(parts):
                        prefetch(weights + _AHEAD_BYTES)
                        prefetch(weights + _AHEAD_BYTES + 64)
                        prefetch(weights + _AHEAD_BYTES + 128)
                        prefetch(weights + _AHEAD_BYTES + 192)
                        low, high = low + _part(weights, x), high + _part(weights + 32, x)
                        weights += 256
                        x += 32
                    at = multipliers.ctypes.data + scales
                    low = settled(low, zeros.ctypes.data + scales, shift)
                    high = settled(high, zeros.ctypes.data + scales + 8, shift)
                    a, b = a + load_bytes(i32x8, at) * low, b + load_bytes(i32x8, at + 8) * high
                    prefetch(at + _AHEAD_BYTES // 4)
                    scales += 16
                    shift += 4
                to = out.ctypes.data + 4 * (out.shape[1] * token + 16 * block)
                at = token_scales.ctypes.data + 4 * token
                finish(to, a, row_scales.ctypes.data + 64 * block, at)
                finish(to + 32, b, row_scales.ctypes.data + 64 * block + 32, at)

    return gemv_8


@piece
def _part(weights, x):
    """Return the products of 8 rows and 32 inputs, s32."""
    words = (_line(weights, x) + _line(weights + 64, x + 8)) + (
        _line(weights + 128, x + 16) + _line(weights + 192, x + 24)
    )
    return multiply_add_words(words, splat(i16x16, 1))


@piece
def _line(weights, x):
    """Return the products of 8 rows and 8 inputs, two words a row."""
    nibbles = load(i8x32, weights)
    low = nibbles & splat(i8x32, 15)
    high = view(i8x32, view(i16x16, nibbles) >> splat(i16x16, 4)) & splat(i8x32, 15)
    return multiply_add_bytes(low, broadcast(i8x32, x)) + multiply_add_bytes(high, broadcast(i8x32, x + 4))


@piece
def _each(partial, zeros, shift):
    return partial - load_bytes(i32x8, zeros) * view(i32x8, broadcast(i8x32, shift))


@piece
def _one(partial, zeros, shift):
    return partial + view(i32x8, broadcast(i8x32, shift))


@piece
def _sums(to, acc, row_scales, token_scale):
    store(to, acc)


@piece
def _reals(to, acc, row_scales, token_scale):
    store(to, to_float(acc) * load(f32x8, row_scales) * splat(f32x8, read_f32(token_scale)))
