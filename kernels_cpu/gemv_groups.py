"""Group-sparse weights of 4 or 8 bits times s8 activations of a few tokens, inputs in the lanes of a register.

    for block in M / 16:                           16 rows
      for a token, or 4 or 16 side by side:        the block's weights come from memory once, then from the cache
        for row:
          for as many kept groups as fill a register, a unit of 16 inputs in each 128-bit lane:
            codes                                  32 bytes of 4-bit codes widened to 64, zero points taken off
            one token: its inputs of these units   one load a unit, joined; then 1 dot product
            4 or 16:   for each unit               a line for 4 tokens, 16 inputs of each; 1 dot product with its codes
            acc += multipliers * products          a multiplier in the low word of its group's dwords: exact in s32
          sum of the lanes

Activations enter as u8, 128 added, and codes are the signed factors; the 128 leaves each sum by a constant of its row.
With 4 bits a dword's four products fit 16 bits, so that the multiplier takes one or two operations (vpdpwssd, or
vpmaddwd and an addition), else three.

One token is bound by memory: 11 bytes a group of 16, where four such take 5.5 cycles.  Four tokens take 3.1 cycles a
group, 16 take 9, of vector instructions (`ports`).
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.kernels_cpu.ahead import AHEAD_BYTES, ahead
from sparsefab.kernels_cpu.gemv_groups_tokens import Kind, abreast, alone
from sparsefab.kernels_cpu.intrinsics import (
    broadcast,
    load,
    load_bytes,
    load_unaligned,
    multiply_add_words,
    prefetch,
    splat,
    view,
)
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.panels import aligned_empty
from sparsefab.kernels_cpu.products import dot_of
from sparsefab.kernels_cpu.scalars import read_i32, read_u8, read_u16
from sparsefab.kernels_cpu.shuffles import look_up_bytes
from sparsefab.kernels_cpu.vector import VectorType, i32x8, i32x16

__all__ = ["SIDES", "gemv", "side_of", "spread_tables"]

SIDES = (4, 16)  # tokens side by side


def side_of(tokens: int) -> int:
    """Return how many of so many tokens go side by side: sixteen take 2.3 times as long as four."""
    return 1 if tokens == 1 else SIDES[tokens > 2 * SIDES[0]]


@functools.cache
def spread_tables(units: int, *, wide: bool) -> NDArray[np.uint8]:
    """Return where the numbers of a register's groups go.

    Returns
    -------
    uint8[1 + steps, 64]         Indices for `look_up_bytes`, of four bytes, one a group: the first row fills a group's
                                 lanes with its byte, the others put it in each dword, of lanes beyond the group 0.
                                 On a 64-byte boundary; not to be written to.
    """
    lanes = 4 if wide else 2
    lane = np.arange(4) % lanes
    share, steps = _steps(units, lanes)
    group = lane * share // lanes
    tables = np.full((1 + steps, 4, 16), 0x80, np.uint8)
    tables[0] = group[:, None]
    for step in range(steps):
        present = lanes * step + lane < units if share == 1 else np.ones(4, np.bool_)
        tables[1 + step, present, ::4] = group[present, None]
    aligned: NDArray[np.uint8] = aligned_empty((1 + steps, 64), np.uint8)
    aligned[:] = tables.reshape(aligned.shape)
    aligned.setflags(write=False)
    return aligned


@functools.cache
def gemv(*, bits: int, units: int, wide: bool, asymmetric: bool, output: str) -> Any:
    """Return the compiled kernel for one kind of weights and of results.

    Parameters
    ----------
    bits : int                   4 or 8.
    units : int                  Runs of 16 inputs in a group.
    wide : bool                  AVX512-VNNI on 512 bits; else AVX2.
    asymmetric : bool            A zero point a group, else one for all.
    output : str                 's32' or 'f32'.

    Returns
    -------
    kernel(codes, groups, multipliers, zeros, pointers, offsets, row_scales, tables, x, sums, start, token_scales, out,
    first, last)
        The weights as in `GroupWeights`, row_scales float32[M]; tables of `spread_tables` on a 64-byte boundary, x
        uint8[passes, inputs / 16 + 3, side, 16] with 1, 4 or 16 tokens side by side, sums int32[passes, M, side] room
        for these, start int32[tokens, M]: what a sum starts with, token_scales float32[tokens], out [tokens, M]; rows
        of blocks first to last, 16 each, are computed.
    """
    dwords = i32x16 if wide else i32x8
    # Without VNNI two products are added in 16 bits: 255 * 15 twice fits, 255 * 128 does not.
    dot = dot_of(dwords, "vnni" if wide else "widened" if bits == 8 else "paired")
    scaled = _scaled_of(dwords, dot, narrow=bits == 4)
    places = _places_of(units, dwords.bits // 128)
    kinds = alone(dwords, places, scaled), *(abreast(dwords, places, scaled, side) for side in SIDES)
    one, four, sixteen = (_row_of(dwords, bits, units, asymmetric, kind) for kind in kinds)
    return _assemble(one, four, sixteen, _reals if output == "f32" else _sums)


def _steps(units: int, lanes: int) -> tuple[int, int]:
    """How many groups share a register, and how many registers a group takes."""
    return max(1, lanes // units) if lanes % units == 0 else 1, -(-units // lanes)


def _assemble(one: Any, four: Any, sixteen: Any, finish: Any) -> Any:
    @kernel
    def gemv_groups(
        codes, groups, multipliers, zeros, pointers, offsets, row_scales, tables, x, sums, start, token_scales, out,
        first, last,
    ):  # fmt: skip
        passes, side, tokens = x.shape[0], x.shape[2], len(out)
        weights = codes.ctypes.data, groups.ctypes.data, multipliers.ctypes.data, zeros.ctypes.data
        for block in range(first, last):
            begin, end = 16 * block, min(16 * block + 16, len(pointers) - 1)
            for turn in range(passes):
                inputs = x.ctypes.data + 16 * side * x.shape[1] * turn
                to = sums.ctypes.data + 4 * side * (sums.shape[1] * turn + begin)
                for row in range(begin, end):
                    kept = np.int64(pointers[row]), np.int64(pointers[row + 1])
                    if side == 16:
                        sixteen(to, weights, kept, tables.ctypes.data, inputs)
                    elif side == 4:
                        four(to, weights, kept, tables.ctypes.data, inputs)
                    else:
                        one(to, weights, kept, tables.ctypes.data, inputs)
                    to += 4 * side
            for token in range(tokens):
                for row in range(begin, end):
                    acc = sums[token // side, row, token % side] + offsets[row] + start[token, row]
                    out[token, row] = finish(np.int32(acc), row_scales[row], token_scales[token])

    return gemv_groups


def _row_of(dwords: VectorType, bits: int, units: int, asymmetric: bool, tokens: Kind) -> Any:
    """Return a row's kept groups times one token or several: row(to, weights, (first, last), tables, inputs)."""
    lanes = dwords.bits // 128
    share, steps = _steps(units, lanes)
    unit_bytes = 2 * bits
    far, own = unit_bytes * units * share, share if asymmetric else 0
    octets, codes_at, take = dwords.of("i8"), _codes_of(dwords, bits, asymmetric), tokens.step

    @piece
    def several(acc, numbers, at, tables, inputs):
        """Multiply the groups that share a register, or one of several registers; `numbers`: four multipliers."""
        for part in range(steps):
            codes = codes_at(at[0] + lanes * unit_bytes * part, at[3], tables)
            multipliers = look_up_bytes(numbers, load(octets, tables + 64 + 64 * part))
            acc = take(acc, codes, multipliers, at[1], lanes * part, inputs)
        return acc

    @piece
    def on(at, count):
        """Where codes, indices, multipliers and zero points are, so many registers on."""
        return at[0] + far * count, at[1] + 2 * share * count, at[2] + share * count, at[3] + own * count

    @piece
    def ask(at, count):
        for line in range(0, far * count, 64):
            ahead(at[0] + line)
        prefetch(at[1] + AHEAD_BYTES // (unit_bytes * units // 2))
        prefetch(at[2] + AHEAD_BYTES // (unit_bytes * units))

    @piece
    def by_one(acc, at, whole, tables, inputs):
        for _ in range(whole):
            ask(at, 1)
            acc = several(acc, broadcast(octets, at[2]), at, tables, inputs)
            at = on(at, 1)
        return acc, at

    @piece
    def by_two(acc, at, whole, tables, inputs):
        for _ in range(whole // 2):
            ask(at, 2)
            acc = several(acc, broadcast(octets, at[2]), at, tables, inputs)
            second = on(at, 1)
            acc = several(acc, broadcast(octets, second[2]), second, tables, inputs)
            at = on(at, 2)
        return by_one(acc, at, whole % 2, tables, inputs)

    begin, end, along = tokens.begin, tokens.end, by_two if tokens.doubled else by_one

    @piece
    def row(to, weights, kept, tables, inputs):
        first, last = kept
        codes, zeros = weights[0] + unit_bytes * units * first, weights[3] + (first if asymmetric else 0)
        whole = max(last - first - 1, 0) // share
        acc, at = along(begin(), (codes, weights[1] + 2 * first, weights[2] + first, zeros), whole, tables, inputs)
        if last > first:  # what follows the last groups is of the next row: its multipliers become 0
            numbers = splat(dwords, read_i32(at[2]) & ((1 << 8 * (last - first - share * whole)) - 1))
            acc = several(acc, view(octets, numbers), at, tables, inputs)
        end(to, acc)

    return row


@functools.cache
def _places_of(units: int, lanes: int) -> Any:
    """Return places(group, unit): the unit of inputs that each lane needs; `group` is where the groups' indices are."""

    @piece
    def four_groups(group, unit):
        return read_u16(group), read_u16(group + 2), read_u16(group + 4), read_u16(group + 6)

    @piece
    def two_groups(group, unit):
        return read_u16(group), read_u16(group + 2)

    @piece
    def two_of_two(group, unit):
        a, b = 2 * read_u16(group), 2 * read_u16(group + 2)
        return a, a + 1, b, b + 1

    @piece
    def four_units(group, unit):
        a = units * read_u16(group) + unit
        return a, a + 1, a + 2, a + 3

    @piece
    def two_units(group, unit):
        a = units * read_u16(group) + unit
        return a, a + 1

    if lanes == 2:
        return two_groups if units == 1 else two_units
    return {1: four_groups, 2: two_of_two}.get(units, four_units)


@functools.cache
def _codes_of(dwords: VectorType, bits: int, asymmetric: bool) -> Any:
    """Return codes_at(source, zeros, tables): the codes less their zero points, a unit of 16 in each 128-bit lane."""
    octets, words = dwords.of("i8"), dwords.of("i16")

    @piece
    def of_4(source):
        wide = load_bytes(words, source)
        return view(octets, (wide | (wide << splat(words, 4))) & splat(words, 0x0F0F))

    @piece
    def of_8(source):
        return load_unaligned(octets, source)

    codes = of_4 if bits == 4 else of_8

    @piece
    def one_for_all(source, zeros, tables):
        return codes(source) - view(octets, splat(dwords, read_u8(zeros) * 0x01010101))

    @piece
    def of_group(source, zeros, tables):
        return codes(source) - look_up_bytes(broadcast(octets, zeros), load(octets, tables))

    return of_group if asymmetric else one_for_all


@functools.cache
def _scaled_of(dwords: VectorType, dot: Any, *, narrow: bool) -> Any:
    """Return scaled(acc, x, codes, multipliers): acc + multipliers * dot products, a dword each."""
    words = dwords.of("i16")

    @piece
    def scaled(acc, x, codes, multipliers):
        return acc + view(dwords, multipliers) * dot(splat(dwords, 0), x, codes)

    @piece
    def scaled_narrow(acc, x, codes, multipliers):
        """Multiply low words: the high one of a multiplier is 0."""
        return acc + multiply_add_words(view(words, dot(splat(dwords, 0), x, codes)), view(words, multipliers))

    return scaled_narrow if narrow else scaled


@piece
def _reals(acc, row_scale, token_scale):
    return np.float32(acc) * row_scale * token_scale


@piece
def _sums(acc, row_scale, token_scale):
    return acc
