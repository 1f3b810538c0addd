"""The dequantizer: a stream of memory beats in, the chain's weight beats out."""

from functools import partial
from typing import Any

from amaranth.hdl import Cat, Const, Elaboratable, Module, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout, StructLayout
from amaranth.lib.wiring import In, Out

from sparsefab.hw.dequantize.arch import CHAIN_BITS, DequantizeArch
from sparsefab.hw.dequantize.decode import CodeDecoder
from sparsefab.hw.dequantize.expand import BitmapExpander
from sparsefab.hw.dequantize.unpack import COUNT_BITS, Unpacker
from sparsefab.hw.fifo import CreditFifo
from sparsefab.hw.modules import Inline, Placer

__all__ = ["Dequantizer", "beats_layout"]

_BLOCK = 16
_INDEX_BITS = 4


def beats_layout(arch: DequantizeArch) -> StructLayout:
    """A weight beat as `hw.chain.weights_layout` has it: weights of one row or two, indices, whether the tile ends."""
    weights = ArrayLayout(ArrayLayout(signed(CHAIN_BITS), arch.rows), arch.dsps)
    return StructLayout({"weights": weights, "indices": ArrayLayout(_INDEX_BITS, arch.dsps), "last": 1})


class Dequantizer(wiring.Component):
    """Unpack pieces of `formats.ChainMemory`, expand positions, decode codes.

    Parameters
    ----------
    arch : DequantizeArch
    body, placer               As for SparseChain.

    Members
    -------
    i : In(stream)             Memory beats of arch.beat_bits: the section `pieces`, filled up to whole beats.
    rows, tiles : In(16)       Chain beats of a tile (rows, or pairs of rows), tiles of the tensor; see `Unpacker`.
    o : Out(stream)            `beats_layout`; last ends a tile.

    Notes
    -----
    A chain beat a cycle while memory delivers arch.beats_per_piece; latency + 2 cycles. It free-runs behind a credited
    FIFO: no path leads from o.ready into it. Group multipliers are not applied here but to the chain's sums.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, *, arch: DequantizeArch, body: str = "behavioural", placer: Placer | None = None) -> None:
        self.arch, self.body, self.placer = arch, body, placer if placer is not None else Inline()
        self._unpacker = Unpacker(arch=arch)
        self._expanding = BitmapExpander.latency if arch.positions == "bitmap" else 0
        self.latency = self._unpacker.latency + self._expanding + 1
        super().__init__(
            {
                "i": In(stream.Signature(arch.beat_bits)),
                "rows": In(COUNT_BITS),
                "tiles": In(COUNT_BITS),
                "o": Out(stream.Signature(beats_layout(arch))),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        arch, used = self.arch, self.arch.layout.used_dsps
        stored = used * arch.rows * CHAIN_BITS
        index_bits = 0 if arch.positions == "all" else used * _INDEX_BITS
        shape = StructLayout({"weights": stored, **({"indices": index_bits} if index_bits else {}), "last": 1})
        m.submodules.fifo = fifo = CreditFifo(shape=shape, body=self.body, placer=self.placer, ahead=1)
        m.submodules.unpack = unpack = self._unpacker
        wiring.connect(m, wiring.flipped(self.i), unpack.i)
        m.d.comb += [
            unpack.rows.eq(self.rows),
            unpack.tiles.eq(self.tiles),
            unpack.enable.eq(fifo.available),
            fifo.take.eq(unpack.leaving),
        ]

        # positions become indices, the rest of the piece waits for them
        indices = self._indices(m, unpack.piece[arch.positions_at : arch.zeros_at])
        rest = Cat(unpack.piece[: arch.positions_at], unpack.piece[arch.zeros_at :], unpack.last)
        rest = _delayed(m, rest, self._expanding, "waiting")
        valid = _delayed(m, unpack.valid, self._expanding, "valid", reset_less=False)
        codes, zeros = rest[: arch.positions_at], rest[arch.positions_at : -1]

        # codes to weights, every slot for itself, a cycle
        values = [self._decoded(m, number, codes, zeros) for number in range(used * arch.rows)]
        m.d.comb += [
            fifo.data.weights.eq(Cat(values)),
            *([fifo.data.indices.eq(_delayed(m, indices, 1, "indices"))] if index_bits else []),
            fifo.data.last.eq(_delayed(m, rest[-1], 1, "last")),
            fifo.push.eq(_delayed(m, valid, 1, "push", reset_less=False)),
        ]

        # what the chain wants to see: unused DSPs at rest; a dense slot's activation is word 0 of its bank
        out = self.o.payload
        m.d.comb += [
            self.o.valid.eq(fifo.o.valid),
            fifo.o.ready.eq(self.o.ready),
            out.last.eq(fifo.o.payload.last),
        ]
        for slot in range(used):
            for row in range(arch.rows):
                word = fifo.o.payload.weights.word_select(slot * arch.rows + row, CHAIN_BITS)
                m.d.comb += out.weights[slot][row].eq(word)
            index = fifo.o.payload.indices.word_select(slot, _INDEX_BITS) if index_bits else 0
            m.d.comb += out.indices[slot].eq(index)
        return m

    def _indices(self, m: Module, positions: Value) -> Value:
        """Indices of all slots, `_expanding` cycles after the positions."""
        layout = self.arch.layout
        slots = layout.chain.slots
        if self.arch.positions == "index":  # the block of m that a slot belongs to is known
            return Cat(
                Cat(positions.word_select(slot, layout.index_bits), Const(slot % slots // layout.slots_per_m, 4))[:4]
                for slot in range(layout.used_dsps)
            )
        if self.arch.positions == "all":
            return Const(0, 0)
        found = []
        for block in range(layout.chain.blocks_per_tile):
            make = partial(BitmapExpander, slots=slots)
            expander: Any = self.placer.place(m, f"expander{block}", "sparsefab_bitmap_expander", make)
            m.d.comb += expander.bitmap.eq(positions.word_select(block, _BLOCK))
            found.append(Value.cast(expander.indices))
        return Cat(found)

    def _decoded(self, m: Module, number: int, codes: Value, zeros: Value) -> Value:
        arch, bits = self.arch, self.arch.code_format.bits
        make = partial(CodeDecoder, format=arch.format, asymmetric=arch.zero_unit > 0)
        decoder: Any = self.placer.place(m, f"decoder{number}", "sparsefab_code_decoder", make)
        m.d.comb += decoder.code.eq(codes.word_select(number, bits))
        if arch.zero_unit:
            slot, row = divmod(number, arch.rows)
            unit = slot // arch.slots * _BLOCK // arch.zero_unit
            m.d.comb += decoder.zero_point.eq(zeros.word_select(unit * arch.rows + row, bits))
        return decoder.value


def _delayed(m: Module, value: Value, cycles: int, name: str, *, reset_less: bool = True) -> Value:
    for cycle in range(cycles):
        register = Signal(len(value), name=f"{name}{cycle}", reset_less=reset_less)
        m.d.sync += register.eq(value)
        value = register
    return value
