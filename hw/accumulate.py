"""Accumulators over tiles behind chains: acc = bias + sum over tiles of group scale * partial sum, exact."""

from typing import Any, Final

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout, StructLayout
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sparsefab.arch import AccumulatorArch, ChainArch
from sparsefab.hw.fifo import CreditFifo
from sparsefab.hw.modules import Inline, Placer
from sparsefab.hw.primitives.dsp48e2 import DSP48E2, OPMODE_MULTIPLY_ADD_C
from sparsefab.hw.requantize import MULTIPLIER_BITS, SHIFT_BITS, requantize_layout
from sparsefab.hw.tiles import TileControl, tiles_layout

__all__ = ["AccumulateUnit", "partials_layout", "results_layout", "rows_layout"]

_FACTOR_BITS: Final = 27  # the A port's multiplier operand
_SUM_STAGES: Final = 3  # from a beat to its row's new sum: read, C and M (or the operand), P (or the adder)


def partials_layout(chain: ChainArch, chains: int) -> StructLayout:
    """One beat: each chain's sums of a row, and `last` = end of the tile."""
    lanes = ArrayLayout(signed(chain.sum_bits), chain.lanes)
    return StructLayout({"lanes": ArrayLayout(lanes, chains), "last": 1})


def rows_layout(chain: ChainArch, arch: AccumulatorArch, chains: int) -> ArrayLayout:
    """One beat: what belongs to the row of each chain: the scale of its group, its bias, its requantization.

    Where lanes may be rows (chain.matrix_vector), one entry for each lane; where they are tokens both say the same.
    """
    row = StructLayout(
        {
            "group": arch.multiplier_bits,
            "bias": signed(chain.accumulator_bits),
            "shift": signed(SHIFT_BITS),
            "multiplier": MULTIPLIER_BITS,
        }
    )
    return ArrayLayout(ArrayLayout(row, chain.weight_rows), chains)


