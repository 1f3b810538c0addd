"""4-bit group-quantized weights times s8 activations, a few tokens at a time, on 512-bit registers.

    for block in M / 16:                           16 rows, one in each dword
      for token:                                   the block's weights come from memory once, then from the cache
        for group along the inputs:
          for unit of 8 inputs in the group:       64 bytes: low nibbles are inputs 0-3, high nibbles inputs 4-7
            2 x vpdpbusd                           nibbles u8 times four broadcast activations s8
          acc += multiplier * (partial - zero_point * sum of the group's activations)       vpmulld, exact in s32

Bound by memory: 4 bits a weight and two bytes a group and row.  A line is asked for 4 KiB before it is needed.
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
    read_i32,
    read_u8,
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
    kernel(values, multipliers, zeros, codes, sums, row_scales, token_scales, out, group_units, first, last)
        values uint8[M / 16, K / 8, 64], multipliers and zeros uint8[M / 16, groups, 16] (one zero point: uint8[1]),
        codes int8[tokens, K], sums int32[tokens, groups], row_scales float32[M], token_scales float32[tokens], out
        [tokens, M]; group_units = group size / 8; blocks first to last are computed.
    """
    return _assemble(_each if asymmetric else _one, _reals if output == "f32" else _sums)


def _assemble(shift_of: Any, finish: Any) -> Any:
    @kernel
    def gemv_16(values, multipliers, zeros, codes, sums, row_scales, token_scales, out, group_units, first, last):
        units, groups = values.shape[1], multipliers.shape[1]
        for block in range(first, last):
            weights = values.ctypes.data + 64 * units * block
            factors = multipliers.ctypes.data + 16 * groups * block
            for token in range(codes.shape[0]):
                x = codes.ctypes.data + codes.shape[1] * token
                totals = sums.ctypes.data + 4 * groups * token
                acc = splat(i32x16, 0)
                for group in range(groups):
                    begin = group * group_units
                    end = min(begin + group_units, units)
                    fours = begin + (end - begin) // 4 * 4
                    a = b = splat(i32x16, 0)
                    for unit in range(begin, fours, 4):
                        a = _unit(a, weights + 64 * unit, x + 8 * unit)
                        b = _unit(b, weights + 64 * unit + 64, x + 8 * unit + 8)
                        a = _unit(a, weights + 64 * unit + 128, x + 8 * unit + 16)
                        b = _unit(b, weights + 64 * unit + 192, x + 8 * unit + 24)
                    for unit in range(fours, end):
                        a = _unit(a, weights + 64 * unit, x + 8 * unit)
                    total = read_i32(totals + 4 * group)
                    partial = a + b - shift_of(zeros.ctypes.data, groups * block + group, total)
                    acc = acc + load_bytes(i32x16, factors + 16 * group) * partial
                to = out.ctypes.data + 4 * (out.shape[1] * token + 16 * block)
                finish(to, acc, row_scales.ctypes.data + 64 * block, token_scales.ctypes.data + 4 * token)

    return gemv_16


@piece
def _unit(acc, values, codes):
    """Add the products of 16 rows and 8 inputs."""
    nibble = splat(i16x32, 0x0F0F)
    words = view(i16x32, load(i8x64, values))
    prefetch(values + _AHEAD_BYTES)
    acc = dot(acc, view(i8x64, words & nibble), broadcast(i8x64, codes))
    return dot(acc, view(i8x64, (words >> splat(i16x32, 4)) & nibble), broadcast(i8x64, codes + 4))


@piece
def _each(zeros, group, total):
    return load_bytes(i32x16, zeros + 16 * group) * splat(i32x16, total)


@piece
def _one(zeros, group, total):
    return splat(i32x16, read_u8(zeros) * total)


@piece
def _sums(to, acc, row_scales, token_scale):
    store(to, acc)


@piece
def _reals(to, acc, row_scales, token_scale):
    store(to, to_float(acc) * load(f32x16, row_scales) * splat(f32x16, read_f32(token_scale)))
