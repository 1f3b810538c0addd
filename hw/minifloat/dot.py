"""Dot products of OCP MX blocks: exact inside a block, a shift by the shared exponents, a window across blocks.

    acc = sum over blocks of floor(S * 2^(F - d_a - d_b))      S: the exact sum of a block's products, on their grid

`formats.mx` defines it: d is the largest exponent of the row (or token) less the block's, F the fraction bits, and a
shift to the right by 63 or more is one by 63. Nothing overflows: the window is as wide as `blocks` blocks with d = 0.
"""

from dataclasses import dataclass
from typing import Final

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.data import ArrayLayout, StructLayout
from amaranth.lib.wiring import In, Out

from sparsefab.formats import BlockFormat, get_format
from sparsefab.hw.fifo import CreditFifo
from sparsefab.hw.minifloat.accumulate import CHAIN_BITS
from sparsefab.hw.minifloat.align import align, align_latency
from sparsefab.hw.minifloat.decode import field
from sparsefab.hw.minifloat.multiply import Multiplier, Product
from sparsefab.hw.modules import Inline, Placer, library_verilog
from sparsefab.hw.stages import later

__all__ = ["BlockDot", "DotArch", "dot_layout", "dot_result", "dot_verilog"]

_EXPONENT_BITS: Final = 8  # E8M0
_MOST_SHIFT: Final = 63  # formats.mx


@dataclass(frozen=True, slots=True, kw_only=True)
class DotArch:
    """Parameters of a block dot product.

    Parameters
    ----------
    a, b : str                 MX formats of equal block size, as `formats.get_format` takes them; a's F is in force.
    blocks : int               The most blocks of a sum.
    multiplier : 'fabric' | 'dsp'
    """

    a: str = "mxfp8_e4m3"
    b: str = "mxfp8_e4m3"
    blocks: int = 256
    multiplier: str = "fabric"

    def __post_init__(self) -> None:
        a, b = (self.format(name) for name in (self.a, self.b))
        if a.block_size != b.block_size:
            raise ValueError(f"a and b must have blocks of one size, not {a.block_size} and {b.block_size}")
        if not 1 <= self.blocks <= 1 << 16:
            raise ValueError(f"blocks must be 1 to {1 << 16}, not {self.blocks}")
        if self.window_bits > CHAIN_BITS:
            raise ValueError(
                f"{self.a} x {self.b}, {self.blocks} blocks: the window has {self.window_bits} bits, at most "
                f"{CHAIN_BITS} are added in a cycle; take fewer fraction bits or blocks"
            )

    @staticmethod
    def format(name: str) -> BlockFormat:
        """The MX format of a name."""
        found = get_format(name)
        if not isinstance(found, BlockFormat) or not found.is_mx:
            raise ValueError(f"a block dot product needs MX formats, not {name}")
        return found

    @property
    def elements(self) -> Product:
        """The product of two elements."""
        return Product(self.format(self.a).element, self.format(self.b).element)

    @property
    def pairs(self) -> int:
        """Pairs of elements in a beat: a block."""
        return self.format(self.a).block_size

    @property
    def fraction_bits(self) -> int:
        """F."""
        return self.format(self.a).fraction_bits

    @property
    def block_bits(self) -> int:
        """Bits of a block's signed sum."""
        return self.elements.magnitude_bits + 1 + (self.pairs - 1).bit_length()

    @property
    def window_bits(self) -> int:
        """Bits of the accumulator."""
        return self.block_bits + self.fraction_bits + (self.blocks - 1).bit_length()

    @property
    def has_specials(self) -> bool:
        """An element may be NaN or infinite."""
        return "nan" in self.elements.layout.members


def dot_layout(arch: DotArch) -> StructLayout:
    """One beat: a block of codes of each operand, how far its exponent lies below the largest, last of its sum."""
    a, b = arch.format(arch.a).element, arch.format(arch.b).element
    return StructLayout(
        {
            "a": ArrayLayout(a.bits, arch.pairs),
            "b": ArrayLayout(b.bits, arch.pairs),
            "d_a": _EXPONENT_BITS,
            "d_b": _EXPONENT_BITS,
            "last": 1,
        }
    )


