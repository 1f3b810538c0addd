"""Move a significand to its place on the fixed-point grid: a left shifter whose last level merges into an adder."""

from dataclasses import dataclass

from amaranth.hdl import Module, Shape, Signal, Value

from sparsefab.hw.stages import later

__all__ = ["Alignment", "align", "align_latency"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """A value one shift away from its place.

    value : Value              Shifted by all levels but the last.
    digit : Value | None       The last level's part of the amount.
    step : int                 Places that one unit of the digit moves.
    offset : int               Low places, always zero, that the amount's offset added.
    """

    value: Value
    digit: Value | None
    step: int
    offset: int

    def place(self, m: Module, width: int, name: str) -> Signal:
        """The last level: `width` bits on the grid, combinational, sign-extended."""
        shape = Shape(width, self.value.shape().signed)
        placed = Signal(shape, name=name)
        if self.digit is None:
            m.d.comb += placed.eq(self.value >> self.offset)
            return placed
        with m.Switch(self.digit):
            for places in range(1 << len(self.digit)):
                with m.Case(places):
                    m.d.comb += placed.eq((self.value << self.step * places) >> self.offset)
        return placed


def _digits(value_bits: int, amount_bits: int, merged: bool) -> tuple[int, ...]:
    """Bits of the amount that each level takes, lowest first.

    A last level that is merged into an adder shares a LUT6 with it: value bits, digit, sign and accumulator. So it
    takes two bits of the amount where at most two bits of the value compete for a place, one bit elsewhere.
    """
    if amount_bits == 0:
        return ()
    narrow = merged and value_bits > (1 << max(amount_bits - 2, 0)) + 1
    last = 1 if narrow or amount_bits == 1 else 2
    rest = amount_bits - last
    return (*([1] if rest % 2 else []), *[2] * (rest // 2), last)


def align_latency(value_bits: int, amount_bits: int, *, merged: bool = True) -> int:
    """Registered levels of `align`."""
    return max(len(_digits(value_bits, amount_bits, merged)) - 1, 0)


def align(m: Module, value: Value, amount: Value, *, amount_bits: int, offset: int, merged: bool = True) -> Alignment:
    """Shift left, a 2:1 or 4:1 multiplexer a level, a register after each level but the last.

    Parameters
    ----------
    value, amount : Value      `amount` has `amount_bits` bits, which may be none.
    offset : int               Least amount: so many zero places are dropped in the end.
    merged : bool              The last level merges into an adder.
    """
    low = 0
    plan = _digits(len(value), amount_bits, merged)
    for level, bits in enumerate(plan[:-1]):
        step, digit = 1 << low, amount[low : low + bits]
        width = len(value) + ((1 << bits) - 1) * step
        moved = Signal(Shape(width, value.shape().signed), name=f"level{level}_value", reset_less=True)
        with m.Switch(digit):
            for places in range(1 << bits):
                with m.Case(places):
                    m.d.sync += moved.eq(value << step * places)
        low += bits
        value, amount = moved, later(m, amount, "amount", 1, first=level)
    digit = amount[low : low + plan[-1]] if plan else None
    return Alignment(value=value, digit=digit, step=1 << low, offset=offset)
