"""Bitmap to indices: which inputs of a block the slots hold, in ascending order."""

from collections.abc import Callable
from functools import partial

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.wiring import In, Out

__all__ = ["BitmapExpander"]

_NIBBLES = 4
_BLOCK = 16


class BitmapExpander(wiring.Component):
    """Positions of the set bits of a block's bitmap.

    Parameters
    ----------
    slots : int                1 to 16.

    Members
    -------
    bitmap : In(16)
    indices : Out              u4[slots]: slot k holds the k-th set bit's position, 0 where there are fewer.

    Notes
    -----
    Latency 7 cycles, a block a cycle.
    """

    latency = 7

    def __init__(self, *, slots: int) -> None:
        if not 1 <= slots <= _BLOCK:
            raise ValueError(f"slots must be 1 to {_BLOCK}, not {slots}")
        self.slots = slots
        super().__init__({"bitmap": In(_BLOCK), "indices": Out(ArrayLayout(4, slots))})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        # stage 0: set bits of each nibble
        nibbles = [self.bitmap.word_select(n, 4) for n in range(_NIBBLES)]
        counts = [_registered(m, _table(m, bits, 3, int.bit_count), f"s0_count{n}") for n, bits in enumerate(nibbles)]
        bitmap: Value = _registered(m, self.bitmap, "s0_bitmap")
        # stage 1: set bits below each nibble
        sums = (counts[0], counts[0] + counts[1], counts[2], counts[2] + counts[3])
        s1_below = [_registered(m, value, f"s1_below{n}") for n, value in enumerate(sums)]
        bitmap = _registered(m, bitmap, "s1_bitmap")
        # stage 2: below the third nibble's end, and of the whole
        below = [
            Const(0, 5),
            _registered(m, s1_below[0], "s2_below1"),
            _registered(m, s1_below[1], "s2_below2"),
            _registered(m, s1_below[1] + s1_below[2], "s2_below3"),
            _registered(m, s1_below[1] + s1_below[3], "s2_below4"),
        ]
        bitmap = _registered(m, bitmap, "s2_bitmap")
        s3_bitmap = _registered(m, bitmap, "s3_bitmap")
        s4_bitmap = _registered(m, s3_bitmap, "s4_bitmap")
        for slot in range(self.slots):
            # stage 3: which nibbles begin at or before the slot, and its rank in each of them
            reached, ranks = [], []
            for n, count in enumerate(below):
                begins = _table(m, count, 1, partial(_at_most, slot))
                reached.append(_registered(m, begins, f"s3_reached{slot}_{n}"))
                ranks.append(_registered(m, _table(m, count[:2], 2, partial(_rank, slot)), f"s3_rank{slot}_{n}"))
            _, second, third, fourth, all_below = reached
            # stage 4: the last of those nibbles
            nibble = Signal(2, name=f"s4_nibble{slot}", reset_less=True)
            rank = Signal(2, name=f"s4_rank{slot}", reset_less=True)
            m.d.sync += [
                nibble.eq(Mux(fourth, 3, Mux(third, 2, second))),
                rank.eq(Mux(fourth, ranks[3], Mux(third, ranks[2], Mux(second, ranks[1], ranks[0])))),
            ]
            s4_found = _registered(m, ~all_below, f"s4_found{slot}")
            # stage 5: its bits
            word = Signal(4, name=f"s5_word{slot}", reset_less=True)
            with m.Switch(nibble):
                for n in range(_NIBBLES):
                    with m.Case(n):
                        m.d.sync += word.eq(s4_bitmap.word_select(n, 4))
            s5_nibble, s5_rank = _registered(m, nibble, f"s5_nibble{slot}"), _registered(m, rank, f"s5_rank{slot}")
            s5_found = _registered(m, s4_found, f"s5_found{slot}")
            # stage 6: the bit of that rank
            place = _table(m, Cat(word, s5_rank), 2, _place)
            index = _registered(m, Mux(s5_found, Cat(place, s5_nibble), 0), f"s6_index{slot}")
            m.d.comb += self.indices[slot].eq(index)
        return m


def _at_most(slot: int, count: int) -> int:
    return int(count <= slot)


def _rank(slot: int, count: int) -> int:
    return (slot - count) % 4


def _place(word: int) -> int:
    """Position of the set bit of rank word[4:6] in word[0:4]; 0 if there is none."""
    set_bits = [bit for bit in range(4) if word >> bit & 1]
    rank = word >> 4
    return set_bits[rank] if rank < len(set_bits) else 0


def _table(m: Module, index: Value, bits: int, function: Callable[[int], int]) -> Value:
    result = Signal(bits)
    with m.Switch(index):
        for word in range(1 << len(index)):
            with m.Case(word):
                m.d.comb += result.eq(function(word))
    return result


def _registered(m: Module, value: Value, name: str) -> Signal:
    register = Signal(len(value), name=name, reset_less=True)
    m.d.sync += register.eq(value)
    return register
