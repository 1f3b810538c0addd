"""Group-quantized weights of 3, 4 or 8 bits times s8 activations of a few tokens, rows in the lanes of a register.

    for block in M / 16:                           16 rows, one in each dword of 512 bits, or two halves of 256 bits
      for four tokens at a time, then for each:    the block's weights come from memory once, then from the cache
        for group along the inputs:
          for 32 inputs of the group:              64 bytes for each bit of a weight
            8 vectors of codes                     see `codes`; shared by the tokens
            8 dot products a token                 codes u8 times four broadcast activations s8
          acc += multiplier * (sum of products - zero_point * sum of activations)           exact in s32

Bound by memory for few tokens: 3, 4 or 8 bits a weight and a byte or two a group and row; a line is asked for some KiB
before it is needed.  With more tokens by the dot products, one load each.  A partial sum that fits 16 bits takes its
multiplier in one operation (vpdpwssd), else in three.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu.codes import codes_of
from sparsefab.kernels_cpu.intrinsics import (
    broadcast,
    load,
    load_bytes,
    multiply_add_words,
    prefetch,
    splat,
    store,
    to_float,
    view,
)
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.products import dot_of
from sparsefab.kernels_cpu.scalars import read_f32
from sparsefab.kernels_cpu.vector import VectorType, i32x8, i32x16

__all__ = ["gemv"]

_AHEAD_BYTES = 2048


@functools.cache
def gemv(*, bits: int, wide: bool, asymmetric: bool, narrow: bool, output: str) -> Any:
    """Return the compiled kernel for one kind of weights and of results.

    Parameters
    ----------
    bits : int                   3, 4 or 8.
    wide : bool                  AVX512-VNNI on 512 bits; else AVX2.
    asymmetric : bool            Zero points a group, else one for all.
    narrow : bool                Every group's sum of products, and of activations, fits s16.
    output : str                 's32' or 'f32'.

    Returns
    -------
    kernel(values, multipliers, zeros, row_scales, codes, shifts, start, token_scales, out, first, last)
        values uint8[M / 16, groups, parts, 64 * bits], multipliers uint8[M / 16, groups, 16], zeros the same, not read
        where there is one zero point, row_scales float32[M]; codes int8[tokens, groups, 32 * parts], shifts
        int32[tokens, groups]: minus the sum of the group's codes, with one zero point times that, start int32[tokens,
        M]: what a sum starts with, token_scales float32[tokens], out [tokens, M]; blocks first to last are computed.
    """
    dwords = i32x16 if wide else i32x8
    # Without VNNI two products are added in 16 bits: 15 * 127 twice fits, 255 * 127 does not.
    dot = dot_of(dwords, "vnni" if wide else "widened" if bits == 8 else "paired")
    grouped = _grouped_of(dwords, asymmetric=asymmetric, narrow=narrow)
    finish = _finish_of(dwords, output)
    part = codes_of(dwords.of("i8"), bits)
    return _assemble(
        _pass_of(dwords, bits, part, _Single(dwords, dot, grouped, finish)),
        _pass_of(dwords, bits, part, _Four(dwords, dot, grouped, finish)),
        16 // dwords.lanes,
    )


def _assemble(one: Any, four: Any, halves: int) -> Any:
    @kernel
    def gemv_lanes(values, multipliers, zeros, row_scales, codes, shifts, start, token_scales, out, first, last):
        tokens = codes.shape[0]
        fours = tokens // 4 * 4
        layer, buffers = (values, multipliers, zeros, row_scales), (codes, shifts, start, token_scales, out)
        for block in range(first, last):
            for half in range(halves):
                for token in range(0, fours, 4):
                    four(layer, buffers, block, half, token)
                for token in range(fours, tokens):
                    one(layer, buffers, block, half, token)

    return gemv_lanes


class _Single:
    """How one token goes through a block: two sums in turn, to hide a dot product's latency."""

    def __init__(self, dwords: VectorType, dot: Any, grouped: Any, finish: Any) -> None:
        octets = dwords.of("i8")

        @piece
        def begin(at, step):
            return (load(dwords, at),)

        @piece
        def empty():
            return splat(dwords, 0), splat(dwords, 0)

        @piece
        def add(p, even, odd, x, step):
            return dot(p[0], even, broadcast(octets, x)), dot(p[1], odd, broadcast(octets, x + 4))

        @piece
        def join(acc, p, multiplier, zero, shift, step):
            return (grouped(acc[0], p[0] + p[1], multiplier, zero, shift),)

        @piece
        def end(to, step, acc, row_scale, token_scale):
            finish(to, acc[0], row_scale, token_scale)

        self.begin, self.empty, self.add, self.join, self.end = begin, empty, add, join, end


