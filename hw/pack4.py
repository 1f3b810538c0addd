"""Four int4 products in one DSP48E2: the outer product of two weights and two activations, summed down a cascade."""

from dataclasses import dataclass
from typing import Any, Final

from amaranth.hdl import Cat, Const, Elaboratable, Module, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout, StructLayout
from amaranth.lib.wiring import In, Out

from sparsefab.hw.fifo import CreditFifo
from sparsefab.hw.modules import Inline, Library, Placer, to_verilog
from sparsefab.hw.primitives.dsp48e2 import DSP48E2, OPMODE_CASCADE, OPMODE_FIRST_ROUNDED
from sparsefab.hw.skew import BeatSkew
from sparsefab.hw.stages import later

__all__ = [
    "LANE_BITS",
    "LANE_OFFSETS",
    "OPERAND_BITS",
    "SUM_LIMIT",
    "NibbleArch",
    "NibbleChain",
    "NibbleLanes",
    "NibbleStep",
    "nibble_operands",
    "nibble_sums",
    "nibble_verilog",
]

TOP: Final = "top"
OPERAND_BITS: Final = 4
LANE_BITS: Final = 11  # four lanes and their signs: 3 * 11 + 15 bits of P
_LANE_OFFSET: Final = (1 << (LANE_BITS - 1)) - 1
_LOW, _HIGH = -8 * 7, 8 * 8  # of a product
SUM_LIMIT: Final = min(_LANE_OFFSET // -_LOW, ((1 << LANE_BITS) - 1 - _LANE_OFFSET) // _HIGH)
LANE_OFFSETS: Final = sum(_LANE_OFFSET << lane * LANE_BITS for lane in range(3))


@dataclass(frozen=True, slots=True, kw_only=True)
class NibbleArch:
    """A cascade with four int4 products a DSP.

    Parameters
    ----------
    dsps : int                 1 to SUM_LIMIT, the products that a lane sums exactly.
    """

    dsps: int = SUM_LIMIT

    def __post_init__(self) -> None:
        if not 1 <= self.dsps <= SUM_LIMIT:
            raise ValueError(
                f"dsps must be 1 to {SUM_LIMIT}, the products that {LANE_BITS} bits sum exactly, not {self.dsps}"
            )

    @property
    def sum_bits(self) -> int:
        """Bits of one signed sum."""
        return (self.dsps * _HIGH).bit_length() + 1

    @property
    def latency_cycles(self) -> int:
        """From an accepted beat to its sums at the output FIFO's input: skew, A1/D, AD, M, P, and the lanes."""
        return 1 + (self.dsps - 1) + 4 + 1

    @property
    def macs_per_cycle(self) -> int:
        """Products formed a cycle."""
        return 4 * self.dsps


def nibble_operands(arch: NibbleArch) -> StructLayout:
    """One beat: for each DSP the weights of two rows and the activations of two tokens at one input."""
    pairs = ArrayLayout(ArrayLayout(signed(OPERAND_BITS), 2), arch.dsps)
    return StructLayout({"weights": pairs, "activations": pairs})


def nibble_sums(arch: NibbleArch) -> ArrayLayout:
    """One result: the sums over the DSPs of w0 a0, w0 a1, w1 a0, w1 a1."""
    return ArrayLayout(signed(arch.sum_bits), 4)


class NibbleChain(wiring.Component):
    """Sum w_i a_j over a cascade of DSPs, for two rows i and two tokens j: four products a DSP and cycle.

    Parameters
    ----------
    arch : NibbleArch
    body : str                 'behavioural' or 'vendor' primitives.
    placer : Placer            Where repeated parts come from.

    Members
    -------
    i : In(stream)             `nibble_operands`.
    o : Out(stream)            `nibble_sums`.

    Notes
    -----
    P = ((w1 << 22) + w0) ((a1 << 11) + a0): lanes of 11 bits, w0 a0 lowest, then w0 a1, w1 a0, w1 a1. It wants two rows
    with the same positions, and two tokens. One beat a cycle; latency arch.latency_cycles + 2. The pipeline never
    stalls: a beat enters when the output FIFO has a place for it.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, *, arch: NibbleArch, body: str = "behavioural", placer: Placer | None = None) -> None:
        self.arch, self.body, self.placer = arch, body, placer if placer is not None else Inline()
        super().__init__(
            {"i": In(stream.Signature(nibble_operands(arch))), "o": Out(stream.Signature(nibble_sums(arch)))}
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        arch = self.arch
        beat = Signal()
        m.submodules.fifo = fifo = CreditFifo(shape=nibble_sums(arch), body=self.body, placer=self.placer)
        m.d.comb += [self.i.ready.eq(fifo.available), beat.eq(self.i.valid & self.i.ready)]

        # skew: DSP d sees a beat d cycles late, when its neighbour's sum is there
        skew: Any = BeatSkew(
            dsps=arch.dsps,
            weight_bits=2 * OPERAND_BITS,
            index_bits=2 * OPERAND_BITS,
            body=self.body,
            placer=self.placer,
        )
        m.submodules.skew = skew
        m.d.comb += [
            skew.weights.eq(Value.cast(self.i.payload.weights)),
            skew.indices.eq(Value.cast(self.i.payload.activations)),
        ]

        # multiply and cascade
        previous: Any = None
        for d in range(arch.dsps):
            step = self._place_step(m, d)
            m.d.comb += [step.weights.eq(getattr(skew, f"weight{d}")), step.activations.eq(getattr(skew, f"index{d}"))]
            if previous is not None:
                m.d.comb += step.cascade_in.eq(previous.cascade_out)
            previous = step

        # results: a beat in is known a cycle later, valid travels beside the data
        m.submodules.lanes = lanes = NibbleLanes(arch=arch)
        m.d.comb += [
            lanes.total.eq(previous.total),
            fifo.take.eq(later(m, beat, "take", 1, reset_less=False)),
            fifo.push.eq(later(m, beat, "valid", arch.latency_cycles, reset_less=False)),
            Value.cast(fifo.data).eq(Value.cast(lanes.sums)),
        ]
        wiring.connect(m, fifo.o, wiring.flipped(self.o))
        return m

    def _place_step(self, m: Module, d: int) -> Any:
        return self.placer.place(
            m,
            f"step{d}",
            f"sparsefab_nibble_{'next' if d else 'first'}",
            lambda: NibbleStep(first=d == 0, body=self.body, placer=self.placer),
        )


class NibbleStep(wiring.Component):
    """One DSP: add the four products of two weights and two activations to the sums that come down the cascade.

    Parameters
    ----------
    first : bool               Start with LANE_OFFSETS instead, so that no lane borrows from the next.
    body, placer               As for NibbleChain.

    Members
    -------
    weights : In(8)            s4 of row 0, then of row 1.
    activations : In(8)        s4 of token 0, then of token 1.
    cascade_in : In(48)        The neighbour's `cascade_out`, three cycles after the operands.
    cascade_out, total : Out(48)
                               Four cycles after the operands.
    """

    def __init__(self, *, first: bool, body: str, placer: Placer) -> None:
        self.first, self.body, self.placer = first, body, placer
        super().__init__(
            {"weights": In(2 * OPERAND_BITS), "activations": In(2 * OPERAND_BITS)}
            | ({} if first else {"cascade_in": In(48)})
            | {"cascade_out": Out(48), "total": Out(48)}
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        (w0, w1), (a0, a1) = (
            [operand.word_select(k, OPERAND_BITS).as_signed() for k in range(2)]
            for operand in (self.weights, self.activations)
        )
        dsp: Any = self.placer.place(m, "dsp", "sparsefab_dsp48e2_nibbles", self._make_dsp)
        # the pre-adder packs the weights; the activations have no adder of their own, so the borrow is taken here
        pair = Signal(signed(LANE_BITS + OPERAND_BITS + 1))
        m.d.comb += [
            pair.eq((a1 << LANE_BITS) + a0),
            dsp.A.eq(Cat(Const(0, 2 * LANE_BITS), w1).as_signed()),
            dsp.D.eq(w0),
            dsp.B.eq(pair),
            dsp.INMODE.eq(0b00100),
            dsp.OPMODE.eq(OPMODE_FIRST_ROUNDED if self.first else OPMODE_CASCADE),
            self.cascade_out.eq(dsp.PCOUT),
            self.total.eq(dsp.P),
        ]
        if not self.first:
            m.d.comb += dsp.PCIN.eq(self.cascade_in)
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
                "RND": LANE_OFFSETS,
            },
        )


class NibbleLanes(wiring.Component):
    """Take the packed sums apart and the constants away; latency one cycle.

    Members
    -------
    total : In(48)             Sums in lanes of 11 bits, plus LANE_OFFSETS.
    sums : Out                 `nibble_sums`.
    """

    def __init__(self, *, arch: NibbleArch) -> None:
        self.arch = arch
        super().__init__({"total": In(48), "sums": Out(nibble_sums(arch))})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        lanes: list[Value] = [self.total.word_select(lane, LANE_BITS) - _LANE_OFFSET for lane in range(3)]
        lanes.append(self.total[3 * LANE_BITS :].as_signed())
        for lane, value in enumerate(lanes):
            register = Signal(signed(self.arch.sum_bits), name=f"sum{lane}", reset_less=True)
            m.d.sync += register.eq(value)
            m.d.comb += self.sums[lane].eq(register)
        return m


def nibble_verilog(arch: NibbleArch, *, primitives: str = "vendor") -> dict[str, str]:
    """Convert a cascade of four int4 products a DSP to Verilog; primitives as for `chain_verilog`."""
    library = Library()
    return {TOP: to_verilog(NibbleChain(arch=arch, body=primitives, placer=library), TOP)} | library.verilog()