def results_layout(chain: ChainArch, chains: int) -> ArrayLayout:
    """One beat: a requantizer's input for each chain, or where lanes may be rows for each lane of each chain."""
    own = chain.weight_rows
    return ArrayLayout(requantize_layout(chain.accumulator_bits, chain.lanes // own), chains * own)


class AccumulateUnit(wiring.Component):
    """Add the partial sums of chains that run in step, tile by tile, in a memory of rows.

    Parameters
    ----------
    chain : ChainArch          Widths of the partial sums and of the accumulators.
    arch : AccumulatorArch     Rows of the memory, bits of the group scales.
    chains : int               Chains in step; one control serves all.
    body, placer               As for SparseChain.

    Members
    -------
    sums : In(stream)          `partials_layout`: rows innermost, then tiles; a tile has 1 to arch.rows beats.
    tiles : In(stream)         `tiles_layout`, one beat a tile.
    rows : In(stream)          `rows_layout`: with group scales a beat for each of `sums`, else only for those of final
                               tiles, which alone look at bias, shift and multiplier.
    results : Out(stream)      `results_layout`, a beat for each of a final tile.

    Notes
    -----
    One beat a cycle, without a bubble between tiles of 4 or more rows; a shorter one takes 4 cycles, so that a row is
    never read before it is written. Latency 7 cycles from a beat of a final tile to its result. A lane is a DSP that
    multiplies and adds, or without group scales an adder. No ready depends on results.ready.
    """

    sums: stream.Interface
    tiles: stream.Interface
    rows: stream.Interface
    results: stream.Interface

    def __init__(
        self,
        *,
        chain: ChainArch,
        arch: AccumulatorArch,
        chains: int = 1,
        body: str = "behavioural",
        placer: Placer | None = None,
    ) -> None:
        if chains < 1:
            raise ValueError(f"chains must be positive, not {chains}")
        if arch.multiplier_bits and chain.sum_bits > _FACTOR_BITS:
            raise ValueError(
                f"dsps must keep a chain's sums within {_FACTOR_BITS} bits to be multiplied, not {chain.dsps}, "
                f"which make {chain.sum_bits}"
            )
        self.chain, self.arch, self.chains, self.body = chain, arch, chains, body
        self.placer = placer if placer is not None else Inline()
        super().__init__(
            {
                "sums": In(stream.Signature(partials_layout(chain, chains))),
                "tiles": In(stream.Signature(tiles_layout())),
                "rows": In(stream.Signature(rows_layout(chain, arch, chains))),
                "results": Out(stream.Signature(results_layout(chain, chains))),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        sums, rows = self.sums, self.rows
        results = results_layout(self.chain, self.chains)
        fifo = CreditFifo(shape=results, ahead=1, body=self.body, placer=self.placer)
        m.submodules.fifo = fifo

        # control: a beat enters with what belongs to it; its row is counted a cycle later
        m.submodules.control = control = TileControl(grouped=self.arch.multiplier_bits > 0)
        wiring.connect(m, wiring.flipped(self.tiles), control.tiles)
        m.d.comb += [
            control.sums_valid.eq(sums.valid),
            control.rows_valid.eq(rows.valid),
            control.last.eq(sums.payload.last),
            control.room.eq(fifo.available),
            sums.ready.eq(control.sums_ready),
            rows.ready.eq(control.rows_ready),
        ]
        s0_row = Signal(range(self.arch.rows))
        with m.If(control.s0_ends):
            m.d.sync += s0_row.eq(0)
        with m.Elif(control.s0_enters):
            m.d.sync += s0_row.eq(s0_row + 1)

        # sums: read the row, add, write it back; in a final tile add the bias and let it leave
        s1_first = _later(m, control.s0_first, "first", 1)[-1]
        written = _later(m, control.s0_enters, "valid", _SUM_STAGES)[-1]
        leaves = _later(m, control.s0_leaves, "leaves", _SUM_STAGES + 1)[-1]
        written_row = _later(m, s0_row, "row", _SUM_STAGES)[-1]
        with_sum, with_result = _later(m, Value.cast(rows.payload), "rows", _SUM_STAGES + 2)[-2:]
        layout = rows_layout(self.chain, self.arch, self.chains)
        own = self.chain.weight_rows  # rows of a chain in one beat
        for c in range(self.chains):
            lanes: Any = self.placer.place(
                m,
                f"chain{c}",
                "sparsefab_accumulate_lanes",
                lambda: AccumulateLanes(chain=self.chain, arch=self.arch, body=self.body, placer=self.placer),
            )
            m.d.comb += [
                lanes.partial.eq(Value.cast(sums.payload.lanes[c])),
                lanes.s0_read_row.eq(s0_row),
                lanes.s1_first.eq(s1_first),
                lanes.write_row.eq(written_row),
                lanes.write_enable.eq(written),
                lanes.bias.eq(Cat(row.bias for row in layout(with_sum)[c])),
            ]
            for k, row in enumerate(layout(with_result)[c]):
                data = fifo.data[c * own + k]
                m.d.comb += [
                    Value.cast(data.accumulators).eq(lanes.result.word_select(k, len(lanes.result) // own)),
                    data.shift.eq(row.shift),
                    data.multiplier.eq(row.multiplier),
                ]
            if self.arch.multiplier_bits:
                m.d.comb += lanes.group.eq(Cat(row.group for row in rows.payload[c]))
        m.d.comb += [fifo.take.eq(control.s0_leaves), fifo.push.eq(leaves)]
        wiring.connect(m, fifo.o, wiring.flipped(self.results))
        return m


class AccumulateLanes(wiring.Component):
    """One chain's rows: a memory, and for each lane a DSP or an adder.

    Parameters
    ----------
    chain, arch, body, placer  As for AccumulateUnit.

    Members
    -------
    partial, group : In        Of the beat that enters; `group` for each of its rows, only with arch.multiplier_bits.
    s0_read_row : In           A cycle later: its row.
    s1_first : In              Two cycles later: start at 0.
    write_row, write_enable, bias : In
                               Four cycles later, when the new sum is there; a bias for each row of the beat.
    result : Out               A cycle later: the new sums of all lanes, plus the bias.
    """

    def __init__(self, *, chain: ChainArch, arch: AccumulatorArch, body: str, placer: Placer) -> None:
        self.chain, self.arch, self.body, self.placer = chain, arch, body, placer
        members = {
            "partial": In(chain.lanes * chain.sum_bits),
            "s0_read_row": In(range(arch.rows)),
            "s1_first": In(1),
            "write_row": In(range(arch.rows)),
            "write_enable": In(1),
            "bias": In(chain.weight_rows * chain.accumulator_bits),
            "result": Out(chain.lanes * chain.accumulator_bits),
        }
        if arch.multiplier_bits:
            members["group"] = In(chain.weight_rows * arch.multiplier_bits)
        super().__init__(members)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        width = self.chain.accumulator_bits
        memory = Memory(shape=self.chain.lanes * width, depth=self.arch.rows, init=[], attrs={"ram_style": "block"})
        m.submodules.memory = memory
        read, write = memory.read_port(), memory.write_port()
        m.d.comb += [
            read.addr.eq(self.s0_read_row),
            write.addr.eq(self.write_row),
            write.en.eq(self.write_enable),
        ]
        for lane in range(self.chain.lanes):
            own = lane % self.chain.weight_rows
            bias = self.bias.word_select(own, width).as_signed()
            partial = self.partial.word_select(lane, self.chain.sum_bits).as_signed()
            s1_row = read.data.word_select(lane, width).as_signed()
            s3_sum = Signal(signed(width), name=f"s3_sum{lane}", reset_less=True)
            if self.arch.multiplier_bits:
                dsp: Any = self.placer.place(m, f"dsp{lane}", "sparsefab_dsp48e2_accumulate", self._make_dsp)
                m.d.comb += [
                    dsp.A.eq(partial),
                    dsp.B.eq(self.group.word_select(own, self.arch.multiplier_bits)),
                    dsp.C.eq(s1_row),
                    dsp.RSTC.eq(self.s1_first),
                    dsp.OPMODE.eq(OPMODE_MULTIPLY_ADD_C),
                    s3_sum.eq(dsp.P),
                ]
            else:
                s2_partial = _later(m, partial, f"partial{lane}", 3)[-1].as_signed()
                s2_row = Signal(signed(width), name=f"s2_row{lane}", reset_less=True)
                m.d.sync += [s2_row.eq(Mux(self.s1_first, 0, s1_row)), s3_sum.eq(s2_row + s2_partial)]
            result = Signal(signed(width), name=f"result{lane}", reset_less=True)
            m.d.sync += result.eq(s3_sum + bias)
            m.d.comb += [
                write.data.word_select(lane, width).eq(s3_sum),
                self.result.word_select(lane, width).eq(result),
            ]
        return m

    def _make_dsp(self) -> DSP48E2:
        """A1 and B1, A2 and B2 while the row is read, M while C takes it (or 0), P."""
        return DSP48E2(
            body=self.body,
            attributes={"AREG": 2, "ACASCREG": 2, "BREG": 2, "BCASCREG": 2, "AMULTSEL": "A", "CREG": 1, "MREG": 1,
                        "PREG": 1},
        )  # fmt: skip


def _later(m: Module, value: Value, name: str, cycles: int) -> list[Signal]:
    """The value 1 to `cycles` cycles later."""
    stages: list[Signal] = []
    for cycle in range(cycles):
        register = Signal(len(value), name=f"s{cycle}_{name}", reset_less=len(value) > 1)
        m.d.sync += register.eq(stages[-1] if stages else value)
        stages.append(register)
    return stages