class _Four:
    """How four tokens go through a block side by side."""

    def __init__(self, dwords: VectorType, dot: Any, grouped: Any, finish: Any) -> None:
        octets = dwords.of("i8")

        @piece
        def begin(at, step):
            return load(dwords, at), load(dwords, at + step), load(dwords, at + 2 * step), load(dwords, at + 3 * step)

        @piece
        def empty():
            return splat(dwords, 0), splat(dwords, 0), splat(dwords, 0), splat(dwords, 0)

        @piece
        def two(p, even, odd, x):
            return dot(dot(p, even, broadcast(octets, x)), odd, broadcast(octets, x + 4))

        @piece
        def add(p, even, odd, x, step):
            a, b = two(p[0], even, odd, x), two(p[1], even, odd, x + step)
            return a, b, two(p[2], even, odd, x + 2 * step), two(p[3], even, odd, x + 3 * step)

        @piece
        def join(acc, p, multiplier, zero, shift, step):
            a, b = grouped(acc[0], p[0], multiplier, zero, shift), grouped(acc[1], p[1], multiplier, zero, shift + step)
            c = grouped(acc[2], p[2], multiplier, zero, shift + 2 * step)
            return a, b, c, grouped(acc[3], p[3], multiplier, zero, shift + 3 * step)

        @piece
        def end(to, step, acc, row_scale, token_scale):
            finish(to, acc[0], row_scale, token_scale)
            finish(to + step, acc[1], row_scale, token_scale + 4)
            finish(to + 2 * step, acc[2], row_scale, token_scale + 8)
            finish(to + 3 * step, acc[3], row_scale, token_scale + 12)

        self.begin, self.empty, self.add, self.join, self.end = begin, empty, add, join, end


def _pass_of(dwords: VectorType, bits: int, codes_of_part: Any, tokens: _Single | _Four) -> Any:
    """Return once(layer, buffers, block, half, token): a block's rows times the tokens from one on."""
    begin, empty, add, join, end = tokens.begin, tokens.empty, tokens.add, tokens.join, tokens.end
    lanes, part_bytes = dwords.lanes, 64 * bits

    @piece
    def once(layer, buffers, block, half, token):
        values, multipliers, zeros, row_scales = layer
        codes, shifts, start, token_scales, out = buffers
        groups, parts = values.shape[1], values.shape[2]
        weights, x = values.ctypes.data + part_bytes * parts * groups * block + 32 * half, codes.ctypes.data
        step = 32 * parts * groups
        x += step * token
        row, scales, shift = 16 * block + lanes * half, 16 * groups * block + lanes * half, 4 * groups * token
        acc = begin(start.ctypes.data + 4 * (start.shape[1] * token + row), 4 * start.shape[1])
        for _ in range(groups):
            p = empty()
            for _ in range(parts):
                for line in range(bits):
                    prefetch(weights + 64 * line + _AHEAD_BYTES)
                a, b, c, d, e, f, g, h = codes_of_part(weights)
                p = add(add(p, a, b, x, step), c, d, x + 8, step)
                p = add(add(p, e, f, x + 16, step), g, h, x + 24, step)
                weights += part_bytes
                x += 32
            multiplier, zero = load_bytes(dwords, multipliers.ctypes.data + scales), zeros.ctypes.data + scales
            acc = join(acc, p, multiplier, zero, shifts.ctypes.data + shift, 4 * groups)
            prefetch(multipliers.ctypes.data + scales + _AHEAD_BYTES // (4 * bits))
            scales += 16
            shift += 4
        at = out.ctypes.data + 4 * (out.shape[1] * token + row)
        end(at, 4 * out.shape[1], acc, row_scales.ctypes.data + 4 * row, token_scales.ctypes.data + 4 * token)

    return once


@functools.cache
def _grouped_of(dwords: VectorType, *, asymmetric: bool, narrow: bool) -> Any:
    """Return grouped(acc, partial, multiplier, zero, shift): a group's sum, less its zero point's, added to a row's."""
    octets, words = dwords.of("i8"), dwords.of("i16")

    @piece
    def one_for_all(partial, zero, shift):
        return partial + view(dwords, broadcast(octets, shift))

    @piece
    def of_group(partial, zero, shift):
        return partial + load_bytes(dwords, zero) * view(dwords, broadcast(octets, shift))

    @piece
    def of_group_narrow(partial, zero, shift):
        products = multiply_add_words(view(words, load_bytes(dwords, zero)), view(words, broadcast(octets, shift)))
        return partial + products

    settled = (of_group_narrow if narrow else of_group) if asymmetric else one_for_all

    @piece
    def grouped(acc, partial, multiplier, zero, shift):
        return acc + multiplier * settled(partial, zero, shift)

    @piece
    def grouped_narrow(acc, partial, multiplier, zero, shift):
        """Multiply low words: the high one of a multiplier is 0."""
        return acc + multiply_add_words(view(words, settled(partial, zero, shift)), view(words, multiplier))

    return grouped_narrow if narrow else grouped


@functools.cache
def _finish_of(dwords: VectorType, output: str) -> Any:
    """Return finish(to, acc, row_scales, token_scale): store a row's sum or its real value in each lane."""
    floats = dwords.of("f32")

    @piece
    def sums(to, acc, row_scales, token_scale):
        store(to, acc)

    @piece
    def reals(to, acc, row_scales, token_scale):
        store(to, to_float(acc) * load(floats, row_scales) * splat(floats, read_f32(token_scale)))

    return reals if output == "f32" else sums
