"""The unpacker: memory beats to pieces of any width, one a cycle, and where tiles and tensors end."""

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sparsefab.hw.dequantize.arch import DequantizeArch

__all__ = ["COUNT_BITS", "Unpacker"]

COUNT_BITS = 16
_RADIX_BITS = 2  # a level of the shifter picks one of four: a LUT6 a bit


class Unpacker(wiring.Component):
    """Cut a gapless run of pieces out of memory beats.

    Parameters
    ----------
    arch : DequantizeArch      Its beat_bits, piece_bits.

    Members
    -------
    i : In(stream)             Memory beats, the first piece in the lowest bits. A tensor starts with a beat of its own;
                               what its last beat holds beyond the last piece is dropped.
    rows, tiles : In(16)       Pieces of a tile, tiles of the tensor, both at least 1; taken when a tensor's first beat
                               has come, to be held until its last one has.
    enable : In(1)             A piece may leave in the next cycle.
    leaving : Out(1)           One left in the cycle before.
    piece, last, valid : Out   The piece, and whether it is its tile's last; `latency` cycles after it left.

    Notes
    -----
    Two beats are held; a piece leaves in every cycle in which it is there, so beats are taken without a bubble at
    piece_bits / beat_bits a cycle; between tensors two cycles pass. i.ready is a function of registers alone.
    """

    i: stream.Interface

    def __init__(self, *, arch: DequantizeArch) -> None:
        self.arch = arch
        self.places = arch.beat_bits // arch.granule_bits  # where a piece may begin
        self.levels = -(-(self.places - 1).bit_length() // _RADIX_BITS)
        self.latency = 1 + self.levels
        super().__init__(
            {
                "i": In(stream.Signature(arch.beat_bits)),
                "rows": In(COUNT_BITS),
                "tiles": In(COUNT_BITS),
                "enable": In(1),
                "leaving": Out(1),
                "piece": Out(arch.piece_bits),
                "last": Out(1),
                "valid": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        older = Signal(self.arch.beat_bits, reset_less=True)
        newer = Signal(self.arch.beat_bits, reset_less=True)
        older_valid, newer_valid = Signal(), Signal()
        leave, pop, move = Signal(), Signal(), Signal()

        # beats: newer follows older as soon as older is used up
        m.d.comb += [move.eq(newer_valid & (pop | ~older_valid)), self.i.ready.eq(~newer_valid | move)]
        with m.If(move):
            m.d.sync += older.eq(newer)
        with m.If(self.i.ready):
            m.d.sync += [newer.eq(self.i.payload), newer_valid.eq(self.i.valid)]
        m.d.sync += older_valid.eq(move | (older_valid & ~pop))

        # offset of the next piece in `older`, and what follows from it, a cycle ahead
        offset, straddles, wraps, aligned = self._offsets(m, leave)
        last, end, fresh = self._counts(m, leave, older_valid)
        drop, enabled = Signal(), Signal()
        m.d.sync += [enabled.eq(self.enable), self.leaving.eq(leave)]
        m.d.comb += [
            leave.eq(enabled & older_valid & (newer_valid | ~straddles) & ~fresh & ~drop),
            pop.eq((leave & wraps) | drop),
        ]
        # the rest of the beat in which a tensor ends is dropped
        m.d.sync += drop.eq(leave & end & ~aligned)
        with m.If(leave & end):
            m.d.sync += self._restart

        # shift the piece down, a level a cycle
        window = Signal(self.arch.piece_bits + self._reach(0), name="s0_window", reset_less=True)
        s_offset = Signal(max(1, (self.places - 1).bit_length()), name="s0_offset", reset_less=True)
        m.d.sync += [window.eq(Cat(older, newer)), s_offset.eq(offset)]
        value: Value = window
        for level in range(self.levels):
            step = self.levels - 1 - level
            digit = s_offset[_RADIX_BITS * step : _RADIX_BITS * (step + 1)]
            moved = Signal(self.arch.piece_bits + self._reach(level + 1), name=f"s{level + 1}_window", reset_less=True)
            with m.Switch(digit):
                for places in range(1 << len(digit)):
                    with m.Case(places):
                        m.d.sync += moved.eq(value[places * (self.arch.granule_bits << _RADIX_BITS * step) :])
            following = Signal.like(s_offset, name=f"s{level + 1}_offset")
            m.d.sync += following.eq(s_offset)
            value, s_offset = moved, following
        m.d.comb += self.piece.eq(value)
        valid, lasts = Signal(self.latency, name="s_valid"), Signal(self.latency, name="s_last", reset_less=True)
        m.d.sync += [valid.eq(Cat(leave, valid)), lasts.eq(Cat(last, lasts))]
        m.d.comb += [self.valid.eq(valid[-1]), self.last.eq(lasts[-1])]
        return m

    def _reach(self, level: int) -> int:
        """Bits above the piece that levels from this one on may still shift in."""
        below = min(1 << _RADIX_BITS * (self.levels - level), self.places) - 1
        return below * self.arch.granule_bits

    def _offsets(self, m: Module, leave: Value) -> tuple[Value, Value, Value, Value]:
        """The offset of the next piece, a cyclic counter, with flags of its own in registers."""
        length = self.arch.piece_bits // self.arch.granule_bits

        def flags(place: int) -> tuple[int, int, int]:
            end = place + length
            return int(end > self.places), int(end >= self.places), int(end % self.places == 0)

        offset = Signal(range(max(2, self.places)), name="offset")
        signals = tuple(
            Signal(name=name, init=init) for name, init in zip(("straddles", "wraps", "aligned"), flags(0), strict=True)
        )
        self._restart = (
            []
            if self.places == 1
            else [offset.eq(0), *(signal.eq(init) for signal, init in zip(signals, flags(0), strict=True))]
        )
        if self.places == 1:  # a piece is a beat
            return offset, *(Const(flag, 1) for flag in flags(0))
        with m.If(leave), m.Switch(offset):
            for place in range(self.places):
                following = (place + length) % self.places
                with m.Case(place):
                    m.d.sync += offset.eq(following)
                    m.d.sync += [signal.eq(flag) for signal, flag in zip(signals, flags(following), strict=True)]
        straddles, wraps, aligned = signals
        return offset, straddles, wraps, aligned

    def _counts(self, m: Module, leave: Value, arrived: Value) -> tuple[Value, Value, Signal]:
        """Pieces left of the tile and tiles left of the tensor, less two: negative where this one is the last."""
        fresh = Signal(init=1)
        row, tile = Signal(range(-1, 1 << COUNT_BITS), name="row"), Signal(range(-1, 1 << COUNT_BITS), name="tile")
        last, end = row[-1], row[-1] & tile[-1]
        with m.If(fresh):
            m.d.sync += [row.eq(self.rows - 2), tile.eq(self.tiles - 2), fresh.eq(~arrived)]
        with m.Elif(leave):
            m.d.sync += [row.eq(Mux(last, self.rows - 2, row - 1)), fresh.eq(end)]
            with m.If(last):
                m.d.sync += tile.eq(tile - 1)
        return last, end, fresh
