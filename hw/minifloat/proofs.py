"""Miters of the minifloat data paths, for `hw.proofs`: each design against what `formats` says of every code.

The definitions are tables, of the codes' values (significand and place on the format's grid) or of the sums at which a
code begins and ends, computed in rational arithmetic; nothing of them follows the designs' fields or their rounding.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from math import ceil, floor, inf
from typing import Final

import numpy as np
from amaranth.hdl import Const, Elaboratable, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.formats import FloatFormat, IntFormat, get_format
from sparsefab.hw.minifloat.accumulate import Total
from sparsefab.hw.minifloat.convert import Converter, RoundingName
from sparsefab.hw.minifloat.decode import Decoder, Number, field
from sparsefab.hw.minifloat.multiply import Multiplier, Product

__all__ = ["MITERS", "ConverterMiter", "DecoderMiter", "MultiplierMiter"]


class DecoderMiter(wiring.Component):
    """The decoder's fields spell the code's value; its flags say what is no number."""

    def __init__(self, *, format: str) -> None:
        self.format = _number(format)
        super().__init__({"code": In(self.format.bits), "ok": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        fmt = self.format
        m.submodules.dut = dut = Decoder(format=fmt)
        m.d.comb += dut.code.eq(self.code)
        operand, table = dut.operand, _Codes(m, fmt, self.code, "code")
        value = Signal(signed(table.bits + 1))
        significand = Value.cast(operand.significand)
        has_exponent = "exponent" in operand.shape().members
        m.d.comb += value.eq((significand << operand.exponent) >> 1 if has_exponent else significand)
        read = Mux(field(operand, "negative"), -value, value)
        wanted = (table.significand << table.place)[: table.bits].as_signed()
        flags = (field(operand, "nan") == table.nan) & (field(operand, "infinite") == table.infinite)
        m.d.comb += self.ok.eq(flags & (~table.finite | (read == wanted)))
        return m


class MultiplierMiter(wiring.Component):
    """The product's fields spell the product of the two values; NaN and infinities as in IEEE 754."""

    def __init__(self, *, a: str, b: str) -> None:
        self.formats = _number(a), _number(b)
        super().__init__({"a": In(self.formats[0].bits), "b": In(self.formats[1].bits), "ok": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        fmt_a, fmt_b = self.formats
        m.submodules.dut = dut = Multiplier(a=fmt_a, b=fmt_b)
        m.d.comb += [dut.a.eq(self.a), dut.b.eq(self.b)]
        a, b = _Codes(m, fmt_a, self.a, "a"), _Codes(m, fmt_b, self.b, "b")
        product, shape = dut.product, dut.shape
        significand, place = Value.cast(product.significand), a.place + b.place
        magnitude = Mux(field(product, "negative"), -significand, significand)
        factor = a.significand * b.significand
        if shape.exponent_max:
            # both count places from the least product's, so the fields themselves are the same
            same = (magnitude == factor) & (product.exponent == place + shape.exponent_offset)
        else:
            same = magnitude == factor << place
        zero_a, zero_b = a.finite & (a.significand == 0), b.finite & (b.significand == 0)
        nan = a.nan | b.nan | (a.infinite & zero_b) | (b.infinite & zero_a)
        infinite = (a.infinite | b.infinite) & ~nan
        flags = Mux(nan, field(product, "nan"), ~field(product, "nan") & (field(product, "infinite") == infinite))
        sign = ~infinite | (field(product, "negative") == (a.negative ^ b.negative))
        m.d.comb += self.ok.eq(flags & sign & (nan | infinite | same))
        return m


class ConverterMiter(wiring.Component):
    """The code is the one whose rounding interval holds the sum, of the sum's sign; beyond the range the largest."""

    def __init__(self, *, a: str, b: str, terms: int, result: str, rounding: RoundingName = "nearest-even") -> None:
        self.total = Total(Product(_number(a), _number(b)), terms)
        self.result, self.rounding = _number(result), rounding
        super().__init__({"sum": In(signed(self.total.bits)), "ok": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        total, result = self.total, self.result
        m.submodules.dut = dut = Converter(total=total, result=result, rounding=self.rounding)
        m.d.comb += dut.total.sum.eq(self.sum)
        bounds = [self._interval(code) for code in range(1 << result.bits)]
        low, high = (_table(m, [bound[k] for bound in bounds], dut.code, f"bound{k}") for k in (0, 1))
        m.d.comb += self.ok.eq((low <= self.sum) & (self.sum <= high))
        return m

    def _interval(self, code: int) -> tuple[int, int]:
        """Sums, first and last, that round to a code; an empty interval where there are none."""
        result = self.result
        most = (1 << self.total.bits - 1) - 1
        value = _value(result, code)
        negative_zero = isinstance(result, FloatFormat) and result.signed and code == 1 << result.bits - 1
        if value is None:
            return 1, 0
        values = sorted({v for c in range(1 << result.bits) if (v := _value(result, c)) is not None})
        place, unit = values.index(value), Fraction(2) ** self.total.product.lsb_exponent
        first, last = -most - 1, most
        if place > 0:
            first = self._first(values[place - 1], value, unit)
        if place < len(values) - 1:
            last = self._first(value, values[place + 1], unit) - 1
        if value == 0 and isinstance(result, FloatFormat) and result.signed and result.specials != "fnuz":
            return (first, -1) if negative_zero else (0, last)  # the sign of the sum is kept
        return first, last

    def _first(self, below: Fraction, above: Fraction, unit: Fraction) -> int:
        """The least sum that does not round to the lower of two neighbours."""
        if self.rounding == "toward-zero":
            return ceil(above / unit) if above > 0 else floor(below / unit) + 1
        middle = (below + above) / 2 / unit
        tie_goes_up = _even(self.result, above)
        return ceil(middle) if tie_goes_up else floor(middle) + 1


def _even(fmt: Number, value: Fraction) -> bool:
    """Whether the code of a value ends in a zero bit; neighbours differ in that."""
    codes = [code for code in range(1 << fmt.bits) if _value(fmt, code) == value]
    return codes[0] & 1 == 0


def _number(name: str) -> Number:
    fmt = get_format(name)
    if not isinstance(fmt, IntFormat | FloatFormat):
        raise TypeError(f"format must be an integer or a minifloat, not {fmt.name}")
    return fmt


def _value(fmt: Number, code: int) -> Fraction | None:
    """The exact value of a bit pattern; None for what is no finite number, or for an integer outside its range."""
    table = fmt.decode_table()
    if not table.finite[code]:
        return None
    return Fraction(int(table.significand[code])) * Fraction(2) ** int(table.exponent[code])


class _Codes:
    """What `formats` says of a code: significand and place on the grid, and whether it is a number."""

    def __init__(self, m: Module, fmt: Number, code: Value, name: str) -> None:
        table = fmt.decode_table()
        codes = range(1 << fmt.bits)
        grid = 0 if isinstance(fmt, IntFormat) else fmt.min_exponent - fmt.mantissa_bits
        places = [max(int(table.exponent[c]) - grid, 0) if table.finite[c] else 0 for c in codes]
        significands = [int(table.significand[c]) if table.finite[c] else 0 for c in codes]
        decoded = [float(v) for v in fmt.decode(fmt.from_pattern(np.arange(1 << fmt.bits, dtype=np.uint16)))]
        self.bits = max(abs(s) << p for s, p in zip(significands, places, strict=True)).bit_length() + 1
        self.significand = _table(m, significands, code, f"{name}_significand")
        self.place = _table(m, places, code, f"{name}_place", is_signed=False)
        self.finite = _table(m, [int(abs(v) < inf) for v in decoded], code, f"{name}_finite", is_signed=False)
        self.infinite = _table(m, [int(abs(v) == inf) for v in decoded], code, f"{name}_infinite", is_signed=False)
        self.nan = _table(m, [int(v != v) for v in decoded], code, f"{name}_nan", is_signed=False)
        self.negative = _table(m, [int(v < 0) for v in decoded], code, f"{name}_negative", is_signed=False)


def _table(m: Module, words: list[int], index: Value, name: str, *, is_signed: bool = True) -> Signal:
    """words[index], a constant for each bit."""
    bits = max((max(word, -word - 1).bit_length() for word in words), default=0) + int(is_signed)
    found = Signal(signed(bits) if is_signed else unsigned(max(bits, 1)), name=name)
    for bit in range(len(found)):
        plane = sum((word >> bit & 1) << place for place, word in enumerate(words))
        picked = Signal(len(words), name=f"{name}{bit}")
        m.d.comb += [picked.eq(Const(plane, len(words)) >> index), found[bit].eq(picked[0])]
    return found


MITERS: Final[tuple[tuple[str, Callable[[], wiring.Component]], ...]] = (
    *(
        (f"decode {name}", partial(DecoderMiter, format=name))
        for name in ("e2m1", "e3m2", "e2m3", "e4m3fn", "e5m2i", "e4m3fnuz")
    ),
    *(
        (f"multiply {a} by {b}", partial(MultiplierMiter, a=a, b=b))
        for a, b in (
            ("e2m1", "e2m1"),
            ("e3m2", "e3m2"),
            ("int4", "e2m3"),
            ("int6", "int6"),
            ("e4m3fn", "e4m3fn"),
            ("e5m2i", "e5m2i"),
        )
    ),
    *(
        (f"round to {result}", partial(ConverterMiter, a=a, b=b, terms=terms, result=result))
        for a, b, terms, result in (
            ("e2m1", "e2m1", 4, "e2m1"),
            ("e2m3", "e2m3", 16, "e4m3fn"),
            ("e3m2", "e3m2", 64, "e5m2"),
            ("int8", "int4", 64, "int8"),
        )
    ),
    (
        "cut to e4m3",
        partial(ConverterMiter, a="e3m2", b="e3m2", terms=64, result="e4m3", rounding="toward-zero"),
    ),
)
