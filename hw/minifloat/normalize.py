"""Find the leading one of a two's complement sum and bring it, with the bits that a significand needs, to one place."""

from typing import Final

from amaranth.hdl import Cat, Const, Elaboratable, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.hw.stages import later

__all__ = ["Normalizer"]

_GROUP: Final = 9  # bits and a sign that two LUT6 reduce, in whatever order synthesis chains them


class Normalizer(wiring.Component):
    """Cut a window of tail + 2 bits out of a sum, below its leading one.

    Parameters
    ----------
    bits : int                 Of the sum.
    lowest : int               Lowest place of a leading one that counts; it may lie outside the sum. A smaller sum
                               keeps its window there.
    places : int               Places from there on where it may stand.
    tail : int                 Bits kept below the leading one, without the guard bit.

    Members
    -------
    sum : In(signed(bits))
    window : Out(tail + 2)     Leading place, tail, guard bit: bits of the sum itself, zeros below its grid.
    offset : Out               Place of the leading one above `lowest`.
    outside : Out(1)           The sum has a leading one above all places.
    sticky : Out(1)            A bit below the guard bit is one.
    negative : Out(1)

    Notes
    -----
    Leading means: highest that differs from the sign. A level chooses among four chunks, by whether they hold the
    leading one, and keeps the chosen one with the bits below it. Latency `latency` cycles, one sum a cycle, two LUT
    levels between registers.
    """

    def __init__(self, *, bits: int, lowest: int, places: int, tail: int) -> None:
        self.bits, self.lowest, self.tail = bits, lowest, tail
        self.places = min(places, max(bits - 1 - lowest, 1))  # the sum reaches no further
        self.levels: list[tuple[int, int]] = []  # chunks, places of a chunk
        amount_bits = (self.places - 1).bit_length()
        while amount_bits:
            taken = 1 if amount_bits % 2 else 2
            amount_bits -= taken
            self.levels.append((1 << taken, 1 << amount_bits))
        self._above = max(bits - 1 - (lowest + self.places), 0)
        self._below = max(lowest - tail - 1, 0)
        moving = sum(_cycles(size) + 2 for _, size in self.levels)
        self.latency = max(moving, _cycles(max(self._above, self._below)))
        super().__init__(
            {
                "sum": In(bits),
                "window": Out(tail + 2),
                "offset": Out(max((self.places - 1).bit_length(), 1)),
                "outside": Out(1),
                "sticky": Out(1),
                "negative": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        cycles, guard, top = self.latency, self.lowest - self.tail - 1, self.lowest + self.places
        sign = self.sum[self.bits - 1]
        lost = _any(m, self._cut(guard - self._below, guard), None, cycles, "lost")
        window, offset, dropped, spent = self._move(m, self._cut(guard, top), sign)
        m.d.comb += [
            self.outside.eq(_any(m, self._cut(top, top + self._above), sign, cycles, "outside")),
            self.negative.eq(later(m, sign, "negative", cycles)),
            self.window.eq(later(m, window, "window", cycles - spent)),
            self.offset.eq(later(m, offset, "offset", cycles - spent)),
            self.sticky.eq(later(m, dropped, "dropped", cycles - spent) | lost),
        ]
        return m

    def _cut(self, low: int, high: int) -> Value:
        """Places low to high - 1 of the sum, zeros below its grid, its sign above."""
        inside = self.sum[min(max(low, 0), self.bits) : min(max(high, 0), self.bits)]
        above = high - max(low, self.bits)
        return Cat(Const(0, max(min(high, 0) - low, 0)), inside, self.sum[-1].replicate(max(above, 0)))

    def _move(self, m: Module, window: Value, sign: Value) -> tuple[Value, Value, Value, int]:
        """Window, offset and dropped bits after all levels, and the cycles they took."""
        offset: list[Value] = []
        sticky: Value = Const(0, 1)
        spent = 0
        for level, (chunks, size) in enumerate(self.levels):
            wait, below = _cycles(size), self.tail + 1
            window = Cat(window, sign.replicate(chunks * size + below - len(window)))
            # which chunks hold a bit that differs from the sign, and which would lose a one
            leading = [
                _any(m, window[below + size * c : below + size * (c + 1)], sign, wait, f"level{level}_leading{c}")
                for c in range(1, chunks)
            ]
            lossy = [
                _any(m, window[size * c : size * (c + 1)], None, wait, f"level{level}_lossy{c}")
                for c in range(chunks - 1)
            ]
            # the highest of the leading chunks
            digit = later(m, _highest(leading), f"level{level}_digit", 1)
            wait += 1
            held = later(m, window, f"level{level}_held", wait)
            held_sticky = later(m, sticky, f"level{level}_held_sticky", wait)
            lossy = [later(m, flag, f"level{level}_lossy_digit{c}", 1) for c, flag in enumerate(lossy)]
            # take it, and the tail below it
            chosen = Signal(size + below, name=f"level{level}_chosen", reset_less=True)
            new_sticky = Signal(name=f"level{level}_sticky", reset_less=True)
            with m.Switch(digit):
                for c in range(chunks):
                    with m.Case(c):
                        m.d.sync += [
                            chosen.eq(held[size * c : size * (c + 1) + below]),
                            new_sticky.eq(Cat(held_sticky, *lossy[:c]).any()),
                        ]
            old = [later(m, part, f"level{level}_offset{k}", wait) for k, part in enumerate(offset)]
            offset = [later(m, part, f"level{level}_taken{k}", 1) for k, part in enumerate([digit, *old])]
            window, sticky, sign = chosen, new_sticky, later(m, sign, f"level{level}_sign", wait + 1)
            spent += wait + 1
        return window, Cat(*offset), sticky, spent


def _highest(flags: list[Value]) -> Value:
    """Number of the highest flag, counted from 1; 0 when none is up."""
    if len(flags) == 1:
        return flags[0]
    one, two, three = flags
    return Cat(three | (one & ~two), three | two)


def _cycles(count: int) -> int:
    """Registers that reducing `count` bits takes."""
    cycles = 1
    while count > _GROUP:
        count, cycles = -(-count // _GROUP), cycles + 1
    return cycles


def _any(m: Module, bits: Value, sign: Value | None, cycles: int, name: str) -> Value:
    """Say, `cycles` later, whether a bit differs from the sign, or from zero; as a tree of registers."""
    if len(bits) == 0:
        return Const(0, 1)
    values: list[Value] = [bit if sign is None else bit ^ sign for bit in bits]
    for stage in range(cycles):
        groups = [values[k : k + _GROUP] for k in range(0, len(values), _GROUP)]
        values = [later(m, Cat(*group).any(), f"{name}_{k}", 1, first=stage) for k, group in enumerate(groups)]
    (value,) = values
    return value
