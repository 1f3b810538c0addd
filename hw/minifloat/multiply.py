"""The exact product of two codes as sign, significand and exponent, in LUTs or in a DSP48E2."""

from dataclasses import dataclass
from typing import Any, Final

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.data import StructLayout, View
from amaranth.lib.wiring import In, Out

from sparsefab.formats import IntFormat
from sparsefab.hw.minifloat.decode import Number, Operand, decode, field
from sparsefab.hw.modules import Inline, Placer
from sparsefab.hw.primitives.dsp48e2 import DSP48E2, OPMODE_FIRST
from sparsefab.hw.stages import later

__all__ = ["VARIANTS", "Multiplier", "Product", "join_fields"]

VARIANTS: Final = ("fabric", "dsp")
_LUT_INPUTS: Final = 6
_DSP_LATENCY: Final = 3  # A2/B2, M, P
_SPECIALS: Final = ("nan", "infinite")


@dataclass(frozen=True, slots=True)
class Product:
    """What the product of two formats' codes looks like.

    Value = (-1)^negative * significand * 2^(exponent - exponent_offset + lsb_exponent).

    Parameters
    ----------
    a, b : IntFormat | FloatFormat
    fixed : bool               The shift is done already: no exponent, the significand is on the grid of all products.
    """

    a: Number
    b: Number
    fixed: bool = False

    @property
    def operands(self) -> tuple[Operand, Operand]:
        """Both factors."""
        return Operand(self.a), Operand(self.b)

    @property
    def significand(self) -> Shape:
        """Exact product of the significands; signed when an operand is a signed integer."""
        shapes = [operand.significand for operand in self.operands]
        bits = self.magnitude_bits if self.fixed else sum(shape.width for shape in shapes)
        return signed(bits) if any(shape.signed for shape in shapes) else unsigned(bits)

    @property
    def exponent_offset(self) -> int:
        """Least exponent: each operand with an exponent counts from 1."""
        return 0 if self.fixed else sum(operand.exponent_bits > 0 for operand in self.operands)

    @property
    def exponent_max(self) -> int:
        """Greatest exponent of two codes."""
        return 0 if self.fixed else sum((1 << operand.exponent_bits) - 1 for operand in self.operands)

    @property
    def lsb_exponent(self) -> int:
        """Grid of all products."""
        return sum(operand.lsb_exponent for operand in self.operands)

    @property
    def magnitude_bits(self) -> int:
        """Bits of the largest magnitude on that grid."""
        return sum(operand.magnitude_bits for operand in self.operands)

    @property
    def layout(self) -> StructLayout:
        """Fields; those that cannot occur are left out."""
        fields: dict[str, Shape | int] = {"significand": self.significand}
        if self.exponent_max:
            fields["exponent"] = self.exponent_max.bit_length()
        if any(operand.signed_magnitude for operand in self.operands):
            fields["negative"] = 1
        if any(operand.has_nan or operand.has_infinity for operand in self.operands):
            fields["nan"] = 1  # infinity times zero is one
        if any(operand.has_infinity for operand in self.operands):
            fields["infinite"] = 1
        return StructLayout(fields)

    @property
    def table_inputs(self) -> int:
        """Bits of both codes that a table of fixed-point magnitudes would read."""
        return sum(operand.format.bits - operand.signed_magnitude for operand in self.operands)


