"""The activation-stationary sparse DSP chain: segments, bank control, reduction and a credited output."""

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout, StructLayout
from amaranth.lib.wiring import In, Out

from sparsefab.arch import ChainArch
from sparsefab.hw.ends import PartsTree
from sparsefab.hw.fifo import CreditFifo
from sparsefab.hw.modules import Inline, Placer
from sparsefab.hw.pairing import ActivationPacker
from sparsefab.hw.reduce import ReduceTree
from sparsefab.hw.segment import ChainSegment

__all__ = ["SparseChain", "acts_layout", "sums_layout", "weights_layout"]


def weights_layout(arch: ChainArch) -> StructLayout:
    """One weight beat: the packed bytes of `formats.Chain`, then `last` = end of the tile.

    With arch.matrix_vector the bytes of the layout with pairs, in every tile; lane 1's are ignored where tokens share.
    With arch.ends, before `last`: a bit a group of two DSPs, a row starts there; at most one in a segment.
    """
    weights = ArrayLayout(signed(arch.weight_bits), arch.weight_rows)
    return StructLayout(
        {"weights": ArrayLayout(weights, arch.dsps), "indices": ArrayLayout(arch.index_bits, arch.dsps)}
        | ({"starts": arch.dsps // arch.group} if arch.ends else {})
        | {"last": 1}
    )


def acts_layout(arch: ChainArch) -> StructLayout:
    """One activation beat: word `index` for each DSP of every segment marked in `segments`; `last` = bank complete.

    `vector`, the same for the whole bank: one token, in lane 0, whose products with two rows a DSP are wanted.
    """
    pair = ArrayLayout(signed(arch.activation_bits), arch.lanes)
    return StructLayout(
        {"pairs": ArrayLayout(pair, arch.segment), "index": arch.index_bits, "segments": arch.segments}
        | ({"vector": 1} if arch.matrix_vector else {})
        | {"last": 1}
    )


def sums_layout(arch: ChainArch) -> StructLayout:
    """One result: a signed sum for each lane, and the weight beat's `last`.

    With arch.ends the parts of rows that share the beat, as `PartsTree` gives them.
    """
    lanes = ArrayLayout(signed(arch.sum_bits), arch.lanes)
    if arch.ends:
        return StructLayout({"parts": ArrayLayout(lanes, arch.parts), "used": arch.parts, "last": 1})
    return StructLayout({"lanes": lanes, "last": 1})


class SparseChain(wiring.Component):
    """Multiply weight beats with the activations of a tile that stay in the DSPs' banks.

    Parameters
    ----------
    arch : ChainArch
    body : str                 'behavioural' or 'vendor' primitives.
    placer : Placer            Where repeated parts come from; `Inline()` for Amaranth's simulator.

    Members
    -------
    weights : In(stream)       `weights_layout`: L weights and L indices; starts when the tile's bank is complete.
    acts : In(stream)          `acts_layout`: fills the bank that is not read; 16 * segments beats or fewer.
    sums : Out(stream)         `sums_layout`: sum over d of weight[d] * bank[d][index[d]] for each lane: the token's,
                               or in a `vector` tile the row's.

    Notes
    -----
    Each DSP has its own bank, so every N:16 pattern and dense run without a change of the hardware: N DSPs hold the
    same block. Throughput one beat a cycle; latency arch.latency_cycles + 2. The pipeline never stalls: a beat enters
    when the output FIFO has a place for it, so no path runs from sums.ready into it.
    """

    weights: stream.Interface
    acts: stream.Interface
    sums: stream.Interface

    def __init__(self, *, arch: ChainArch, body: str = "behavioural", placer: Placer | None = None) -> None:
        self.arch, self.body, self.placer = arch, body, placer if placer is not None else Inline()
        super().__init__(
            {
                "weights": In(stream.Signature(weights_layout(arch))),
                "acts": In(stream.Signature(acts_layout(arch))),
                "sums": Out(stream.Signature(sums_layout(arch))),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        arch, weights, acts = self.arch, self.weights, self.acts
        m.submodules.fifo = fifo = CreditFifo(shape=sums_layout(arch), body=self.body, placer=self.placer)
        reduce = PartsTree(arch=arch, body=self.body, placer=self.placer) if arch.ends else ReduceTree(arch=arch)
        m.submodules.reduce = reduce

        # handshakes: ready comes from registers, what was accepted is acted on one cycle later
        beat, s0_beat, s0_last = Signal(name="beat"), Signal(name="s0_beat"), Signal(name="s0_last")
        write, s0_write, s0_complete = Signal(name="write"), Signal(name="s0_write"), Signal(name="s0_complete")
        done, filled = Signal(name="done"), Signal(name="filled")
        m.d.comb += [
            beat.eq(weights.valid & weights.ready),
            write.eq(acts.valid & acts.ready),
            done.eq(s0_beat & s0_last),
            filled.eq(s0_write & s0_complete),
            fifo.take.eq(s0_beat),
        ]
        m.d.sync += [
            s0_beat.eq(beat),
            s0_last.eq(weights.payload.last),
            s0_write.eq(write),
            s0_complete.eq(acts.payload.last),
        ]

        # banks: complete ones may be read, freed ones written, each kind in turn
        read_bank, write_bank = Signal(name="read_bank"), Signal(name="write_bank")
        m.d.sync += [read_bank.eq(read_bank ^ done), write_bank.eq(write_bank ^ filled)]
        # a bank that was left is still read by the skewed DSPs for a segment's length
        freed = _delay(m, done, arch.segment, "freed")
        m.d.comb += [
            weights.ready.eq(_remains(m, "complete", up=filled, down=done, start=0) & fifo.available),
            acts.ready.eq(_remains(m, "free", up=freed, down=filled, start=arch.banks)),
        ]

        # what the banks take: pairs, or pairs packed for the multiplier, a cycle later
        entered: dict[str, Value] = {
            "enable": write.replicate(arch.segments) & acts.payload.segments,
            "index": acts.payload.index,
            "bank": write_bank,
            "pairs": Value.cast(acts.payload.pairs),
        }
        matrix = Signal(init=1)
        if arch.matrix_vector:
            m.submodules.packer = packer = ActivationPacker(arch=arch)
            m.d.comb += [packer.vector.eq(acts.payload.vector), Value.cast(packer.pairs).eq(entered["pairs"])]
            entered = {name: _delay_word(m, value, name) for name, value in entered.items() if name != "pairs"}
            entered["pairs"] = Value.cast(packer.words)
            s0_vector = Signal(name="s0_vector")
            vectors = [Signal(name=f"vector{bank}") for bank in range(arch.banks)]
            m.d.sync += s0_vector.eq(acts.payload.vector)
            for bank, vector in enumerate(vectors):
                with m.If(filled & (write_bank == bank)):
                    m.d.sync += vector.eq(s0_vector)
            m.d.comb += matrix.eq(~Mux(read_bank, vectors[1], vectors[0]))

        # segments: side by side, no skew between them; their parts of the beat are cut from its bits, because a view
        # of an array of thousands of elements costs its whole length at each access
        beat_bits = Value.cast(weights.payload)
        segment_weights = arch.segment * arch.weight_rows * arch.weight_bits
        segment_indices, first_index = arch.segment * arch.index_bits, arch.segments * segment_weights
        for s in range(arch.segments):
            segment = self.placer.place(
                m,
                f"segment{s}",
                "sparsefab_chain_segment",
                lambda: ChainSegment(arch=arch, body=self.body, placer=self.placer),
            )
            m.d.comb += [
                segment.weights.eq(beat_bits.word_select(s, segment_weights)),
                segment.indices.eq(beat_bits[first_index:].word_select(s, segment_indices)),
                segment.read_bank.eq(read_bank),
                segment.write_enable.eq(entered["enable"][s]),
                segment.write_index.eq(entered["index"]),
                segment.write_bank.eq(entered["bank"]),
                segment.pairs.eq(entered["pairs"]),
                reduce.totals[s].eq(segment.total),
            ]
            if arch.matrix_vector:
                m.d.comb += segment.matrix.eq(matrix)
            if isinstance(reduce, PartsTree):
                m.d.comb += [
                    segment.starts.eq(weights.payload.starts.word_select(s, arch.segment_groups)),
                    reduce.heads[s].eq(segment.head),
                    reduce.starting[s].eq(segment.starting),
                ]

        # results: valid and last travel beside the data
        m.d.comb += [
            fifo.push.eq(_delay(m, beat, arch.latency_cycles, "valid")),
            fifo.data.last.eq(_delay(m, weights.payload.last, arch.latency_cycles, "last")),
        ]
        if isinstance(reduce, PartsTree):
            m.d.comb += [Value.cast(fifo.data.parts).eq(Value.cast(reduce.parts)), fifo.data.used.eq(reduce.used)]
        else:
            m.d.comb += Value.cast(fifo.data.lanes).eq(Value.cast(reduce.sums))
        wiring.connect(m, fifo.o, wiring.flipped(self.sums))
        return m


def _delay(m: Module, value: Value, cycles: int, name: str) -> Value:
    """Shift a bit by whole cycles."""
    stages = Signal(cycles, name=name)
    m.d.sync += stages.eq(Cat(value, stages)[:cycles])
    return stages[-1]


def _delay_word(m: Module, value: Value, name: str) -> Signal:
    """Put a register behind what enters the banks."""
    register = Signal(len(value), name=f"s0_{name}", reset_less=True)
    m.d.sync += register.eq(value)
    return register


def _remains(m: Module, name: str, *, up: Value, down: Value, start: int) -> Value:
    """Count 0 to 2 banks in two flags, "at least one" and "two"; return whether one remains after this `down`."""
    one, two = Signal(name=f"{name}_one", init=start > 0), Signal(name=f"{name}_two", init=start > 1)
    with m.If(up & ~down):
        m.d.sync += [one.eq(1), two.eq(one)]
    with m.Elif(down & ~up):
        m.d.sync += [one.eq(two), two.eq(0)]
    return one & (two | ~down)
