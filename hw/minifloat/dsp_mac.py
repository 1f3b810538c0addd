"""A whole exact MAC in one DSP48E2: one significand enters shifted, P accumulates, ALUMODE subtracts."""

from typing import Any, Final

from amaranth.hdl import Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.data import View
from amaranth.lib.wiring import In, Out

from sparsefab.hw.minifloat.accumulate import Total, sticky_flags
from sparsefab.hw.minifloat.align import align, align_latency
from sparsefab.hw.minifloat.decode import Operand, decode, field
from sparsefab.hw.minifloat.multiply import Product, join_fields
from sparsefab.hw.modules import Placer
from sparsefab.hw.primitives.dsp48e2 import DSP48E2, OPMODE_ACCUMULATE, OPMODE_FIRST
from sparsefab.hw.stages import later

__all__ = ["DspMac", "fits_dsp"]

_A_BITS: Final = 27
_B_BITS: Final = 18
_P_BITS: Final = 48
_ALUMODE_SUBTRACT: Final = 0b0011


def fits_dsp(total: Total) -> bool:
    """Say whether one DSP48E2 holds the shifted product's factors and the whole accumulator."""
    return total.bits <= _P_BITS and _shifted(total.product) is not None


def _shifted(product: Product) -> int | None:
    """Which operand takes the whole shift so that both fit the multiplier's ports; None if neither may."""
    reach = product.exponent_max - product.exponent_offset
    widths = [shape.width + (not shape.signed) for shape in (o.significand for o in product.operands)]
    for k in (0, 1):
        if widths[k] + reach <= _A_BITS and widths[1 - k] <= _B_BITS:
            return k
    return None


class DspMac(wiring.Component):
    """Multiply and accumulate in one DSP48E2; the fabric only decodes, adds exponents and shifts one significand.

    Parameters
    ----------
    total : Total              As `fits_dsp` says.
    body, placer               As for SparseChain.

    Members
    -------
    a, b : In                  Codes.
    valid, last : In(1)        As for Accumulator.
    total : Out                total.layout, while `done` is up.
    done : Out(1)

    Notes
    -----
    Latency `latency` cycles, one pair of codes a cycle, also across the end of a sum.
    """

    def __init__(self, *, total: Total, body: str, placer: Placer) -> None:
        if not fits_dsp(total):
            a, b = total.product.operands
            raise ValueError(
                f"{a.format.name} x {b.format.name}, {total.terms} terms: a sum of {total.bits} bits and significands "
                f"shifted by {total.product.exponent_max} do not fit a DSP48E2 (27 x 18, 48 bits)"
            )
        self.shape, self.body, self.placer = total, body, placer
        a, b = total.product.operands
        super().__init__(
            {
                "a": In(a.format.bits),
                "b": In(b.format.bits),
                "valid": In(1),
                "last": In(1),
                "total": Out(total.layout),
                "done": Out(1),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from the last codes to `done`."""
        return self._operand_cycles + 3

    @property
    def _operand_cycles(self) -> int:
        """Cycles before the multiplier's input registers: decode and add the exponents, shift."""
        product = self.shape.product
        if not product.exponent_max:
            return 0
        shifted = product.operands[_shifted(product) or 0].significand.width
        return 2 + align_latency(shifted, product.exponent_max.bit_length(), merged=False)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        product = self.shape.product
        a, b = (decode(o.format, code) for o, code in zip(product.operands, (self.a, self.b), strict=True))
        joined = join_fields(m, product, a, b)
        significands = [_as_decoded(view, operand) for view, operand in zip((a, b), product.operands, strict=True)]
        shifted = _shifted(product) or 0
        first, second = significands[shifted], significands[1 - shifted]
        cycles = self._operand_cycles

        # decode, add the exponents, shift; without exponents the codes go straight to the multiplier's registers
        if cycles:
            aligned = align(
                m,
                later(m, first, "shifted", 2),
                joined["exponent"],
                amount_bits=product.exponent_max.bit_length(),
                offset=product.exponent_offset,
                merged=False,
            )
            first = aligned.place(m, _A_BITS, "placed")
        second = later(m, second, "other", cycles)

        # A2/B2, M, P: OPMODE and ALUMODE are one register behind the operands
        valid = later(m, self.valid, "valid", cycles + 1, reset_less=False)
        last = later(m, self.last, "last", cycles + 1)
        negative = later(m, joined["negative"], "negative", cycles, first=1) if "negative" in joined else Const(0, 1)
        fresh = Signal(init=1)
        with m.If(valid):
            m.d.sync += fresh.eq(last)
        dsp: Any = self.placer.place(m, "dsp", "sparsefab_dsp48e2_mac", self._make_dsp)
        counts = later(m, valid, "counts", 1, reset_less=False)
        m.d.comb += [
            dsp.A.eq(first),
            dsp.B.eq(second),
            dsp.OPMODE.eq(Mux(fresh, OPMODE_FIRST, OPMODE_ACCUMULATE)),
            dsp.ALUMODE.eq(Mux(negative, _ALUMODE_SUBTRACT, 0)),
            dsp.CEP.eq(counts),
            self.total.sum.eq(dsp.P),
        ]
        ends = later(m, valid & last, "ends", 1, reset_less=False)
        m.d.comb += self.done.eq(later(m, ends, "done", 1, reset_less=False))
        if "nan" in product.layout.members:
            nan, infinite = (
                later(m, joined[name], name, cycles, first=2) if name in joined else Const(0, 1)
                for name in ("nan", "infinite")
            )
            flags = sticky_flags(
                m,
                self.shape,
                nan=nan,
                infinite=infinite,
                negative=later(m, negative, "sign", 1),
                valid=counts,
                ends=ends,
            )
            m.d.comb += [self.total[name].eq(value) for name, value in flags.items()]
        return m

    def _make_dsp(self) -> DSP48E2:
        return DSP48E2(
            body=self.body,
            attributes={"AREG": 1, "ACASCREG": 1, "BREG": 1, "BCASCREG": 1, "AMULTSEL": "A", "MREG": 1, "PREG": 1},
        )


def _as_decoded(view: View, operand: Operand) -> Value:
    """The significand with its own signedness, so that it extends to the multiplier's ports."""
    value = field(view, "significand")
    return value.as_signed() if operand.significand.signed else value.as_unsigned()
