"""One DSP of a segment: two products of one operand, added to its neighbour's packed sum."""

from typing import Any, Final, Literal

from amaranth.hdl import Cat, Const, Elaboratable, Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.arch import LANE_BITS, LANE_OFFSET, ChainArch
from sparsefab.hw.modules import Placer
from sparsefab.hw.primitives.dsp48e2 import DSP48E2
from sparsefab.hw.select import choose, extended
from sparsefab.hw.stages import later

__all__ = ["ChainStep", "StepKind"]

StepKind = Literal["first", "next", "restart"]

_INMODE_ADD_D_AND_A: Final = 0b00100  # multiply B2 with D + A2
_PRODUCT: Final = Const(0b01_01, 4)  # of OPMODE: X and Y


class ChainStep(wiring.Component):
    """Add (upper product << 18) + lower product to the packed sum that comes down the cascade.

    Parameters
    ----------
    arch : ChainArch
    kind : 'first' | 'next' | 'restart'
                               The first DSP of a segment starts with LANE_OFFSET instead of its neighbour's sum; one
                               that may restart does so beat by beat.
    body : str                 'behavioural' or 'vendor' primitives.
    placer : Placer            Where the primitives' wrappers come from.

    Members
    -------
    weight : In                s8[weight_rows].
    word : In                  Two activations as the bank holds them: a pair, or with arch.matrix_vector what
                               `ActivationPacker` makes of it.
    matrix : In(1)             With arch.matrix_vector: the weight meets two tokens, not two rows one token.
    start : In(1)              Of 'restart': this beat starts with LANE_OFFSET, a row begins here.
    split : In(1)              Of 'first', with arch.ends: a row begins further down, so 1 is added.
    cascade_in : In(48)        The neighbour's `cascade_out`, three cycles after weight and word.
    cascade_out, total : Out(48)
                               Four cycles after weight and word: to the next DSP, and to the fabric.

    Notes
    -----
    One beat a cycle. 4 LUT6_2 and a LUT for the second mode, none for tokens alone.
    """

    def __init__(self, *, arch: ChainArch, kind: StepKind, body: str, placer: Placer) -> None:
        self.arch, self.kind, self.body, self.placer = arch, kind, body, placer
        super().__init__(
            {"weight": In(arch.weight_rows * arch.weight_bits), "word": In(arch.word_bits)}
            | ({"matrix": In(1)} if arch.matrix_vector else {})
            | ({} if kind == "first" else {"cascade_in": In(48)})
            | ({"start": In(1)} if kind == "restart" else {})
            | ({"split": In(1)} if kind == "first" and arch.ends else {})
            | {"cascade_out": Out(48), "total": Out(48)}
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        dsp: Any = self.placer.place(m, "dsp", "sparsefab_dsp48e2", self._make_dsp)
        if self.arch.matrix_vector:
            self._either(m, dsp)
        else:
            self._tokens(m, dsp)
        if self.kind != "first":
            m.d.comb += dsp.PCIN.eq(self.cascade_in)
        elif self.arch.ends:
            m.d.comb += dsp.CARRYIN.eq(later(m, self.split, "split", 2))
        m.d.comb += [self.cascade_out.eq(dsp.PCOUT), self.total.eq(dsp.P)]
        return m

    def _tokens(self, m: Module, dsp: Any) -> None:
        """Two tokens share the weight: the pre-adder packs their activations."""
        lower, upper = (self.word.word_select(lane, self.arch.activation_bits).as_signed() for lane in range(2))
        m.d.comb += [
            dsp.A.eq(Cat(Const(0, LANE_BITS), upper).as_signed()),
            dsp.D.eq(lower),
            dsp.B.eq(self.weight.as_signed()),
            dsp.INMODE.eq(_INMODE_ADD_D_AND_A),
            dsp.OPMODE.eq(Cat(_PRODUCT, *self._addends(m, Const(0, 1)))),
        ]

    def _either(self, m: Module, dsp: Any) -> None:
        """Two tokens share the weight or two rows the activation, beat by beat.

        The pre-adder is the multiplexer of the pair: INMODE gates A or D. D takes the activation pair as the bank has
        it, packed: (a1 << 18) + a0. A takes the weights side by side, which is (w1 + 1 << 18) + w0 where w0 is
        negative; then C = -a << 18, from the bank's upper half, is added to make up for it.
        """
        arch, matrix = self.arch, self.matrix
        lower, upper = self.word[: arch.activation_bits], self.word[arch.activation_bits :]
        first, second = (self.weight.word_select(row, arch.weight_bits) for row in range(2))
        width = max(arch.weight_bits, arch.activation_bits)
        operand = choose(
            m, "operand", matrix, extended(first, width), extended(lower, width), body=self.body, placer=self.placer
        )
        # C, and whether it counts, arrive with the product: two cycles after the operands
        counts = later(m, first[-1] & ~matrix, "counts", 2)
        correction = later(m, upper, "correction", 2)
        m.d.comb += [
            dsp.A.eq(Cat(extended(first, LANE_BITS), second).as_signed()),
            dsp.D.eq(Cat(extended(lower, LANE_BITS), upper).as_signed()),
            dsp.B.eq(operand.as_signed()),
            dsp.C.eq(Cat(Const(0, LANE_BITS), correction).as_signed()),
            dsp.INMODE.eq(Cat(Const(0, 1), matrix, matrix, Const(0, 2))),
            dsp.OPMODE.eq(Cat(_PRODUCT, *self._addends(m, counts))),
        ]

    def _addends(self, m: Module, counts: Value) -> tuple[Value, Value]:
        """Z and W of OPMODE: the cascade on Z, or RND on W to start with; C, if it counts, on the other one."""
        none, cascade, c = Const(0, 1), Const(0b001, 3), Cat(counts, counts)
        if self.kind == "first":
            return Cat(c, none), Const(0b10, 2)
        if self.kind == "next":
            return cascade, c
        goes_on = later(m, ~self.start, "goes_on", 2)
        return Cat(goes_on | counts, ~goes_on & counts, none), Cat(goes_on & counts, ~goes_on | counts)

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
