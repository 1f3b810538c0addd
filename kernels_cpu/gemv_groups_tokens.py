"""How one token, or several side by side, go along a row of group-sparse weights: pieces of `gemv_groups`."""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any, NamedTuple

from sparsefab.kernels_cpu.intrinsics import load, splat, store
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.scalars import write_i32
from sparsefab.kernels_cpu.shuffles import each_lane_sum, every_lane, join, total
from sparsefab.kernels_cpu.vector import VectorType, i8x16

__all__ = ["Kind", "abreast", "alone"]


class Kind(NamedTuple):
    """The pieces of one kind of tokens.

    Attributes
    ----------
    begin : begin()              Sums of nothing.
    step : step(acc, codes, multipliers, group, unit, inputs)       A register of codes, a unit of inputs in each lane.
    end : end(to, acc)           A row's sums stored, an int32 a token.
    doubled : bool               A round of the loop takes two registers: its own instructions are a fifth of one's.
    """

    begin: Any
    step: Any
    end: Any
    doubled: bool


def alone(dwords: VectorType, places: Any, scaled: Any) -> Kind:
    """Return how one token goes: the inputs of each lane's unit are loaded and joined; two sums in turn.

    Parameters
    ----------
    dwords : VectorType          512 or 256 bits.
    places, scaled               Where a lane's inputs are, and how products are added: see `gemv_groups`.
    """
    gathered = _gathered_512 if dwords.bits == 512 else _gathered_256

    @piece
    def begin():
        return splat(dwords, 0), splat(dwords, 0)

    @piece
    def step(acc, codes, multipliers, group, unit, inputs):
        x = gathered(places(group, unit), inputs)
        return acc[1], scaled(acc[0], x, codes, multipliers)

    @piece
    def end(to, acc):
        write_i32(to, total(acc[0] + acc[1]))

    return Kind(begin=begin, step=step, end=end, doubled=True)


def abreast(dwords: VectorType, places: Any, scaled: Any, tokens: int) -> Kind:
    """Return how 4 or 16 tokens go, a lane each: a unit's codes meet 16 inputs of every token, `16 * tokens` bytes.

    Four tokens of 512 bits are one register, too few to hide a dot product's latency: each lane's unit has its own sum.
    """
    lanes, record = dwords.bits // 128, 16 * tokens
    begin, along, add, end = _line_of(dwords, scaled, tokens // lanes)

    @piece
    def step_2(acc, codes, multipliers, group, unit, inputs):
        p = places(group, unit)
        acc = along(acc, inputs + record * p[0], every_lane(codes, 0), every_lane(multipliers, 0))
        return along(acc, inputs + record * p[1], every_lane(codes, 1), every_lane(multipliers, 1))

    @piece
    def step_4(acc, codes, multipliers, group, unit, inputs):
        p = places(group, unit)
        acc = along(acc, inputs + record * p[0], every_lane(codes, 0), every_lane(multipliers, 0))
        acc = along(acc, inputs + record * p[1], every_lane(codes, 1), every_lane(multipliers, 1))
        acc = along(acc, inputs + record * p[2], every_lane(codes, 2), every_lane(multipliers, 2))
        return along(acc, inputs + record * p[3], every_lane(codes, 3), every_lane(multipliers, 3))

    @piece
    def begin_apart():
        return begin(), begin(), begin(), begin()

    @piece
    def step_apart(acc, codes, multipliers, group, unit, inputs):
        p = places(group, unit)
        a = along(acc[0], inputs + record * p[0], every_lane(codes, 0), every_lane(multipliers, 0))
        b = along(acc[1], inputs + record * p[1], every_lane(codes, 1), every_lane(multipliers, 1))
        c = along(acc[2], inputs + record * p[2], every_lane(codes, 2), every_lane(multipliers, 2))
        return a, b, c, along(acc[3], inputs + record * p[3], every_lane(codes, 3), every_lane(multipliers, 3))

    @piece
    def end_apart(to, acc):
        end(to, add(add(acc[0], acc[1]), add(acc[2], acc[3])))

    if tokens == lanes:
        return Kind(begin=begin_apart, step=step_apart, end=end_apart, doubled=False)
    return Kind(begin=begin, step=step_2 if lanes == 2 else step_4, end=end, doubled=False)


@functools.cache
def _line_of(dwords: VectorType, scaled: Any, registers: int) -> tuple[Any, Any, Any, Any]:
    """Return begin(), along(acc, x, codes, multipliers), add(a, b), end(to, acc) for tokens that fill 1, 2, 4, ..."""
    octets, width = dwords.of("i8"), dwords.bytes

    @piece
    def begin_1():
        return splat(dwords, 0)

    @piece
    def along_1(acc, x, codes, multipliers):
        return scaled(acc, load(octets, x), codes, multipliers)

    @piece
    def add_1(a, b):
        return a + b

    @piece
    def end_1(to, acc):
        store(to, each_lane_sum(acc))

    if registers == 1:
        return begin_1, along_1, add_1, end_1
    half = width * registers // 2  # bytes, 16 a token, whose sum takes 4
    begin, along, add, end = _line_of(dwords, scaled, registers // 2)

    @piece
    def begin_both():
        return begin(), begin()

    @piece
    def along_both(acc, x, codes, multipliers):
        return along(acc[0], x, codes, multipliers), along(acc[1], x + half, codes, multipliers)

    @piece
    def add_both(a, b):
        return add(a[0], b[0]), add(a[1], b[1])

    @piece
    def end_both(to, acc):
        end(to, acc[0])
        end(to + half // 4, acc[1])

    return begin_both, along_both, add_both, end_both


@piece
def _gathered_512(place, inputs):
    low = join(load(i8x16, inputs + 16 * place[0]), load(i8x16, inputs + 16 * place[1]))
    return join(low, join(load(i8x16, inputs + 16 * place[2]), load(i8x16, inputs + 16 * place[3])))


@piece
def _gathered_256(place, inputs):
    return join(load(i8x16, inputs + 16 * place[0]), load(i8x16, inputs + 16 * place[1]))
