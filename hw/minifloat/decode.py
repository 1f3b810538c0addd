"""Codes of any format to sign, significand and exponent; the numbers behind the fields, for all that follows.

A float's value is (-1)^negative * significand * 2^(exponent - 1 + lsb_exponent), its exponent field being max(e, 1), so
that subnormals need no case of their own. An integer is its own significand, in two's complement.
"""

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Elaboratable, Module, Shape, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.data import StructLayout, View
from amaranth.lib.wiring import In, Out

from sparsefab.formats import FloatFormat, IntFormat

__all__ = ["Decoder", "Number", "Operand", "decode", "field"]

Number = IntFormat | FloatFormat


@dataclass(frozen=True, slots=True)
class Operand:
    """What a code of a format becomes.

    Parameters
    ----------
    format : IntFormat | FloatFormat
    """

    format: Number

    def __post_init__(self) -> None:
        fmt: object = self.format
        if not isinstance(fmt, IntFormat | FloatFormat) or (isinstance(fmt, FloatFormat) and not fmt.zero):
            raise ValueError(f"format must be an integer or a float with a zero, not {getattr(fmt, 'name', fmt)}")

    @property
    def significand(self) -> Shape:
        """Mantissa with its hidden bit, unsigned; an integer as it is."""
        fmt = self.format
        if isinstance(fmt, IntFormat):
            return signed(fmt.bits) if fmt.signed else unsigned(fmt.bits)
        return unsigned(fmt.mantissa_bits + (fmt.exponent_bits > 0))

    @property
    def exponent_bits(self) -> int:
        """Bits of max(e, 1); none where it is always 1."""
        fmt = self.format
        return 0 if isinstance(fmt, IntFormat) or fmt.exponent_bits < 2 else fmt.exponent_bits

    @property
    def signed_magnitude(self) -> bool:
        """The sign is a field of its own."""
        return not isinstance(self.format, IntFormat) and self.format.signed

    @property
    def lsb_exponent(self) -> int:
        """Weight of the significand's lowest bit at the least exponent: the grid of all values."""
        fmt = self.format
        return 0 if isinstance(fmt, IntFormat) else fmt.min_exponent - fmt.mantissa_bits

    @property
    def magnitude_bits(self) -> int:
        """Bits of the largest magnitude on that grid: r for an integer, 2^E + M - 1 for a float, all codes counted."""
        fmt = self.format
        return fmt.bits if isinstance(fmt, IntFormat) else (1 << fmt.exponent_bits) + fmt.mantissa_bits - 1

    @property
    def has_nan(self) -> bool:
        """Some code is NaN."""
        return not isinstance(self.format, IntFormat) and self.format.nan_code is not None

    @property
    def has_infinity(self) -> bool:
        """Some code is infinite."""
        return not isinstance(self.format, IntFormat) and self.format.inf_code is not None

    @property
    def layout(self) -> StructLayout:
        """Fields of the decoded code; those that the format does not have are left out."""
        fields: dict[str, Shape | int] = {"significand": self.significand}
        if self.exponent_bits:
            fields["exponent"] = self.exponent_bits
        if self.signed_magnitude:
            fields["negative"] = 1
        if self.has_nan:
            fields["nan"] = 1
        if self.has_infinity:
            fields["infinite"] = 1
        return StructLayout(fields)


def field(view: View, name: str) -> Value:
    """A field of a decoded code or a product; zero where the format does not have it."""
    members = view.shape().members
    return Value.cast(view[name]) if name in members else Const(0, 1)


def decode(fmt: Number, code: Value) -> View:
    """Return the fields of `Operand(fmt).layout`, combinational: at most two LUT levels.

    NaN and infinities are decoded as the finite numbers that their bits would spell, with their flags up.
    """
    operand = Operand(fmt)
    if isinstance(fmt, IntFormat):
        return View(operand.layout, code[: fmt.bits])
    low, top = fmt.mantissa_bits, fmt.mantissa_bits + fmt.exponent_bits
    mantissa, exponent = code[:low], code[low:top]
    parts: dict[str, Value] = {"significand": Cat(mantissa, exponent.any()) if fmt.exponent_bits else mantissa}
    if operand.exponent_bits:
        parts["exponent"] = Cat(exponent[0] | ~exponent.any(), exponent[1:])
    if operand.signed_magnitude:
        parts["negative"] = code[top]
    if fmt.specials == "fn":
        parts["nan"] = code[:top].all()
    elif fmt.specials == "fnuz":
        parts["nan"] = code[top] & ~code[:top].any()
    elif fmt.specials == "ieee":
        if operand.has_nan:
            parts["nan"] = exponent.all() & mantissa.any()
        parts["infinite"] = exponent.all() & ~mantissa.any()
    return View(operand.layout, Cat(parts[name] for name in operand.layout.members))


class Decoder(wiring.Component):
    """A registered decoder.

    Parameters
    ----------
    format : IntFormat | FloatFormat

    Members
    -------
    code : In(format.bits)
    operand : Out              `Operand(format).layout`, one cycle later.
    """

    def __init__(self, *, format: Number) -> None:
        self.format = format
        super().__init__({"code": In(format.bits), "operand": Out(Operand(format).layout)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.d.sync += self.operand.eq(decode(self.format, self.code))
        return m
