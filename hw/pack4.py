"""Four int4 products in one DSP48E2: the outer product of two weights and two activations, summed down a cascade."""

from typing import Any, Final

from amaranth.hdl import Cat, Const, Elaboratable, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.hw.modules import Inline, Placer
from sparsefab.hw.primitives.dsp48e2 import DSP48E2, OPMODE_CASCADE, OPMODE_FIRST_ROUNDED

__all__ = ["LANE_BITS", "SUM_LIMIT", "NibbleSegment"]

OPERAND_BITS: Final = 4
LANE_BITS: Final = 11  # four lanes and their signs: 3 * 11 + 15 bits of P
_LANE_OFFSET: Final = (1 << (LANE_BITS - 1)) - 1
_LOW, _HIGH = -8 * 7, 8 * 8  # of a product
SUM_LIMIT: Final = min(_LANE_OFFSET // -_LOW, ((1 << LANE_BITS) - 1 - _LANE_OFFSET) // _HIGH)
_OFFSETS: Final = sum(_LANE_OFFSET << lane * LANE_BITS for lane in range(3))


class NibbleSegment(wiring.Component):
    """Sum w_i a_j over a cascade of DSPs, for two rows i and two tokens j: four products a DSP and cycle.

    P = ((w1 << 22) + w0) ((a1 << 11) + a0): lanes of 11 bits, w0 a0 lowest, then w0 a1, w1 a0, w1 a1. It wants two rows
    with the same positions, and two tokens.

    Parameters
    ----------
    dsps : int                 1 to SUM_LIMIT, the products that a lane sums exactly.
    body : str                 'behavioural' or 'vendor' primitives.
    placer : Placer            Where repeated parts come from.

    Members
    -------
    weights<d> : In(8)         s4 of row 0, then of row 1. For DSP d, d cycles after DSP 0's.
    activations<d> : In(8)     s4 of token 0, then of token 1; likewise.
    sums : Out                 Four signed numbers of sum_bits: w0 a0, w0 a1, w1 a0, w1 a1.

    Notes
    -----
    Latency 5 cycles from the last DSP's operands to its sums; one beat a cycle. The first DSP adds 2**10 - 1 to the
    three lower lanes through RND, so that no lane borrows from the next; the constants leave after the cascade.
    The caller skews the operands; 4.4 LUT a DSP for 16 DSPs (Yosys xcup), the skew not included.
    """

    def __init__(self, *, dsps: int, body: str = "behavioural", placer: Placer | None = None) -> None:
        if not 1 <= dsps <= SUM_LIMIT:
            raise ValueError(
                f"dsps must be 1 to {SUM_LIMIT}, the products that {LANE_BITS} bits sum exactly, not {dsps}"
            )
        self.dsps, self.body, self.placer = dsps, body, placer if placer is not None else Inline()
        self.sum_bits = (dsps * _HIGH).bit_length() + 1
        super().__init__(
            {f"weights{d}": In(2 * OPERAND_BITS) for d in range(dsps)}
            | {f"activations{d}": In(2 * OPERAND_BITS) for d in range(dsps)}
            | {"sums": Out(4 * self.sum_bits)}
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        previous: Any = None
        for d in range(self.dsps):
            first, second = (
                getattr(self, f"weights{d}").word_select(row, OPERAND_BITS).as_signed() for row in range(2)
            )
            lower, upper = (
                getattr(self, f"activations{d}").word_select(token, OPERAND_BITS).as_signed() for token in range(2)
            )
            dsp: Any = self.placer.place(m, f"dsp{d}", "sparsefab_dsp48e2_nibbles", self._make_dsp)
            # the pre-adder packs the weights; the activations have no adder of their own, so the borrow is taken here
            pair = Signal(LANE_BITS + OPERAND_BITS + 1, name=f"pair{d}")
            m.d.comb += [
                pair.eq((upper << LANE_BITS) + lower),
                dsp.A.eq(Cat(Const(0, 2 * LANE_BITS), second).as_signed()),
                dsp.D.eq(first),
                dsp.B.eq(pair.as_signed()),
                dsp.INMODE.eq(0b00100),
                dsp.OPMODE.eq(OPMODE_CASCADE if d else OPMODE_FIRST_ROUNDED),
            ]
            if previous is not None:
                m.d.comb += dsp.PCIN.eq(previous.PCOUT)
            previous = dsp
        # the constants leave
        lanes: list[Value] = [previous.P[lane * LANE_BITS :][:LANE_BITS] - _LANE_OFFSET for lane in range(3)]
        lanes.append(previous.P[3 * LANE_BITS :].as_signed())
        sums = Signal(4 * self.sum_bits, reset_less=True)
        m.d.sync += sums.eq(Cat(lane[: self.sum_bits] for lane in lanes))
        m.d.comb += self.sums.eq(sums)
        return m

    def _make_dsp(self) -> DSP48E2:
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
                "RND": _OFFSETS,
            },
        )