class Multiplier(wiring.Component):
    """Decode two codes and multiply; one product a cycle.

    Parameters
    ----------
    a, b : IntFormat | FloatFormat
    variant : 'fabric' | 'dsp'
    body, placer               As for SparseChain; of the DSP.

    Members
    -------
    a, b : In                  Codes.
    product : Out              `shape.layout`, `latency` cycles later. With a flag up the rest is undefined.

    Notes
    -----
    fabric: codes of together at most 6 bits without their signs go through one table, a LUT6 for each bit of the
    fixed-point magnitude (FP4: 8). Significands of together at most 6 bits likewise. Others take one row of LUTs for
    each bit of the shorter one, n LUTs a row, a register after each row: n * m LUTs for n x m bits.
    """

    def __init__(
        self, *, a: Number, b: Number, variant: str = "fabric", body: str = "behavioural", placer: Placer | None = None
    ) -> None:
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {VARIANTS}, not {variant!r}")
        self.variant, self.body, self.placer = variant, body, placer if placer is not None else Inline()
        self.tabulated = variant == "fabric" and Product(a, b).table_inputs <= _LUT_INPUTS
        self.shape = Product(a, b, fixed=self.tabulated)
        super().__init__({"a": In(a.bits), "b": In(b.bits), "product": Out(self.shape.layout)})

    @property
    def latency(self) -> int:
        """Cycles from codes to product."""
        flags = 2 if "nan" in self.shape.layout.members else 1
        if self.tabulated:
            return flags
        if self.variant == "dsp":
            return _DSP_LATENCY
        x, y = self._factors()
        if x.width + y.width <= _LUT_INPUTS:
            return 2
        return 1 + y.width - (self._pairs(x, y))

    def _factors(self) -> tuple[Shape, Shape]:
        """Shapes of multiplicand and multiplier: a signed one, or else the longer one, is the multiplicand."""
        a, b = (operand.significand for operand in self.shape.operands)
        return (a, b) if self._a_first(a, b) else (b, a)

    @staticmethod
    def _a_first(a: Shape, b: Shape) -> bool:
        return a.signed if a.signed != b.signed else a.width >= b.width

    @staticmethod
    def _pairs(x: Shape, y: Shape) -> int:
        """Rows saved because the first two are one table."""
        return int(x.width + 2 <= _LUT_INPUTS and y.width > 2)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        fields = self._fields(m)
        if self.tabulated:
            fields["significand"] = later(m, self._table(m), "significand", self.latency - 1, first=1)
        elif self.variant == "dsp":
            fields["significand"] = self._dsp(m)
        else:
            fields["significand"] = self._rows(m)
        m.d.comb += Value.cast(self.product).eq(Cat(fields[name] for name in self.shape.layout.members))
        return m

    def _decoded(self) -> tuple[View, View]:
        a, b = self.shape.operands
        return decode(a.format, self.a), decode(b.format, self.b)

    def _fields(self, m: Module) -> dict[str, Value]:
        """Sign, exponent and specials, which wait for the significand."""
        joined = join_fields(m, self.shape, *self._decoded())
        cycles = {name: 1 if name == "negative" else 2 for name in joined}
        return {
            name: later(m, value, name, self.latency - cycles[name], first=cycles[name])
            for name, value in joined.items()
        }

    def _table(self, m: Module) -> Value:
        """Stage 0: the fixed-point magnitude of two codes, a LUT of at most six inputs for each of its bits."""
        a, b = self.shape.operands
        inputs = [
            code[: operand.format.bits - operand.signed_magnitude] for operand, code in ((a, self.a), (b, self.b))
        ]
        words = [_fixed_point(operand.format) for operand in (a, b)]
        products = [p * q for q in words[1] for p in words[0]]  # the index is b's code, then a's in the low bits
        return _lookup(m, Cat(*inputs), products, self.shape.significand, "s0_significand")

    def _dsp(self, m: Module) -> Value:
        """Stages 0 to 2: A2 and B2 take the decoded significands, then M, then P."""
        a, b = (field(view, "significand") for view in self._decoded())
        shapes = [operand.significand for operand in self.shape.operands]
        for operand, shape in zip(self.shape.operands, shapes, strict=True):
            if shape.width + (not shape.signed) > 18:
                raise ValueError(f"{operand.format.name} has a significand of {shape.width} bits, too wide for a DSP")
        dsp: Any = self.placer.place(m, "dsp", "sparsefab_dsp48e2_multiply", self._make_dsp)
        m.d.comb += [dsp.A.eq(_as(a, shapes[0])), dsp.B.eq(_as(b, shapes[1])), dsp.OPMODE.eq(OPMODE_FIRST)]
        return dsp.P[: self.shape.significand.width]

    def _make_dsp(self) -> DSP48E2:
        return DSP48E2(
            body=self.body,
            attributes={"AREG": 1, "ACASCREG": 1, "BREG": 1, "BCASCREG": 1, "AMULTSEL": "A", "MREG": 1, "PREG": 1},
        )

    def _rows(self, m: Module) -> Value:
        views = self._decoded()
        a, b = (operand.significand for operand in self.shape.operands)
        order = (0, 1) if self._a_first(a, b) else (1, 0)
        shape_x, shape_y = self._factors()
        # stage 0: decode
        x, y = (
            _as(later(m, field(views[k], "significand"), f"factor_{'ab'[k]}", 1), shape)
            for k, shape in zip(order, (shape_x, shape_y), strict=True)
        )
        n, rows = shape_x.width, shape_y.width
        if n + rows <= _LUT_INPUTS:
            products = [p * q for q in _range(shape_y) for p in _range(shape_x)]
            return _lookup(m, Cat(x, y), products, self.shape.significand, "s1_significand")
        # stage 1: the first row, or the first two as a table
        start = 1 + self._pairs(shape_x, shape_y)
        if start == 2:
            products = [p * q for q in range(4) for p in _range(shape_x)]
            shape = signed(n + 2) if shape_x.signed else unsigned(n + 2)
            partial: Value = _lookup(m, Cat(x, y[:2]), products, shape, "s1_partial")
        else:
            partial = self._row(m, 0, Const(0, Shape(n, shape_x.signed)), x, y[0], rows == 1 and shape_y.signed)
        # one stage a row: the row's bit times the multiplicand joins the upper bits of the sum
        for k in range(start, rows):
            x, y = _as(later(m, x, "x", 1, first=k), shape_x), later(m, y, "y", 1, first=k)
            upper = _as(partial[k:], Shape(n, shape_x.signed))
            total = self._row(m, k, upper, x, y[k], shape_y.signed and k == rows - 1)
            partial = Cat(later(m, partial[:k], "low", 1, first=k), total)
        return partial

    def _row(self, m: Module, k: int, upper: Value, x: Value, bit: Value, subtract: bool) -> Value:
        """Register upper +- x * bit; written as a difference, which maps onto one LUT a bit whatever is subtracted."""
        width = len(x) + 1
        term = Signal(Shape(width, x.shape().signed), name=f"term{k}")
        total = Signal(width, name=f"s{k + 1}_row", reset_less=True)
        m.d.comb += term.eq(Mux(bit, x, 0))
        if subtract:
            m.d.sync += total.eq(upper - term)
        else:
            wide = Signal.like(term, name=f"upper{k}")
            m.d.comb += wide.eq(upper)
            m.d.sync += total.eq((Cat(Const(0, 1), wide) - Cat(Const(1, 1), ~term))[1 : width + 1])
        return total


