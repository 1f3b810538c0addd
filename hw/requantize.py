"""The requantizer: accumulators to codes, one DSP a lane. Its definition is `sparsefab.formats.requantize`."""

from dataclasses import dataclass
from typing import Any, Final

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout, StructLayout
from amaranth.lib.wiring import In, Out

from sparsefab.hw.fifo import CreditFifo
from sparsefab.hw.modules import Inline, Placer
from sparsefab.hw.primitives.dsp48e2 import DSP48E2, OPMODE_MULTIPLY_ADD_C

__all__ = [
    "CODE_BITS",
    "RequantizeAmount",
    "RequantizeArch",
    "RequantizeScale",
    "RequantizeShift",
    "RequantizeUnit",
    "requantize_layout",
]

CODE_BITS: Final = 9  # holds s8 and u8
SHIFT_BITS: Final = 7
MULTIPLIER_BITS: Final = 15

_FRACTION_BITS: Final = 6
_X_BITS: Final = 16
_LEFT: Final = _X_BITS + 1  # the accumulator enters the shifter this far left, so that every shift is to the right
_SHIFTER_STEPS: Final = (1, 4, 16)  # a level moves by 0 to 3 of its step: a 4:1 multiplexer, one LUT6 a bit
_LATENCY: Final = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class RequantizeArch:
    """Parameters of a requantizer.

    accumulator_bits : int     17 to 46.
    lanes : int                Accumulators of one row a beat.
    """

    accumulator_bits: int = 32
    lanes: int = 2

    def __post_init__(self) -> None:
        if not _LEFT <= self.accumulator_bits <= 46:
            raise ValueError(f"accumulator_bits must be {_LEFT} to 46, not {self.accumulator_bits}")
        if self.lanes < 1:
            raise ValueError(f"lanes must be positive, not {self.lanes}")


def requantize_layout(accumulator_bits: int, lanes: int) -> StructLayout:
    """One beat: the lanes' accumulators of one row, and the row's constants."""
    return StructLayout(
        {
            "accumulators": ArrayLayout(signed(accumulator_bits), lanes),
            "shift": signed(SHIFT_BITS),
            "multiplier": MULTIPLIER_BITS,
        }
    )


