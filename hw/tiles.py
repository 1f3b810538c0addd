"""The accumulators' control: which beat may enter, and which tile it belongs to."""

from typing import Final

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out

__all__ = ["TILE_CYCLES", "TileControl", "tiles_layout"]

# beats of one row keep this distance, so that a read never meets a write that is on its way: read, C, P, write
TILE_CYCLES: Final = 4


def tiles_layout() -> StructLayout:
    """One tile: whether its rows start at 0, and whether their sums leave with it."""
    return StructLayout({"first": 1, "final": 1})


class TileControl(wiring.Component):
    """Let beats of sums enter together with those that belong to them, and step through tiles.

    Parameters
    ----------
    grouped : bool             Every beat of `sums` takes one of `rows`; otherwise only those of final tiles do.

    Members
    -------
    tiles : In(stream)         `tiles_layout`, one beat a tile.
    sums_valid, rows_valid, last : In
                               Of the streams that are joined; `last` ends a tile.
    sums_ready, rows_ready : Out
    room : In(1)               A beat that leaves may enter; acts a cycle late.
    s0_enters, s0_ends, s0_first, s0_leaves : Out
                               A cycle later: a beat came, it was its tile's last; its tile is a first one; it came in
                               a final tile.

    Notes
    -----
    Each ready is one LUT behind registers and the other's valid. The flags of the next tile are fetched ahead; a tile
    of n < `TILE_CYCLES` beats delays the next one by `TILE_CYCLES` - n cycles.
    """

    tiles: stream.Interface

    def __init__(self, *, grouped: bool) -> None:
        self.grouped = grouped
        inputs = {name: In(1) for name in ("sums_valid", "rows_valid", "last", "room")}
        outputs = {
            name: Out(1) for name in ("sums_ready", "rows_ready", "s0_enters", "s0_ends", "s0_first", "s0_leaves")
        }
        super().__init__({"tiles": In(stream.Signature(tiles_layout())), **inputs, **outputs})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        # join: `is_open` sums up what is known a cycle ahead
        first, final, is_open = Signal(), Signal(), Signal()
        wanted = Const(1) if self.grouped else final
        enters, ends = Signal(), Signal()
        m.d.comb += [
            self.sums_ready.eq(is_open & (self.rows_valid | ~wanted)),
            self.rows_ready.eq(is_open & self.sums_valid & wanted),
            enters.eq(self.sums_valid & self.sums_ready),
            ends.eq(enters & self.last),
        ]

        # tiles: the next one is fetched ahead
        ahead, loaded, held = Signal(), Signal(), Signal()
        next_first, next_final = Signal(), Signal()
        step = Signal()
        m.d.comb += [step.eq(ahead & (ends | ~loaded)), self.tiles.ready.eq(~ahead)]
        with m.If(step):
            m.d.sync += [first.eq(next_first), final.eq(next_final)]
        with m.If(~ahead):
            m.d.sync += [next_first.eq(self.tiles.payload.first), next_final.eq(self.tiles.payload.final)]

        # after a short tile the next one is held until the rows it wrote can be read: the start moves on by a beat, and
        # while held by a cycle, so that the distance of every row is kept however late its tile's beats came
        fresh = Signal(init=1)  # the next beat is a tile's first
        started = Signal(TILE_CYCLES - 2)
        settled, stay = Signal(), Signal()
        m.d.comb += [settled.eq(~started.any()), stay.eq(held & ~settled)]
        with m.If(enters):
            m.d.sync += fresh.eq(self.last)
        with m.If(enters | held):
            m.d.sync += started.eq(Cat(enters & fresh, started))
        m.d.sync += [
            ahead.eq(Mux(ahead, ~step, self.tiles.valid)),
            loaded.eq(Mux(ends, ahead, loaded | ahead)),
            held.eq(Mux(ends, fresh | ~settled, stay)),
            is_open.eq(self.room & Mux(ends, ahead & ~fresh & settled, (loaded | ahead) & ~stay)),
            self.s0_enters.eq(enters),
            self.s0_ends.eq(ends),
            self.s0_first.eq(first),
            self.s0_leaves.eq(enters & final),
        ]
        return m