def join_fields(m: Module, product: Product, a: View, b: View) -> dict[str, Value]:
    """Join the signs, one cycle later, and the exponents and specials, two cycles later, of two decoded operands."""
    layout = product.layout.members
    joined: dict[str, Value] = {}
    if "negative" in layout:
        joined["negative"] = later(m, field(a, "negative") ^ field(b, "negative"), "negative", 1)
    if "exponent" in layout:
        exponents = [later(m, field(v, "exponent"), f"exponent_{n}", 1) for v, n in ((a, "a"), (b, "b"))]
        total = Signal(product.exponent_max.bit_length(), name="s1_exponent", reset_less=True)
        m.d.sync += total.eq(exponents[0] + exponents[1])
        joined["exponent"] = total
    if "nan" in layout:
        nan, infinite = ([later(m, field(v, f), f"{f}_{n}", 1) for v, n in ((a, "a"), (b, "b"))] for f in _SPECIALS)
        zero = [later(m, ~field(v, "significand").any(), f"zero_{n}", 1) for v, n in ((a, "a"), (b, "b"))]
        undefined = nan[0] | nan[1] | (infinite[0] & zero[1]) | (infinite[1] & zero[0])
        joined["nan"] = later(m, undefined, "nan", 1, first=1)
        if "infinite" in layout:
            joined["infinite"] = later(m, infinite[0] | infinite[1], "infinite", 1, first=1)
    return joined


def _as(value: Value, shape: Shape) -> Value:
    """The same bits, read as `shape` says."""
    return value.as_signed() if shape.signed else value.as_unsigned()


def _range(shape: Shape) -> list[int]:
    """Values of all bit patterns."""
    half = 1 << shape.width - 1 if shape.signed else 1 << shape.width
    return [code if code < half else code - (1 << shape.width) for code in range(1 << shape.width)]


def _fixed_point(fmt: Number) -> list[int]:
    """Magnitudes of a float's codes on its grid, or an integer's values."""
    if isinstance(fmt, IntFormat):
        return _range(signed(fmt.bits) if fmt.signed else unsigned(fmt.bits))
    low = (1 << fmt.mantissa_bits) - 1
    return [
        ((code & low) + (low + 1 if code >> fmt.mantissa_bits else 0)) << max((code >> fmt.mantissa_bits) - 1, 0)
        for code in range(1 << fmt.exponent_bits + fmt.mantissa_bits)
    ]


def _lookup(m: Module, index: Value, words: list[int], shape: Shape, name: str) -> Signal:
    """Register words[index]; a constant for each bit, so that each is one LUT."""
    planes = [sum((word >> bit & 1) << k for k, word in enumerate(words)) for bit in range(shape.width)]
    register = Signal(shape, name=name, reset_less=True)
    for bit, plane in enumerate(planes):
        picked = Signal(len(words), name=f"{name}{bit}")  # as wide as the shift, whose lowest bit counts
        m.d.comb += picked.eq(Const(plane, len(words)) >> index)
        m.d.sync += register[bit].eq(picked[0])
    return register
