"""Group-quantized weights of 3, 4 or 8 bits times s8 activations of a few tokens, rows in the lanes of a register.

    for block in M / 16:                           16 rows, one in each dword of 512 bits, or two halves of 256 bits
      for 16, 8, 4, 2 or 1 tokens at a time:       the block's weights come from memory once, then from the cache
        for group along the inputs:
          for 32 inputs of the group:              64 bytes for each bit of a weight
            8 vectors of codes                     see `codes`; shared by the tokens
            8 dot products a token                 codes u8 times four broadcast activations s8
          acc += multiplier * (sum of products - zero_point * sum of activations)           exact in s32

Bound by memory for few tokens: 3, 4 or 8 bits a weight and a byte or two a group and row, asked for ahead (`ahead`).
With more tokens by the dot products, one load each, and 12 operations more for 32 inputs of 4-bit codes; from 8 tokens
on, enough sums are in flight to hide their latency.  A partial sum that fits 16 bits takes its multiplier in one
operation (vpdpwssd), else in three.  On 256 bits, four tokens or one at a time.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

from sparsefab.kernels_cpu.ahead import AHEAD_BYTES, ahead
from sparsefab.kernels_cpu.codes import codes_of
from sparsefab.kernels_cpu.gemv_tokens import Four, Single, Twice
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
        where there is one zero point, row_scales float32[M]; codes int8[tokens, groups or more, 32 * parts], shifts
        int32[tokens, groups]: minus the sum of the group's codes, with one zero point times that, start int32[tokens,
        M]: what a sum starts with, token_scales float32[tokens], out [tokens, M]; blocks first to last are computed.
    """
    dwords = i32x16 if wide else i32x8
    # Without VNNI two products are added in 16 bits: 15 * 127 twice fits, 255 * 127 does not.
    dot = dot_of(dwords, "vnni" if wide else "widened" if bits == 8 else "paired")
    grouped = _grouped_of(dwords, asymmetric=asymmetric, narrow=narrow)
    finish = _finish_of(dwords, output)
    part = codes_of(dwords.of("i8"), bits)
    single, four = Single(dwords, dot, grouped, finish), Four(dwords, dot, grouped, finish)
    kinds = [Twice(Twice(four)), Twice(four), four, Twice(single), single] if wide else [four, single]
    passes = tuple(_pass_of(dwords, bits, part, tokens) for tokens in kinds)
    return _assemble_wide(passes) if wide else _assemble_narrow(passes)


def _assemble_wide(passes: tuple[Any, ...]) -> Any:
    """Sixteen tokens a pass, then eight, four, two and one."""
    sixteen, eight, four, two, one = passes

    @kernel
    def gemv_lanes(values, multipliers, zeros, row_scales, codes, shifts, start, token_scales, out, first, last):
        tokens = codes.shape[0]
        layer, buffers = (values, multipliers, zeros, row_scales), (codes, shifts, start, token_scales, out)
        for block in range(first, last):
            token = 0
            while token + 16 <= tokens:
                sixteen(layer, buffers, block, 0, token)
                token += 16
            if token + 8 <= tokens:
                eight(layer, buffers, block, 0, token)
                token += 8
            if token + 4 <= tokens:
                four(layer, buffers, block, 0, token)
                token += 4
            if token + 2 <= tokens:
                two(layer, buffers, block, 0, token)
                token += 2
            if token < tokens:
                one(layer, buffers, block, 0, token)

    return gemv_lanes


def _assemble_narrow(passes: tuple[Any, ...]) -> Any:
    """Four tokens a pass, then single ones, of each eight rows."""
    four, one = passes

    @kernel
    def gemv_lanes(values, multipliers, zeros, row_scales, codes, shifts, start, token_scales, out, first, last):
        tokens = codes.shape[0]
        fours = tokens // 4 * 4
        layer, buffers = (values, multipliers, zeros, row_scales), (codes, shifts, start, token_scales, out)
        for block in range(first, last):
            for half in range(2):
                for token in range(0, fours, 4):
                    four(layer, buffers, block, half, token)
                for token in range(fours, tokens):
                    one(layer, buffers, block, half, token)

    return gemv_lanes


def _pass_of(dwords: VectorType, bits: int, codes_of_part: Any, tokens: Any) -> Any:
    """Return once(layer, buffers, block, half, token): a block's rows times the tokens from one on."""
    begin, empty, add, join, end = tokens.begin, tokens.empty, tokens.add, tokens.join, tokens.end
    lanes, part_bytes = dwords.lanes, 64 * bits

    @piece
    def once(layer, buffers, block, half, token):
        values, multipliers, zeros, row_scales = layer
        codes, shifts, start, token_scales, out = buffers
        groups, parts = values.shape[1], values.shape[2]
        weights, x = values.ctypes.data + part_bytes * parts * groups * block + 32 * half, codes.ctypes.data
        step = codes.shape[1] * codes.shape[2]
        x += step * token
        row, scales, shift = 16 * block + lanes * half, 16 * groups * block + lanes * half, 4 * groups * token
        acc = begin(start.ctypes.data + 4 * (start.shape[1] * token + row), 4 * start.shape[1])
        for _ in range(groups):
            p = empty()
            for _ in range(parts):
                for line in range(bits):
                    ahead(weights + 64 * line)
                a, b, c, d, e, f, g, h = codes_of_part(weights)
                p = add(add(p, a, b, x, step), c, d, x + 8, step)
                p = add(add(p, e, f, x + 16, step), g, h, x + 24, step)
                weights += part_bytes
                x += 32
            multiplier, zero = load_bytes(dwords, multipliers.ctypes.data + scales), zeros.ctypes.data + scales
            acc = join(acc, p, multiplier, zero, shifts.ctypes.data + shift, 4 * groups)
            prefetch(multipliers.ctypes.data + scales + AHEAD_BYTES // (4 * bits))
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
