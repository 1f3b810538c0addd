"""A segment of the chain: DSPs in cascade, each with its own activation bank, fed with skew."""

from typing import Any

from amaranth.hdl import Cat, Const, Elaboratable, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.wiring import In, Out

from sparsefab.arch import LANE_BITS, ChainArch
from sparsefab.hw.modules import Placer
from sparsefab.hw.primitives.dsp48e2 import DSP48E2, OPMODE_CASCADE, OPMODE_FIRST_ROUNDED
from sparsefab.hw.select import LutRam

__all__ = ["ChainSegment", "segment_bits"]

_INMODE_ADD_D_AND_A = 0b00100  # multiply B2 with D + A2


class ChainSegment(wiring.Component):
    """Sum over `arch.segment` DSPs of weight times selected activation, for two lanes at once.

    Parameters
    ----------
    arch : ChainArch
    body : str                 'behavioural' or 'vendor' primitives.
    placer : Placer            Where the parts that are emitted once come from.

    Members
    -------
    weights : In               s8[segment], taken in every cycle.
    indices : In               u4[segment], the activation of the bank that each weight meets.
    write_enable, write_index, pairs : In
                               Activations, lanes of each DSP, into word `write_index` of a bank.
    read_bank, write_bank : In(1)
                               Which bank the weights and activations of the cycle before concern.
    total : Out                Packed sum: upper lane from bit 18, signed; lower lane plus arch.lane_offset below.

    Notes
    -----
    Latency segment + 4 cycles from weights to total; one beat a cycle. A write is seen by weights that come one cycle
    later or more; weights that came up to segment - 1 cycles before a write of the same word may see it, too.
    """

    def __init__(self, *, arch: ChainArch, body: str, placer: Placer) -> None:
        self.arch, self.body, self.placer = arch, body, placer
        super().__init__(
            {
                "weights": In(arch.segment * arch.weight_bits),
                "indices": In(arch.segment * arch.index_bits),
                "read_bank": In(1),
                "write_enable": In(1),
                "write_index": In(arch.index_bits),
                "write_bank": In(1),
                "pairs": In(ArrayLayout(arch.lanes * arch.activation_bits, arch.segment)),
                "total": Out(segment_bits(arch)),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        arch = self.arch
        # stage 0: take the inputs
        s0_weights = Signal.like(self.weights, reset_less=True)
        s0_indices = Signal.like(self.indices, reset_less=True)
        s0_index = Signal.like(self.write_index, reset_less=True)
        s0_pairs = Signal.like(self.pairs, reset_less=True)
        s0_write = Signal()
        bank = self.read_bank
        m.d.sync += [
            s0_weights.eq(self.weights),
            s0_indices.eq(self.indices),
            s0_write.eq(self.write_enable),
            s0_index.eq(self.write_index),
            s0_pairs.eq(self.pairs),
        ]

        # selection: the weights' indices read the banks
        banks: Any = self.placer.place(
            m,
            "banks",
            "sparsefab_banks",
            lambda: LutRam(
                memories=arch.segment, width=arch.lanes * arch.activation_bits, body=self.body, placer=self.placer
            ),
        )
        m.d.comb += [
            banks.write_address.eq(Cat(s0_index, self.write_bank)),
            *(getattr(banks, f"write_data{d}").eq(s0_pairs[d]) for d in range(arch.segment)),
            banks.write_enable.eq(s0_write),
        ]

        previous: Any = None
        for d in range(arch.segment):
            # skew: DSP d sees a beat d cycles after DSP 0, when its neighbour's sum is there
            weight, index = s0_weights.word_select(d, arch.weight_bits), s0_indices.word_select(d, arch.index_bits)
            for step in range(d):
                weight = _delayed(m, weight, f"s{step + 1}_weight{d}")
                index = _delayed(m, index, f"s{step + 1}_index{d}")
            if d:
                bank = _delayed(m, bank, f"s{d}_bank")

            m.d.comb += getattr(banks, f"read_address{d}").eq(Cat(index, bank))
            pair = getattr(banks, f"read_data{d}")
            lower, upper = (pair.word_select(lane, arch.activation_bits).as_signed() for lane in range(arch.lanes))

            # multiply and cascade: two products of one weight, added to the neighbour's
            dsp = self.placer.place(m, f"dsp{d}", "sparsefab_dsp48e2", self._make_dsp)
            packed = Cat(Const(0, LANE_BITS), upper)
            m.d.comb += [
                dsp.A.eq(packed.as_signed()),
                dsp.D.eq(lower),
                dsp.B.eq(weight.as_signed()),
                dsp.INMODE.eq(_INMODE_ADD_D_AND_A),
                dsp.OPMODE.eq(OPMODE_FIRST_ROUNDED if previous is None else OPMODE_CASCADE),
            ]
            if previous is not None:
                m.d.comb += dsp.PCIN.eq(previous.PCOUT)
            previous = dsp
        m.d.comb += self.total.eq(previous.P[: len(self.total)])
        return m

    def _make_dsp(self) -> DSP48E2:
        """Every register on the way is used: A1/D, AD, M, P for the activations, B1, B2, M, P for the weight."""
        return DSP48E2(
            body=self.body,
            attributes={
                "AREG": 1,
                "ACASCREG": 1,
                "BREG": 2,
                "BCASCREG": 2,
                "DREG": 1,
                "ADREG": 1,
                "MREG": 1,
                "PREG": 1,
                "AMULTSEL": "AD",
                "RND": self.arch.lane_offset,
            },
        )


def segment_bits(arch: ChainArch) -> int:
    """Bits of a segment's packed sum: the lower lane, and the upper lane's sum with its sign."""
    low, high = arch.product_range
    return LANE_BITS + max((arch.segment * high).bit_length(), (-arch.segment * low - 1).bit_length()) + 1


def _delayed(m: Module, value: Signal, name: str) -> Signal:
    register = Signal(len(value), name=name, reset_less=True)
    m.d.sync += register.eq(value)
    return register