class RequantizeUnit(wiring.Component):
    """Shift and round to 16 bits, multiply, add the zero point, round, clamp.

    Parameters
    ----------
    accumulator_bits : int     17 to 46.
    lanes : int                Accumulators of one row a beat.
    body, placer               As for SparseChain.

    Members
    -------
    i : In(stream)             `requantize_layout`.
    o : Out(stream)            signed(9)[lanes]: codes, s8 or u8.
    zero_point, code_min, code_max : In(signed(9))
                               Of the output tensor; hold them while beats are on their way.

    Notes
    -----
    Latency 15 cycles, one beat a cycle. With x = sat16((acc + 2^(shift-1)) >> shift) the DSP forms
    x * multiplier + 2^14 + ((64 * zero_point + 32) << 15); bits 21 and up of it, saturated to 10 bits and clamped, are
    the code, because a multiple of 2^15 passes through the rounding shift unchanged.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(
        self, *, accumulator_bits: int, lanes: int = 2, body: str = "behavioural", placer: Placer | None = None
    ) -> None:
        RequantizeArch(accumulator_bits=accumulator_bits, lanes=lanes)
        self.accumulator_bits, self.lanes, self.body = accumulator_bits, lanes, body
        self.placer = placer if placer is not None else Inline()
        super().__init__(
            {
                "i": In(stream.Signature(requantize_layout(accumulator_bits, lanes))),
                "o": Out(stream.Signature(ArrayLayout(signed(CODE_BITS), lanes))),
                "zero_point": In(signed(CODE_BITS)),
                "code_min": In(signed(CODE_BITS)),
                "code_max": In(signed(CODE_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        fifo = CreditFifo(shape=ArrayLayout(signed(CODE_BITS), self.lanes), body=self.body, placer=self.placer)
        m.submodules.fifo = fifo
        beat = Signal()
        m.d.comb += [self.i.ready.eq(fifo.available), beat.eq(self.i.valid & self.i.ready)]

        # stage 0: take the beat; stages 1 and 2: the shift as an amount to the right, 0 for -16 and beyond
        valid = _later(m, beat, "valid", _LATENCY)
        m.d.comb += [fifo.take.eq(valid[0]), fifo.push.eq(valid[-1])]
        m.submodules.amount = amount = RequantizeAmount(accumulator_bits=self.accumulator_bits)
        m.d.comb += amount.shift.eq(_later(m, self.i.payload.shift, "shift", 1)[0])
        amounts = [amount.amount, *_later(m, amount.amount, "amount", 2)]
        multiplier = _later(m, self.i.payload.multiplier, "multiplier", 9)[-1]

        # the zero point and both halves, rounded in by the DSP
        addend = Signal(signed(48), reset_less=True)
        constant = (1 << 14) + (1 << 15 + _FRACTION_BITS - 1)
        m.d.sync += addend.eq((self.zero_point << 15 + _FRACTION_BITS) + constant)

        for lane in range(self.lanes):
            accumulator = _later(m, self.i.payload.accumulators[lane], f"accumulator{lane}", 3)[-1]
            shift: Any = self.placer.place(m, f"shift{lane}", "sparsefab_requantize_shift", self._make_shift)
            scale: Any = self.placer.place(m, f"scale{lane}", "sparsefab_requantize_scale", self._make_scale)
            m.d.comb += [
                shift.accumulator.eq(accumulator),
                *(getattr(shift, f"digit{level}").eq(moved[2 * level :]) for level, moved in enumerate(amounts)),
                scale.x.eq(shift.x),
                scale.multiplier.eq(multiplier),
                scale.addend.eq(addend),
                scale.code_min.eq(self.code_min),
                scale.code_max.eq(self.code_max),
                fifo.data[lane].eq(scale.code),
            ]
        wiring.connect(m, fifo.o, wiring.flipped(self.o))
        return m

    def _make_shift(self) -> "RequantizeShift":
        return RequantizeShift(accumulator_bits=self.accumulator_bits)

    def _make_scale(self) -> "RequantizeScale":
        return RequantizeScale(body=self.body, placer=self.placer)


class RequantizeAmount(wiring.Component):
    """Stages 1 and 2: a row's shift as an amount to the right, 0 for -16 and beyond, two cycles later."""

    def __init__(self, *, accumulator_bits: int) -> None:
        self.accumulator_bits = accumulator_bits
        super().__init__({"shift": In(signed(SHIFT_BITS)), "amount": Out(2 * len(_SHIFTER_STEPS))})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        last = self.accumulator_bits + _LEFT - 1
        s1_below, s1_above = Signal(name="s1_below"), Signal(name="s1_above")
        s1_amount, s2_amount = Signal(6, name="s1_amount"), Signal(6, name="s2_amount")
        m.d.sync += [
            s1_below.eq(self.shift < -_X_BITS),
            s1_above.eq(self.shift > last - _X_BITS),
            s1_amount.eq(self.shift + _X_BITS),
            s2_amount.eq(Mux(s1_below, 0, Mux(s1_above, last, s1_amount))),
        ]
        m.d.comb += self.amount.eq(s2_amount)
        return m


