"""Add products exactly: a fixed-point accumulator as wide as the formats' whole range (Kulisch)."""

from dataclasses import dataclass
from typing import Final

from amaranth.hdl import Cat, Const, Elaboratable, Module, Shape, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out

from sparsefab.hw.minifloat.align import align, align_latency
from sparsefab.hw.minifloat.decode import field
from sparsefab.hw.minifloat.multiply import Product
from sparsefab.hw.stages import later

__all__ = ["Accumulator", "Total", "sticky_flags"]

CHAIN_BITS: Final = 96  # longest carry chain; wider accumulators are cut, the upper part a cycle behind the lower


@dataclass(frozen=True, slots=True)
class Total:
    """What `terms` products of two formats sum to.

    Value = sum * 2^(product.lsb_exponent), unless a flag is up.

    Parameters
    ----------
    product : Product
    terms : int                The most products of a sum, 1 to 2^24.
    """

    product: Product
    terms: int

    def __post_init__(self) -> None:
        if not 1 <= self.terms <= 1 << 24:
            raise ValueError(f"terms must be 1 to {1 << 24}, not {self.terms}")

    @property
    def bits(self) -> int:
        """Width without any rounding or overflow: product, growth, sign.

        For integers r_a + r_b + ceil(log2 n) + 1, for minifloats 2^E_a + M_a + 2^E_b + M_b + ceil(log2 n) - 1.
        Source: arXiv 2311.12359, section on the accumulator.
        """
        return self.product.magnitude_bits + (self.terms - 1).bit_length() + 1

    @property
    def layout(self) -> StructLayout:
        """The sum; flags where the operands have NaN or infinities. Of the flags at most one is up."""
        fields: dict[str, Shape | int] = {"sum": signed(self.bits)}
        members = self.product.layout.members
        if "nan" in members:
            fields["nan"] = 1
        if "infinite" in members:
            fields |= {"positive_infinity": 1, "negative_infinity": 1}
        return StructLayout(fields)


class Accumulator(wiring.Component):
    """Shift each product to its place on the grid and add it; one product a cycle, also across the end of a sum.

    Parameters
    ----------
    total : Total

    Members
    -------
    product : In               total.product.layout.
    valid, last : In(1)        The product counts; it is the last of its sum.
    total : Out                total.layout, held until the next one is done.
    done : Out(1)              A new total.

    Notes
    -----
    Latency from the last product to its total: `latency` cycles. The adder is one carry chain of at most 96 bits whose
    LUTs hold the last shift and the sign. The accumulator restarts by its registers' reset, not by a multiplexer.
    """

    def __init__(self, *, total: Total) -> None:
        self.shape = total
        super().__init__(
            {
                "product": In(total.product.layout),
                "valid": In(1),
                "last": In(1),
                "total": Out(total.layout),
                "done": Out(1),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from the last product to `done`."""
        return self._wait + self._chains

    @property
    def _wait(self) -> int:
        product = self.shape.product
        return align_latency(product.significand.width, product.exponent_max.bit_length())

    @property
    def _chains(self) -> int:
        return -(-self.shape.bits // CHAIN_BITS)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        shape, product = self.shape, self.product
        # shift, all levels but the last
        wait = self._wait
        aligned = align(
            m,
            Value.cast(product.significand),
            field(product, "exponent"),
            amount_bits=shape.product.exponent_max.bit_length(),
            offset=shape.product.exponent_offset,
        )
        negative = later(m, field(product, "negative"), "negative", wait)
        valid = later(m, self.valid, "valid", wait, reset_less=False)
        ends = later(m, self.valid & self.last, "ends", wait, reset_less=False)

        # add or subtract: acc + (x ^ n) + n = acc - (x ^ ~n) - ~n, whose lowest borrow is a bit of its own
        placed = aligned.place(m, shape.bits, "placed")
        term, borrow = placed ^ (~negative).replicate(shape.bits), ~negative
        sums = []
        size = -(-shape.bits // self._chains)
        for chain in range(self._chains):
            part = slice(chain * size, min((chain + 1) * size, shape.bits))
            here = later(m, term[part], f"term{chain}", chain)
            enable = later(m, valid, f"valid{chain}", chain, reset_less=False)
            clear = later(m, ends, f"ends{chain}", chain, reset_less=False)
            accumulator = Signal(len(here), name=f"accumulator{chain}")
            difference = Signal(len(here) + 2, name=f"difference{chain}")
            m.d.comb += difference.eq(Cat(Const(0, 1), accumulator) - Cat(borrow, here))
            result = difference[1:-1]
            total = Signal(len(here), name=f"total{chain}", reset_less=True)
            with m.If(clear):
                m.d.sync += [accumulator.eq(0), total.eq(result)]
            with m.Elif(enable):
                m.d.sync += accumulator.eq(result)
            sums.append(later(m, total, f"total{chain}_late", self._chains - 1 - chain))
            if chain < self._chains - 1:
                borrow = later(m, difference[-1], f"borrow{chain}", 1)
        m.d.comb += [
            self.total.sum.eq(Cat(sums)),
            self.done.eq(later(m, ends, "done", self._chains, reset_less=False)),
        ]
        if "nan" in shape.layout.members:
            nan, infinite = (later(m, field(product, name), name, wait) for name in ("nan", "infinite"))
            flags = sticky_flags(m, shape, nan=nan, infinite=infinite, negative=negative, valid=valid, ends=ends)
            for name, value in flags.items():
                m.d.comb += self.total[name].eq(later(m, value, f"total_{name}", self._chains - 1))
        return m


def sticky_flags(
    m: Module, total: Total, *, nan: Value, infinite: Value, negative: Value, valid: Value, ends: Value
) -> dict[str, Value]:
    """NaN and infinities stick until the sum `ends`; infinities of both signs are NaN. One cycle later: the flags."""
    now = {"nan": nan}
    if "positive_infinity" in total.layout.members:
        now |= {"positive_infinity": infinite & ~negative, "negative_infinity": infinite & negative}
    seen = {name: Signal(name=f"seen_{name}") for name in now}
    flags = {name: seen[name] | (value & valid) for name, value in now.items()}
    undefined = flags["nan"]
    if "positive_infinity" in flags:
        undefined = undefined | (flags["positive_infinity"] & flags["negative_infinity"])
    held: dict[str, Value] = {}
    for name, value in flags.items():
        register = Signal(name=f"held_{name}")
        with m.If(ends):
            m.d.sync += [seen[name].eq(0), register.eq(undefined if name == "nan" else value & ~undefined)]
        with m.Else():
            m.d.sync += seen[name].eq(value)
        held[name] = register
    return held
