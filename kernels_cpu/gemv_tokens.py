"""How one or several tokens go through a block of group-quantized weights side by side: pieces of `gemv_lanes`.

A kind of tokens has `count` of them and the pieces

    begin(at, step)                            what the sums of a row start with, `step` bytes from token to token
    empty()                                    a group's partial sums
    add(p, even, odd, x, step)                 eight inputs more, of two vectors of codes
    join(acc, p, multiplier, zero, shift, step)      a group's sums taken into the row's
    end(to, step, acc, row_scale, token_scale)       results stored
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

from typing import Any

from sparsefab.kernels_cpu.intrinsics import broadcast, load, splat
from sparsefab.kernels_cpu.kernel import piece
from sparsefab.kernels_cpu.vector import VectorType

__all__ = ["Four", "Single", "Twice"]


class Single:
    """One token: two partial sums in turn, to hide a dot product's latency.

    Parameters
    ----------
    dwords : VectorType          Sums of 16 or 8 rows.
    dot : compiled function      See `products.dot_of`.
    grouped, finish              How a group's sum is taken into a row's, and a row's sum stored; see `gemv_lanes`.
    """

    count = 1

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


class Four:
    """Four tokens, a partial sum each; arguments as of `Single`."""

    count = 4

    def __init__(self, dwords: VectorType, dot: Any, grouped: Any, finish: Any) -> None:
        octets = dwords.of("i8")

        @piece
        def begin(at, step):
            return load(dwords, at), load(dwords, at + step), load(dwords, at + 2 * step), load(dwords, at + 3 * step)

        @piece
        def empty():
            return splat(dwords, 0), splat(dwords, 0), splat(dwords, 0), splat(dwords, 0)

        @piece
        def one(p, codes, x, step):
            a, b = dot(p[0], codes, broadcast(octets, x)), dot(p[1], codes, broadcast(octets, x + step))
            c = dot(p[2], codes, broadcast(octets, x + 2 * step))
            return a, b, c, dot(p[3], codes, broadcast(octets, x + 3 * step))

        @piece
        def add(p, even, odd, x, step):
            return one(one(p, even, x, step), odd, x + 4, step)

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


class Twice:
    """As many tokens again beside those of another kind."""

    def __init__(self, half: Any) -> None:
        self.count = 2 * half.count
        count = half.count
        half_begin, half_empty, half_add, half_join, half_end = half.begin, half.empty, half.add, half.join, half.end

        @piece
        def begin(at, step):
            return half_begin(at, step), half_begin(at + count * step, step)

        @piece
        def empty():
            return half_empty(), half_empty()

        @piece
        def add(p, even, odd, x, step):
            return half_add(p[0], even, odd, x, step), half_add(p[1], even, odd, x + count * step, step)

        @piece
        def join(acc, p, multiplier, zero, shift, step):
            first = half_join(acc[0], p[0], multiplier, zero, shift, step)
            return first, half_join(acc[1], p[1], multiplier, zero, shift + count * step, step)

        @piece
        def end(to, step, acc, row_scale, token_scale):
            half_end(to, step, acc[0], row_scale, token_scale)
            half_end(to + count * step, step, acc[1], row_scale, token_scale + 4 * count)

        self.begin, self.empty, self.add, self.join, self.end = begin, empty, add, join, end
