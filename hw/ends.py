"""Partial chains that end anywhere: sums of the rows that share a beat, instead of one sum of the whole beat.

A row may start at any group of two DSPs, at most one in a segment. There the cascade starts anew, so that the segment
gives two sums: `head` belongs to a row that started before the segment, `total` to the one that started in it. Without
a start `total` belongs to both sides. Joining two neighbours adds what meets in the middle:

    left   .. head | total .. +  .. head | total ..   right
                     '------ sum ------'              a whole part, if a row starts on both sides
    head of both = left starts a row ? left.head : sum         total of both = right starts one ? right.total : sum

so a tree of adders gives all parts of the beat, whatever rows start where, with a multiplexer a level.

Lower lanes: a segment's total holds LANE_OFFSET = 2^17 - 1, which its top bit inverted makes x - 1, signed. A head
holds one more, added by the first DSP's CARRYIN: x. A sum takes a carry in: a part that ends in a head loses all -1.
"""

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.wiring import In, Out

from sparsefab.arch import LANE_BITS, ChainArch
from sparsefab.hw.modules import Placer
from sparsefab.hw.select import choose, extended
from sparsefab.hw.stages import later

__all__ = ["PartsTree", "SegmentHead"]


class SegmentHead(wiring.Component):
    """Keep the sum that a segment's cascade held where a row started, until the segment's total is there.

    Parameters
    ----------
    arch : ChainArch
    body, placer               As for ChainSegment.

    Members
    -------
    starts : In                A bit a group: a row starts there. At most one is set.
    prefix<g> : In             For each group g but the first: the cascade's sum below it, 2 g + 4 cycles late.
    starting : Out(1)          One of the groups starts a row; with `head`.
    head : Out                 Lanes of signed sums, segment + 4 cycles after `starts`; 0 unless a row starts in a group
                               but the first.

    Notes
    -----
    A register a cycle and, from the second group on, a LUT6_2 for two bits a group.
    """

    def __init__(self, *, arch: ChainArch, body: str, placer: Placer) -> None:
        self.arch, self.body, self.placer = arch, body, placer
        super().__init__(
            {"starts": In(arch.segment_groups), "starting": Out(1), "head": Out(arch.head_bits)}
            | {f"prefix{g}": In(arch.head_bits) for g in range(1, arch.segment_groups)}
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        arch = self.arch
        head: Value = Signal(arch.head_bits)
        for g in range(1, arch.segment_groups):
            start = later(m, self.starts[g], f"start{g}", 2 * g + 4, reset_less=False)
            prefix = getattr(self, f"prefix{g}")
            signed_prefix = Cat(prefix[: LANE_BITS - 1], ~prefix[LANE_BITS - 1], prefix[LANE_BITS:])
            kept = Signal(arch.head_bits, name=f"kept{g}")
            if g == 1:
                with m.If(start):
                    m.d.sync += kept.eq(signed_prefix)
                with m.Else():
                    m.d.sync += kept.eq(0)
            else:
                m.d.sync += kept.eq(
                    choose(m, f"head{g}_", start, signed_prefix, head, body=self.body, placer=self.placer)
                )
            head = later(m, kept, f"kept{g}", 1)
        starting = later(m, self.starts.any(), "starting", arch.segment + 4, reset_less=False)
        m.d.comb += [self.head.eq(head), self.starting.eq(starting)]
        return m


Lanes = tuple[Value, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """Neighbouring segments, joined.

    `beyond` is the first segment to the right. Where a row starts in the left half, `head` is the sum below it; where
    one starts in the right half, `tail` is the sum from it on; `middle` is what meets between, or the whole sum.
    """

    beyond: int
    left_starts: Value
    right_starts: Value
    head: Lanes
    middle: Lanes
    tail: Lanes

    @property
    def starts(self) -> Value:
        """Whether a row starts anywhere in it."""
        return self.left_starts | self.right_starts


class PartsTree(wiring.Component):
    """Add up each row's part of a beat.

    Parameters
    ----------
    arch : ChainArch
    body, placer               As for ChainSegment.

    Members
    -------
    totals, heads, starting : In
                               Of each segment, as `ChainSegment` and `SegmentHead` give them.
    parts : Out                arch.parts times signed[lanes] of arch.sum_bits, in the rows' order; 0 where unused.
    used : Out                 A bit a part. The last part is always used; every other used one ends its row.

    Notes
    -----
    Part 0 ends a row that started in an earlier beat (0 if nothing of it is in this one). Part b is a row that starts
    in segment i and ends in segment j, i < b <= j, b the one with the most trailing zero bits. Latency
    arch.tree_levels + 1 cycles, one beat a cycle; one carry chain between registers.
    """

    def __init__(self, *, arch: ChainArch, body: str, placer: Placer) -> None:
        self.arch, self.body, self.placer = arch, body, placer
        super().__init__(
            {
                "totals": In(ArrayLayout(arch.segment_bits, arch.segments)),
                "heads": In(ArrayLayout(arch.head_bits, arch.segments)),
                "starting": In(arch.segments),
                "parts": Out(ArrayLayout(ArrayLayout(arch.sum_bits, arch.lanes), arch.parts)),
                "used": Out(arch.parts),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        arch = self.arch
        spans = [self._leaf(s) for s in range(arch.segments)]
        done: dict[int, tuple[Value, Lanes]] = {}  # part -> whether it is used, its lanes
        for level in range(1, arch.tree_levels + 1):
            done = {
                part: (self._later(m, used, f"used{part}_{level}"), self._lanes_later(m, lanes, f"part{part}_{level}"))
                for part, (used, lanes) in done.items()
            }
            joined = [
                self._join(m, f"s{level}_{left.beyond}", left, right)
                for left, right in zip(spans[::2], spans[1::2], strict=False)
            ]
            done |= {
                left.beyond: (span.left_starts & span.right_starts, span.middle)
                for left, span in zip(spans[::2], joined, strict=False)
            }
            if len(spans) % 2:
                joined.append(self._wait(m, f"s{level}_odd", spans[-1]))
            spans = joined
        done[0] = (spans[0].starts, self._head(m, "first_part", spans[0]))
        # the last part's lower lane still lacks 1; the others wait for it
        lower, upper = self._total(m, "last_part", spans[0])
        done[arch.segments] = (Const(1, 1), (lower + 1, upper))
        for part, (used, lanes) in done.items():
            out = [Signal(arch.sum_bits, name=f"part{part}_{k}", reset_less=True) for k in range(arch.lanes)]
            with m.If(used):
                m.d.sync += [register.eq(lane) for register, lane in zip(out, lanes, strict=True)]
            with m.Else():
                m.d.sync += [register.eq(0) for register in out]
            m.d.comb += [self.parts[part][k].eq(register) for k, register in enumerate(out)]
            m.d.comb += self.used[part].eq(self._later(m, used, f"used{part}"))
        return m

    def _leaf(self, segment: int) -> _Span:
        packed, head, starts = self.totals[segment], self.heads[segment], self.starting[segment]
        top = LANE_BITS - 1
        total = Cat(packed[:top], ~packed[top]).as_signed(), packed[LANE_BITS:].as_signed()
        return _Span(
            beyond=segment + 1,
            left_starts=starts,
            right_starts=starts,
            head=(head[:LANE_BITS].as_signed(), head[LANE_BITS:].as_signed()),
            middle=total,
            tail=total,
        )

    def _join(self, m: Module, name: str, left: _Span, right: _Span) -> _Span:
        low, high = (limit * right.beyond * self.arch.segment for limit in self.arch.product_range)
        left_lower, left_upper = self._total(m, f"{name}_total", left)
        # an addend may be a choice: it is made in the adder's own LUT
        right_lower, right_upper = (
            Mux(right.left_starts, head, middle) for head, middle in zip(right.head, right.middle, strict=True)
        )
        middle = tuple(Signal(range(low - 1, high + 1), name=f"{name}_{lane}", reset_less=True) for lane in range(2))
        m.d.sync += [
            middle[0].eq(left_lower - ~right_lower),  # both and 1
            middle[1].eq(left_upper + right_upper),
        ]
        return _Span(
            beyond=right.beyond,
            left_starts=self._later(m, left.starts, f"{name}_left"),
            right_starts=self._later(m, right.starts, f"{name}_right"),
            head=self._lanes_later(m, self._head(m, f"{name}_head", left), f"{name}_head"),
            middle=(middle[0], middle[1]),
            tail=self._lanes_later(m, self._total(m, f"{name}_tail", right), f"{name}_tail"),
        )

    def _wait(self, m: Module, name: str, span: _Span) -> _Span:
        """Hold an odd one for a level."""
        return _Span(
            beyond=span.beyond,
            left_starts=self._later(m, span.left_starts, f"{name}_left"),
            right_starts=self._later(m, span.right_starts, f"{name}_right"),
            head=self._lanes_later(m, span.head, f"{name}_head"),
            middle=self._lanes_later(m, span.middle, f"{name}_middle"),
            tail=self._lanes_later(m, span.tail, f"{name}_tail"),
        )

    def _head(self, m: Module, name: str, span: _Span) -> Lanes:
        """The sum below the first start, where there is one."""
        return (
            span.head if span.tail is span.middle else self._choose(m, name, span.left_starts, span.head, span.middle)
        )

    def _total(self, m: Module, name: str, span: _Span) -> Lanes:
        """The sum from the last start on, or of the whole."""
        return (
            span.tail if span.tail is span.middle else self._choose(m, name, span.right_starts, span.tail, span.middle)
        )

    def _choose(self, m: Module, name: str, pick: Value, one: Lanes, zero: Lanes) -> Lanes:
        lower, upper = (
            choose(
                m, f"{name}{lane}_", pick, extended(one[lane], len(zero[lane])), zero[lane], body=self.body,
                placer=self.placer,
            ).as_signed()
            for lane in range(2)
        )  # fmt: skip
        return lower, upper

    def _later(self, m: Module, value: Value, name: str) -> Value:
        """Register it; with a reset, so that no shift register in LUTs is made of several."""
        return later(m, value, name, 1, reset_less=False)

    def _lanes_later(self, m: Module, lanes: Lanes, name: str) -> Lanes:
        lower, upper = (self._later(m, value, f"{name}_{lane}") for lane, value in enumerate(lanes))
        return lower, upper