class RequantizeShift(wiring.Component):
    """Stages 3 to 8 of a lane: an accumulator shifted right with rounding, saturated to 16 bits.

    Members
    -------
    accumulator : In           Entered 17 bits to the left.
    digit0, digit1, digit2 : In(2)
                               The amount, 16 more than the row's shift, in steps of 1, 4 and 16; each a cycle after
                               the one before.
    x : Out                    sat16((accumulator + 2^(shift-1)) >> shift), six cycles after the accumulator.
    """

    def __init__(self, *, accumulator_bits: int) -> None:
        self.accumulator_bits = accumulator_bits
        super().__init__(
            {"accumulator": In(signed(accumulator_bits)), "x": Out(signed(_X_BITS))}
            | {f"digit{level}": In(2) for level in range(len(_SHIFTER_STEPS))}
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        # stages 3 to 5: shift right, one more fraction bit kept
        width = self.accumulator_bits + _LEFT
        value: Value = Cat(Const(0, _LEFT), self.accumulator).as_signed()
        for level, step in enumerate(_SHIFTER_STEPS):
            moved = Signal(signed(width), name=f"s{level + 3}_value", reset_less=True)
            with m.Switch(getattr(self, f"digit{level}")):
                for places in range(4):
                    with m.Case(places):
                        m.d.sync += moved.eq(value >> step * places)
            value = moved
        # stage 6: do all bits above the 16, fraction included, equal the sign?
        above = value[_X_BITS:]
        groups = [above[low : low + 6] for low in range(0, len(above) - 1, 5)]  # neighbours share a bit
        equal = Signal(len(groups), name="s6_equal", reset_less=True)
        m.d.sync += equal.eq(Cat(group.all() | ~group.any() for group in groups))
        s6_value = _later(m, value[: _X_BITS + 1], "low", 1)[-1].as_signed()
        _, s7_negative = _later(m, value[-1], "negative", 2)
        # stage 7: round
        rounded = Signal(signed(_X_BITS + 1), name="s7_rounded", reset_less=True)
        outside = Signal(name="s7_outside", reset_less=True)
        m.d.sync += [rounded.eq((s6_value + 1) >> 1), outside.eq(~equal.all())]
        # stage 8: saturate to 16 bits; rounding up may leave them by one
        x = Signal(signed(_X_BITS), name="s8_x", reset_less=True)
        limit = Mux(s7_negative, -(1 << _X_BITS - 1), (1 << _X_BITS - 1) - 1)
        m.d.sync += x.eq(Mux(outside | (rounded[-2] & ~rounded[-1]), limit, rounded))
        m.d.comb += self.x.eq(x)
        return m


class RequantizeScale(wiring.Component):
    """Stages 9 to 12 of a lane: x times the multiplier and the addend, rounded and clamped to a code.

    Members
    -------
    x, multiplier, addend : In       addend = ((64 * zero_point + 32) << 15) + 2^14, a cycle after the other two.
    code_min, code_max : In(signed(9))
    code : Out(signed(9))            Four cycles after x.
    """

    def __init__(self, *, body: str, placer: Placer) -> None:
        self.body, self.placer = body, placer
        super().__init__(
            {
                "x": In(signed(_X_BITS)),
                "multiplier": In(MULTIPLIER_BITS),
                "addend": In(signed(48)),
                "code_min": In(signed(CODE_BITS)),
                "code_max": In(signed(CODE_BITS)),
                "code": Out(signed(CODE_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        # stages 9 to 11 in the DSP: A2/B2, M, P
        dsp: Any = self.placer.place(m, "dsp", "sparsefab_dsp48e2_requantize", self._make_dsp)
        m.d.comb += [
            dsp.A.eq(self.x),
            dsp.B.eq(self.multiplier),
            dsp.C.eq(self.addend),
            dsp.OPMODE.eq(OPMODE_MULTIPLY_ADD_C),
        ]
        y = dsp.P[15 + _FRACTION_BITS : 48].as_signed()
        code = Signal(signed(CODE_BITS), name="s12_code", reset_less=True)
        # stage 12: the clamp, which also stands for the saturation of y
        with m.If(y < self.code_min):
            m.d.sync += code.eq(self.code_min)
        with m.Elif(y > self.code_max):
            m.d.sync += code.eq(self.code_max)
        with m.Else():
            m.d.sync += code.eq(y)
        m.d.comb += self.code.eq(code)
        return m

    def _make_dsp(self) -> DSP48E2:
        return DSP48E2(
            body=self.body,
            attributes={"AREG": 1, "ACASCREG": 1, "BREG": 1, "BCASCREG": 1, "AMULTSEL": "A", "MREG": 1, "PREG": 1},
        )


def _later(m: Module, value: Value, name: str, cycles: int) -> list[Signal]:
    """The value 1 to `cycles` cycles later."""
    stages: list[Signal] = []
    for cycle in range(cycles):
        register = Signal(len(Value.cast(value)), name=f"s{cycle}_{name}", reset_less=name != "valid")
        m.d.sync += register.eq(Value.cast(value) if not stages else stages[-1])
        stages.append(register)
    return stages