def dot_result(arch: DotArch) -> StructLayout:
    """The window; `undefined` when an element of the sum was NaN or infinite, where formats have such."""
    return StructLayout({"sum": signed(arch.window_bits)} | ({"undefined": 1} if arch.has_specials else {}))


class BlockDot(wiring.Component):
    """Multiply blocks and add them in the window.

    Parameters
    ----------
    arch : DotArch
    body, placer               As for SparseChain.

    Members
    -------
    i : In(stream)             `dot_layout`.
    o : Out(stream)            `dot_result`, one beat for each `last`.

    Notes
    -----
    One block a cycle, also across the end of a sum; `latency` cycles and two for the output FIFO from the last block to
    its sum. `i.ready` comes from a register. Block sums are a tree of registered adders, the shift takes four levels.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, *, arch: DotArch, body: str = "behavioural", placer: Placer | None = None) -> None:
        self.arch, self.body, self.placer = arch, body, placer if placer is not None else Inline()
        self._first = self._multiplier()
        self._product = product = self._first.shape
        self._align_cycles = align_latency(product.significand.width, product.exponent_max.bit_length(), merged=False)
        self._tree_cycles = (arch.pairs - 1).bit_length()
        self._shift_bits = (arch.fraction_bits + _MOST_SHIFT).bit_length()
        self._to_block = self._first.latency + self._align_cycles + 2 + self._tree_cycles
        self.latency = self._to_block + -(-self._shift_bits // 2) + 1
        super().__init__({"i": In(stream.Signature(dot_layout(arch))), "o": Out(stream.Signature(dot_result(arch)))})

    def _multiplier(self) -> Multiplier:
        elements = self.arch.elements
        return Multiplier(a=elements.a, b=elements.b, variant=self.arch.multiplier, body=self.body, placer=self.placer)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        arch, beat = self.arch, self.i.payload
        m.submodules.fifo = fifo = CreditFifo(shape=dot_result(arch), body=self.body, placer=self.placer)
        taken = Signal(name="taken")
        m.d.comb += [self.i.ready.eq(fifo.available), taken.eq(self.i.valid & self.i.ready)]

        # products, each on the common grid, then their sum
        multiplier = f"sparsefab_multiply_{arch.elements.a.name}_{arch.elements.b.name}_{arch.multiplier}"
        placed, undefined, made = [], [], [self._first]
        for k in range(arch.pairs):
            part = self.placer.place(m, f"multiply{k}", multiplier, lambda: made.pop() if made else self._multiplier())
            m.d.comb += [part.a.eq(beat.a[k]), part.b.eq(beat.b[k])]
            product = self._product.layout(Value.cast(part.product))
            placed.append(self._on_grid(m, product, k))
            undefined += [field(product, "nan"), field(product, "infinite")] if arch.has_specials else []
        block = _sum(m, placed)

        # the block's exponents: added, limited, then the window's bits of S * 2^F shifted right
        start = self._to_block
        shifted = self._shift(m, block, later(m, beat.d_a, "d_a", start - 2), later(m, beat.d_b, "d_b", start - 2))
        wait = -(-self._shift_bits // 2)
        valid = later(m, taken, "valid", start + wait, reset_less=False)
        ends = later(m, taken & beat.last, "ends", start + wait, reset_less=False)

        # one carry chain; the end of a sum clears the window by its reset
        window, total = Signal(signed(arch.window_bits)), Signal(signed(arch.window_bits), reset_less=True)
        result = Signal(signed(arch.window_bits))
        m.d.comb += result.eq(window + shifted)
        with m.If(ends):
            m.d.sync += [window.eq(0), total.eq(result)]
        with m.Elif(valid):
            m.d.sync += window.eq(result)
        m.d.comb += [
            # only the end of a sum needs a place in the FIFO
            fifo.take.eq(later(m, taken & beat.last, "take", 1, reset_less=False)),
            fifo.push.eq(later(m, ends, "done", 1, reset_less=False)),
            fifo.data.sum.eq(total),
        ]
        if arch.has_specials:
            self._flag(m, undefined, valid, ends, fifo.data.undefined)
        wiring.connect(m, fifo.o, wiring.flipped(self.o))
        return m

    def _on_grid(self, m: Module, product: Value, k: int) -> Value:
        """Shift a significand to its place, give it its sign."""
        shape, cycles = self._product, self._align_cycles
        aligned = align(
            m,
            product.significand,
            field(product, "exponent"),
            amount_bits=shape.exponent_max.bit_length(),
            offset=shape.exponent_offset,
            merged=False,
        )
        bits = self.arch.elements.magnitude_bits
        magnitude = Signal(Shape(bits, shape.significand.signed), name=f"magnitude{k}", reset_less=True)
        term = Signal(signed(bits + 1), name=f"term{k}", reset_less=True)
        negative = later(m, field(product, "negative"), f"negative{k}", cycles + 1)
        m.d.sync += magnitude.eq(aligned.place(m, bits, f"placed{k}"))
        wide = Signal(bits + 1, name=f"wide{k}")
        m.d.comb += wide.eq(magnitude)
        m.d.sync += term.eq((wide ^ negative.replicate(bits + 1)) + negative)
        return term

    def _shift(self, m: Module, block: Value, d_a: Value, d_b: Value) -> Value:
        """floor(block * 2^(F - d)) with d limited to F + 63; two bits of d a level."""
        arch = self.arch
        most = arch.fraction_bits + _MOST_SHIFT
        both = Signal(_EXPONENT_BITS + 1, name="d_both", reset_less=True)
        amount = Signal(self._shift_bits, name="d", reset_less=True)
        m.d.sync += [both.eq(d_a + d_b), amount.eq(Mux(both >= most, most, both))]
        value: Value = Cat(Const(0, arch.fraction_bits), block).as_signed()
        digits: Value = amount
        for level, low in enumerate(range(0, self._shift_bits, 2)):
            digit = digits[low : min(low + 2, self._shift_bits)]
            moved = Signal(signed(len(value)), name=f"shift{level}", reset_less=True)
            with m.Switch(digit):
                for places in range(1 << len(digit)):
                    with m.Case(places):
                        m.d.sync += moved.eq(value >> (places << low))
            value, digits = moved, later(m, digits, "d", 1, first=level)
        return value

    def _flag(self, m: Module, flags: list[Value], valid: Value, ends: Value, out: Value) -> None:
        """Any undefined product of a sum marks it."""
        spent, names = 0, flags
        while len(names) > 1:
            names = [
                later(m, Cat(*names[k : k + 6]).any(), f"undefined{k}", 1, first=spent) for k in range(0, len(names), 6)
            ]
            spent += 1
        left = self.latency - 1 - self._first.latency - spent
        here = later(m, names[0], "undefined", left, first=spent)
        seen, held = Signal(name="seen_undefined"), Signal(name="held_undefined", reset_less=True)
        now = seen | (here & valid)
        with m.If(ends):
            m.d.sync += [seen.eq(0), held.eq(now)]
        with m.Else():
            m.d.sync += seen.eq(now)
        m.d.comb += out.eq(held)


def _sum(m: Module, values: list[Value]) -> Value:
    """Add values pairwise, a register a level; an odd one waits."""
    level = 0
    while len(values) > 1:
        level += 1
        pairs = [values[k : k + 2] for k in range(0, len(values), 2)]
        bits = len(values[0]) + 1
        values = []
        for k, pair in enumerate(pairs):
            register = Signal(signed(bits), name=f"tree{level}_{k}", reset_less=True)
            m.d.sync += register.eq(pair[0] + pair[1] if len(pair) == 2 else pair[0])
            values.append(register)
    return values[0]


def dot_verilog(arch: DotArch, *, primitives: str = "vendor") -> dict[str, str]:
    """Convert a block dot product to Verilog; `primitives` as for `chain_verilog`."""
    return library_verilog(lambda library: BlockDot(arch=arch, body=primitives, placer=library))
