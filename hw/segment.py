"""A segment of the chain: DSPs in cascade, each with its own activation bank, fed with skew."""

from typing import Any

from amaranth.hdl import Cat, Const, Elaboratable, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.arch import LANE_BITS, LANE_OFFSET, ChainArch
from sparsefab.hw.modules import Placer
from sparsefab.hw.primitives.dsp48e2 import DSP48E2, OPMODE_CASCADE, OPMODE_FIRST_ROUNDED
from sparsefab.hw.select import LutRam, choose
from sparsefab.hw.skew import BeatSkew

__all__ = ["ChainSegment"]

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
    weights : In               s8[segment][weight_rows], taken in every cycle.
    indices : In               u4[segment], the activation of the bank that each weight meets.
    write_enable, write_index, pairs : In
                               A word for each DSP, into place `write_index` of a bank.
    read_bank, write_bank : In(1)
                               Which bank the weights and activations of the cycle before concern.
    matrix : In(1)             With arch.matrix_vector: the weights of the cycle before meet two tokens, not two rows
                               one token.
    total : Out                Packed sum: upper lane from bit 18, signed; lower lane plus LANE_OFFSET below.

    Notes
    -----
    Words are pairs of activations, or with arch.matrix_vector what `ActivationPacker` makes of them. Latency
    segment + 4 cycles from weights to total; one beat a cycle. A write is seen by weights that come one cycle
    later or more; weights that came up to segment - 1 cycles before a write of the same word may see it, too.
    """

    def __init__(self, *, arch: ChainArch, body: str, placer: Placer) -> None:
        self.arch, self.body, self.placer = arch, body, placer
        super().__init__(
            {
                "weights": In(arch.segment * arch.weight_rows * arch.weight_bits),
                "indices": In(arch.segment * arch.index_bits),
                "read_bank": In(1),
                "write_enable": In(1),
                "write_index": In(arch.index_bits),
                "write_bank": In(1),
                "pairs": In(arch.segment * arch.word_bits),
                "total": Out(arch.segment_bits),
            }
            | ({"matrix": In(1)} if arch.matrix_vector else {})
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        arch = self.arch
        # stage 0: take the activations; weights and indices go into their skew
        s0_index = Signal.like(self.write_index, reset_less=True)
        s0_pairs = Signal.like(self.pairs, reset_less=True)
        s0_write = Signal()
        m.d.sync += [s0_write.eq(self.write_enable), s0_index.eq(self.write_index), s0_pairs.eq(self.pairs)]
        skew: Any = BeatSkew(
            dsps=arch.segment,
            weight_bits=arch.weight_rows * arch.weight_bits,
            index_bits=arch.index_bits,
            body=self.body,
            placer=self.placer,
        )
        m.submodules.skew = skew
        m.d.comb += [skew.weights.eq(self.weights), skew.indices.eq(self.indices)]

        # selection: the weights' indices read the banks
        banks: Any = self.placer.place(
            m,
            "banks",
            "sparsefab_banks",
            lambda: LutRam(memories=arch.segment, width=arch.word_bits, body=self.body, placer=self.placer),
        )
        m.d.comb += [
            banks.write_address.eq(Cat(s0_index, self.write_bank)),
            *(
                getattr(banks, f"write_data{d}").eq(s0_pairs.word_select(d, arch.word_bits))
                for d in range(arch.segment)
            ),
            banks.write_enable.eq(s0_write),
        ]

        bank: Value = self.read_bank
        matrix: Value = self.matrix if arch.matrix_vector else Const(1)
        previous: Any = None
        for d in range(arch.segment):
            if d:
                bank = _delayed(m, bank, f"s{d}_bank")
                matrix = _delayed(m, matrix, f"s{d}_matrix") if arch.matrix_vector else matrix
            m.d.comb += getattr(banks, f"read_address{d}").eq(Cat(getattr(skew, f"index{d}"), bank))
            word, weight = getattr(banks, f"read_data{d}"), getattr(skew, f"weight{d}")

            # multiply and cascade: two products of one operand, added to the neighbour's
            dsp: Any = self.placer.place(m, f"dsp{d}", "sparsefab_dsp48e2", self._make_dsp)
            if arch.matrix_vector:
                self._either(m, d, dsp, weight, word, matrix)
            else:
                self._tokens(m, d, dsp, weight, word)
            if previous is not None:
                m.d.comb += dsp.PCIN.eq(previous.PCOUT)
            previous = dsp
        m.d.comb += self.total.eq(previous.P[: arch.segment_bits])
        return m

    def _tokens(self, m: Module, d: int, dsp: Any, weight: Value, word: Value) -> None:
        """Two tokens share the weight: the pre-adder packs their activations."""
        lower, upper = (word.word_select(lane, self.arch.activation_bits).as_signed() for lane in range(2))
        m.d.comb += [
            dsp.A.eq(Cat(Const(0, LANE_BITS), upper).as_signed()),
            dsp.D.eq(lower),
            dsp.B.eq(weight.as_signed()),
            dsp.INMODE.eq(_INMODE_ADD_D_AND_A),
            dsp.OPMODE.eq(OPMODE_CASCADE if d else OPMODE_FIRST_ROUNDED),
        ]

    def _either(self, m: Module, d: int, dsp: Any, weight: Value, word: Value, matrix: Value) -> None:
        """Two tokens share the weight or two rows the activation, beat by beat.

        The pre-adder is the multiplexer of the pair: INMODE gates A or D. D takes the activation pair as the bank has
        it, packed: (a1 << 18) + a0. A takes the weights side by side, which is (w1 + 1 << 18) + w0 where w0 is
        negative; then W adds C = -a << 18, from the bank's upper half, to make up for it.
        """
        arch = self.arch
        lower, upper = word[: arch.activation_bits], word[arch.activation_bits :]
        first, second = weight.word_select(0, arch.weight_bits), weight.word_select(1, arch.weight_bits)
        width = max(arch.weight_bits, arch.activation_bits)
        operand = choose(
            m,
            f"operand{d}_",
            matrix,
            _extended(first, width),
            _extended(lower, width),
            body=self.body,
            placer=self.placer,
        )
        # C, and whether it counts, arrive with the product: two cycles after the operands
        negative = Signal(name=f"s{d + 1}_negative", reset_less=True)
        m.d.sync += negative.eq(first[-1] & ~matrix)
        counts = _delayed(m, negative, f"s{d + 2}_counts")
        correction = _delayed(m, _delayed(m, upper, f"s{d + 1}_upper"), f"s{d + 2}_upper")
        always = Const(0b01_01, 4)  # the product
        m.d.comb += [
            dsp.A.eq(Cat(_extended(first, LANE_BITS), second).as_signed()),
            dsp.D.eq(Cat(_extended(lower, LANE_BITS), upper).as_signed()),
            dsp.B.eq(operand.as_signed()),
            dsp.C.eq(Cat(Const(0, LANE_BITS), correction).as_signed()),
            dsp.INMODE.eq(Cat(Const(0, 1), matrix, matrix, Const(0, 2))),
            # W: C or 0, Z: the neighbour's sum; the first DSP has RND on W, so that C comes through Z
            dsp.OPMODE.eq(
                Cat(always, Const(0b001, 3), counts, counts) if d else Cat(always, counts, counts, Const(0b10_0, 3))
            ),
        ]

    def _make_dsp(self) -> DSP48E2:
        """Every register on the way is used: A1/D, AD, M, P for the pair, B1, B2, M, P for what it meets, C, P."""
        return DSP48E2(
            body=self.body,
            attributes={
                "AREG": 1,
                "ACASCREG": 1,
                "BREG": 2,
                "BCASCREG": 2,
                "CREG": 1,
                "DREG": 1,
                "ADREG": 1,
                "MREG": 1,
                "PREG": 1,
                "INMODEREG": 1,
                "OPMODEREG": 1,
                "AMULTSEL": "AD",
                "RND": LANE_OFFSET,
            },
        )


def _extended(value: Value, width: int) -> Value:
    """Repeat the sign up to `width` bits."""
    return Cat(value, value[-1].replicate(width - len(value)))


def _delayed(m: Module, value: Value, name: str) -> Signal:
    register = Signal(len(value), name=name, reset_less=True)
    m.d.sync += register.eq(value)
    return register
