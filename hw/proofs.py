"""Claims about blocks that `hw.formal` proves, packing apart: each a miter of the design itself and its definition."""

from functools import partial
from typing import Final

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.formats import get_format
from sparsefab.formats.floats import FloatFormat
from sparsefab.formats.ints import IntFormat
from sparsefab.hw.claim import Claim
from sparsefab.hw.dequantize.decode import CodeDecoder
from sparsefab.hw.minifloat.proofs import MITERS
from sparsefab.hw.modules import Inline
from sparsefab.hw.packing_proofs import PACKING_CLAIMS
from sparsefab.hw.requantize import CODE_BITS, MULTIPLIER_BITS, RequantizeAmount, RequantizeScale, RequantizeShift

__all__ = ["CLAIMS"]


class RequantizeShiftMiter(wiring.Component):
    """x = sat16((acc + 2^(shift-1)) >> shift) for every accumulator and shift; shift <= 0 shifts left exactly."""

    def __init__(self, *, accumulator_bits: int) -> None:
        self.accumulator_bits = accumulator_bits
        super().__init__({"shift": In(signed(7)), "accumulator": In(signed(accumulator_bits)), "ok": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.dut = dut = _ShiftPath(accumulator_bits=self.accumulator_bits)
        m.d.comb += [dut.shift.eq(self.shift), dut.accumulator.eq(self.accumulator)]
        wide = signed(self.accumulator_bits + 64)
        right, left = Signal(6), Signal(7)
        rounded, moved = Signal(wide), Signal(wide)
        m.d.comb += [
            right.eq(self.shift),
            left.eq(-self.shift),
            rounded.eq(self.accumulator + (1 << (right - 1)[:6])),
            moved.eq(Mux(self.shift > 0, rounded >> right, (self.accumulator << left)[: wide.width].as_signed())),
            self.ok.eq(dut.x == _saturated(moved, 16)),
        ]
        return m


class _ShiftPath(wiring.Component):
    """Stages 1 to 8 of the requantizer."""

    def __init__(self, *, accumulator_bits: int) -> None:
        self.accumulator_bits = accumulator_bits
        super().__init__({"shift": In(signed(7)), "accumulator": In(signed(accumulator_bits)), "x": Out(signed(16))})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.amount = amount = RequantizeAmount(accumulator_bits=self.accumulator_bits)
        m.submodules.shift = shift = RequantizeShift(accumulator_bits=self.accumulator_bits)
        m.d.comb += [
            amount.shift.eq(self.shift),
            shift.accumulator.eq(self.accumulator),
            Cat(shift.digit0, shift.digit1, shift.digit2).eq(amount.amount),
            self.x.eq(shift.x),
        ]
        return m


class RequantizeScaleMiter(wiring.Component):
    """code = clamp(sat16(((x * m + 2^14) >> 15) + 64 * zero_point + 32) >> 6) for every x, multiplier and constants.

    The product is written as the DSP has it, so that both sides share it and the solver need not know multiplication.
    """

    def __init__(self) -> None:
        codes = dict.fromkeys(("zero_point", "code_min", "code_max"), In(signed(CODE_BITS)))
        super().__init__({"x": In(signed(16)), "multiplier": In(MULTIPLIER_BITS)} | codes | {"ok": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.dut = dut = RequantizeScale(body="behavioural", placer=Inline())
        addend = Signal(signed(48))
        m.d.comb += [
            addend.eq((self.zero_point << 21) + ((1 << 14) + (1 << 20))),
            dut.addend.eq(addend),
            *(getattr(dut, name).eq(getattr(self, name)) for name in ("x", "multiplier", "code_min", "code_max")),
        ]
        a, b, product = Signal(signed(27)), Signal(signed(18)), Signal(signed(45))
        m.d.comb += [a.eq(self.x), b.eq(self.multiplier), product.eq(a * b)]
        y = _saturated(((product[:32].as_signed() + (1 << 14)) >> 15) + (self.zero_point << 6) + 32, 16) >> 6
        code = Mux(y < self.code_min, self.code_min, Mux(y > self.code_max, self.code_max, y))
        m.d.comb += self.ok.eq((dut.code == code) | (self.code_min > self.code_max))
        return m


class CodeDecoderMiter(wiring.Component):
    """value = code - zero_point of integers; (-1)^sign * significand << exponent of minifloats, for every pattern."""

    def __init__(self, *, format: str, asymmetric: bool) -> None:
        self.format, self.asymmetric = format, asymmetric
        bits = get_format(format).bits
        super().__init__({"code": In(bits), "zero_point": In(bits), "ok": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        fmt = get_format(self.format)
        m.submodules.dut = dut = CodeDecoder(format=self.format, asymmetric=self.asymmetric)
        m.d.comb += dut.code.eq(self.code)
        value = Signal(signed(16))
        if isinstance(fmt, IntFormat):
            code, zero = (part.as_signed() if fmt.signed else part for part in (self.code, self.zero_point))
            m.d.comb += value.eq(code - zero if self.asymmetric else code)
            if self.asymmetric:
                m.d.comb += dut.zero_point.eq(self.zero_point)
            m.d.comb += self.ok.eq((dut.value == value) | (value < -128) | (value > 127))
            return m
        if not isinstance(fmt, FloatFormat):
            raise TypeError(f"format must be an integer or a minifloat, not {fmt.name}")
        mantissa, top = self.code[: fmt.mantissa_bits], fmt.mantissa_bits + fmt.exponent_bits
        exponent, magnitude = self.code[fmt.mantissa_bits : top], self.code[:top]
        significand = Cat(mantissa, exponent.any()) << Mux(exponent.any(), exponent - 1, 0)[: max(1, len(exponent))]
        m.d.comb += value.eq(Mux(self.code[top:].any(), -significand, significand))
        m.d.comb += self.ok.eq(dut.value == Mux(magnitude > fmt.max_code, 0, value))
        return m


def _saturated(value: Value, bits: int) -> Value:
    """Clip a signed value to so many bits."""
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    return Mux(value < low, Const(low, signed(bits)), Mux(value > high, Const(high, signed(bits)), value))


CLAIMS: Final = (
    *PACKING_CLAIMS,
    *(
        Claim(
            block="requantize",
            name=f"shift and round, {bits} bits",
            miter=partial(RequantizeShiftMiter, accumulator_bits=bits),
        )
        for bits in (24, 32, 46)
    ),
    Claim(block="requantize", name="multiply, round, clamp", miter=RequantizeScaleMiter),
    *(
        Claim(
            block="dequantize",
            name=f"decode {name}{' less zero point' if asymmetric else ''}",
            miter=partial(CodeDecoderMiter, format=name, asymmetric=asymmetric),
        )
        for name, asymmetric in (("int3", True), ("uint4", True), ("uint8", True), ("e2m1", False), ("e2m3", False))
    ),
    *(Claim(block="mac", name=name, miter=miter) for name, miter in MITERS),
)
