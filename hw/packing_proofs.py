"""Proofs that two int8, or four int4, products in a DSP are exact, for every operand and every length allowed.

By induction down a cascade:

    packed    the bank's word is (a1 << 18) + a0, or a and -a
    first     the first DSP gives offset + pair * shared operand + C, for all operands
    next      any other DSP adds what the first one would have: cascade + first - offset, for all operands and every
              48-bit cascade value; in two steps where the correction C is a term of its own
    restart   a DSP where a row may start adds to the cascade as any other, or starts as the first one
    lanes     (upper sum << 18) + lower sum + offset comes apart into both sums, for all sums that `segment` products
              can have; one product more refutes it

so after n DSPs the cascade holds the sums of n products in each lane, and the tree gives them back. The multiplier is
the same cell on both sides: that the DSP's 27 x 18 product of a pair is both 8 x 8 products at their places is left to
algebra, multiplication being distributive. For int4 it is proved, an activation fixed case by case. The same of int8,
`FirstMiter`, takes the solver a minute for some operands: the tests decide a few. In vector mode the sign of the first
weight, which steers OPMODE, is fixed, a claim for each.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final, Literal

from amaranth.hdl import C, Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.arch import LANE_BITS, LANE_OFFSET, ChainArch
from sparsefab.hw.claim import Claim
from sparsefab.hw.modules import Inline
from sparsefab.hw.pack4 import LANE_BITS as NIBBLE_LANE_BITS
from sparsefab.hw.pack4 import LANE_OFFSETS, SUM_LIMIT, NibbleArch, NibbleLanes, NibbleStep
from sparsefab.hw.pairing import ActivationPacker
from sparsefab.hw.reduce import ReduceTree
from sparsefab.hw.select import choose
from sparsefab.hw.step import ChainStep, StepKind

__all__ = [
    "PACKING_CLAIMS",
    "FirstMiter",
    "LanesMiter",
    "NibbleLanesMiter",
    "NibbleStepMiter",
    "PackerMiter",
    "PairMiter",
]

StepMode = Literal["tokens only", "matrix", "vector, w0 >= 0", "vector, w0 < 0"]
_MODES: Final[tuple[StepMode, ...]] = ("tokens only", "matrix", "vector, w0 >= 0", "vector, w0 < 0")


class _OperandMiter(wiring.Component):
    """Inputs: the operand that both products share, the pair that it meets, and what comes down the cascade."""

    def __init__(self, *, mode: StepMode) -> None:
        self.mode = mode
        super().__init__(
            {"shared": In(signed(8)), "lower": In(signed(8)), "upper": In(signed(8)), "cascade": In(48), "ok": Out(1)}
        )

    @property
    def first_of_pair(self) -> Value:
        """The lower operand; its sign, where it steers OPMODE, is the mode's."""
        if not self.mode.startswith("vector"):
            return self.lower
        return Cat(self.lower[:-1], C(self.mode == "vector, w0 < 0", 1)).as_signed()

    def path(self, m: Module, name: str, kind: StepKind, *, corrected: bool = True, start: bool = False) -> Value:
        """Place a DSP with what leads to it; return its sum."""
        path = _StepPath(kind=kind, mode=self.mode, corrected=corrected, start=start)
        m.submodules[name] = path
        pair = Cat(self.first_of_pair, self.upper)
        m.d.comb += [path.shared.eq(self.shared), path.pair.eq(pair), path.cascade.eq(self.cascade)]
        return path.total


class FirstMiter(_OperandMiter):
    """The first DSP gives offset + (upper product << 18) + lower product."""

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        products = (self.shared * self.upper << LANE_BITS) + self.shared * self.first_of_pair
        expected = Signal(48)
        m.d.comb += [expected.eq(products + LANE_OFFSET), self.ok.eq(self.path(m, "dut", "first") == expected)]
        return m


class PairMiter(wiring.Component):
    """The first DSP gives offset + pair * shared operand + C; the product is the same cell on both sides.

    Inputs: the weights, and the bank's word: 8 bits of the lower activation, then what stands 18 bits above it. The
    pair is (a1 << 18) + a0, or the weights side by side: (w1 << 18) + w0, and 1 << 18 more where w0 is negative, which
    C = (the word's upper half, -a) << 18 makes up for.
    """

    def __init__(self, *, mode: StepMode) -> None:
        self.mode = mode
        self.arch = ChainArch(dsps=2, segment=2, matrix_vector=mode != "tokens only", ends=True)
        super().__init__({"weight": In(signed(8)), "second": In(8), "word": In(self.arch.word_bits), "ok": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.dut = dut = ChainStep(arch=self.arch, kind="first", body="behavioural", placer=Inline())
        vector, negative = self.mode.startswith("vector"), self.mode == "vector, w0 < 0"
        weight = Cat(self.weight[:-1], C(negative, 1)).as_signed() if vector else self.weight
        m.d.comb += [dut.weight.eq(Cat(weight, self.second)), dut.word.eq(self.word)]
        if self.arch.matrix_vector:
            m.d.comb += dut.matrix.eq(not vector)
        lower, upper = self.word[:8].as_signed(), self.word[8:].as_signed()
        factor, product, expected = Signal(signed(18)), Signal(signed(45)), Signal(48)
        # as the pre-adder leaves it: one of its operands, or the sum of both
        pair, d_port, a_port = Signal(signed(27)), Signal(27), Signal(27)
        m.d.comb += [d_port.eq(lower), a_port.eq(Cat(C(0, LANE_BITS), upper).as_signed())]
        packed = Cat(lower, lower[-1].replicate(LANE_BITS - 8), upper)
        aside = Cat(weight, weight[-1].replicate(LANE_BITS - 8), self.second).as_signed()
        factor_bits: Value = weight
        if self.arch.matrix_vector:  # picked as the design does it, so that both sides have the same multiplier
            factor_bits = choose(m, "operand", dut.matrix, weight, lower, body="behavioural", placer=Inline())
        m.d.comb += [
            pair.eq(aside if vector else packed if self.mode == "matrix" else d_port + a_port),
            factor.eq(factor_bits.as_signed()),
            product.eq(pair * factor),
            expected.eq(product + LANE_OFFSET + (upper << LANE_BITS if negative else 0)),
            self.ok.eq((dut.total == expected) & (factor == (lower if vector else weight))),
        ]
        return m


class PackerMiter(wiring.Component):
    """Two tokens: the bank's word is (a1 << 18) + a0; one token: a0, and -a0 above it."""

    def __init__(self) -> None:
        super().__init__({"a0": In(signed(8)), "a1": In(signed(8)), "vector": In(1), "ok": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.dut = dut = ActivationPacker(arch=ChainArch(dsps=1, segment=1))
        m.d.comb += [dut.vector.eq(self.vector), Value.cast(dut.pairs).eq(Cat(self.a0, self.a1))]
        word = Value.cast(dut.words)
        lower, upper = word[:8].as_signed(), word[8:].as_signed()
        pair = (upper << LANE_BITS) + Cat(lower, lower[-1].replicate(10))
        tokens = pair == (self.a1 << LANE_BITS) + self.a0
        m.d.comb += self.ok.eq(Mux(self.vector, (lower == self.a0) & (upper == -self.a0), tokens))
        return m


class NextMiter(_OperandMiter):
    """Another DSP adds to the cascade what the first one adds to the offset; both without the correction C."""

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        total = self.path(m, "dut", "next", corrected=False)
        first = self.path(m, "first", "first", corrected=False)
        m.d.comb += self.ok.eq((total + LANE_OFFSET)[:48] == (self.cascade + first)[:48])
        return m


class CorrectionMiter(_OperandMiter):
    """Where w0 is negative another DSP adds C = -a << 18, too."""

    def __init__(self) -> None:
        super().__init__(mode="vector, w0 < 0")

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        total, plain = (self.path(m, name, "next", corrected=name == "dut") for name in ("dut", "plain"))
        m.d.comb += self.ok.eq(total == (plain - (self.shared << LANE_BITS))[:48])
        return m


class RestartMiter(_OperandMiter):
    """Where a row starts the DSP starts as the first one, elsewhere it goes on; one that is split adds 1."""

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        equations = (
            (self.path(m, "dut", "restart", start=True), self.path(m, "first", "first")),
            (self.path(m, "goes_on", "restart"), self.path(m, "next", "next")),
            (self.path(m, "split", "first", start=True), self.path(m, "whole", "first") + 1),
        )
        m.d.comb += self.ok.eq(Cat(total == expected[:48] for total, expected in equations).all())
        return m


class _StepPath(wiring.Component):
    """From activations and weights as the streams have them to the DSP's sum; the bank is a wire.

    Not `corrected`: what the bank holds for C, in vector mode, is replaced by 0. `start`: a row starts here, or in a
    first DSP's segment.
    """

    def __init__(self, *, kind: StepKind, mode: StepMode, corrected: bool, start: bool) -> None:
        self.kind, self.mode, self.corrected, self.start = kind, mode, corrected, start
        super().__init__({"shared": In(8), "pair": In(16), "cascade": In(48), "total": Out(48)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        arch = ChainArch(dsps=2, segment=2, matrix_vector=self.mode != "tokens only", ends=True)
        vector = self.mode.startswith("vector")
        step = ChainStep(arch=arch, kind=self.kind, body="behavioural", placer=Inline())
        m.submodules.step = step
        pair, weight = (Cat(self.shared, C(0, 8)), self.pair) if vector else (self.pair, self.shared)
        m.d.comb += [step.weight.eq(weight), self.total.eq(step.total)]
        if arch.matrix_vector:
            m.submodules.packer = packer = ActivationPacker(arch=arch)
            word = Value.cast(packer.words[0])
            m.d.comb += [
                packer.vector.eq(vector),
                Value.cast(packer.pairs[0]).eq(pair),
                step.matrix.eq(not vector),
                step.word.eq(Cat(word[:8], Mux(self.corrected or not vector, word[8:], 0))),
            ]
        else:
            m.d.comb += step.word.eq(pair)
        if self.kind != "first":
            m.d.comb += step.cascade_in.eq(self.cascade)
        if self.kind != "next":
            m.d.comb += (step.split if self.kind == "first" else step.start).eq(self.start)
        return m


class LanesMiter(wiring.Component):
    """Sums of so many products a lane come out of two segments' packed totals as they went in."""

    def __init__(self, *, products: int) -> None:
        self.products = products
        super().__init__(
            {f"{lane}{s}": In(signed(19)) for lane in ("lower", "upper") for s in range(2)} | {"ok": Out(1)}
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        arch = ChainArch(dsps=16)
        m.submodules.dut = dut = ReduceTree(arch=arch)
        low, high = (self.products * limit for limit in arch.product_range)
        lower, upper = ([getattr(self, f"{lane}{s}") for s in range(2)] for lane in ("lower", "upper"))
        possible = Cat((value >= low) & (value <= high) for value in (*lower, *upper)).all()
        for s in range(2):
            m.d.comb += dut.totals[s].eq((upper[s] << LANE_BITS) + lower[s] + LANE_OFFSET)
        same = (dut.sums[0].as_signed() == lower[0] + lower[1]) & (dut.sums[1].as_signed() == upper[0] + upper[1])
        m.d.comb += self.ok.eq(same | ~possible)
        return m


class NibbleStepMiter(wiring.Component):
    """total = sum of w_i a_j << 11 (2 i + j), added to the offsets or to the cascade."""

    def __init__(self, *, first: bool) -> None:
        self.first = first
        operands = dict.fromkeys(("w0", "w1", "a0", "a1"), In(signed(4)))
        super().__init__(operands | {"cascade": In(48), "ok": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.dut = dut = NibbleStep(first=self.first, body="behavioural", placer=Inline())
        weights, activations = Cat(self.w0, self.w1), Cat(self.a0, self.a1)
        m.d.comb += [dut.weights.eq(weights), dut.activations.eq(activations)]
        expected = Signal(48)
        if self.first:
            products = [w * a for w in (self.w0, self.w1) for a in (self.a0, self.a1)]
            shifted = [product << lane * NIBBLE_LANE_BITS for lane, product in enumerate(products)]
            m.d.comb += expected.eq(sum(shifted, start=Const(LANE_OFFSETS, 48)))
        else:
            m.submodules.start = start = NibbleStep(first=True, body="behavioural", placer=Inline())
            m.d.comb += [
                dut.cascade_in.eq(self.cascade),
                start.weights.eq(weights),
                start.activations.eq(activations),
                expected.eq(self.cascade + (start.total - LANE_OFFSETS)),
            ]
        m.d.comb += self.ok.eq(dut.total[:48] == expected)
        return m


class NibbleLanesMiter(wiring.Component):
    """Four sums of so many products come out of the packed total as they went in."""

    def __init__(self, *, products: int) -> None:
        self.products = products
        super().__init__({f"sum{lane}": In(signed(12)) for lane in range(4)} | {"ok": Out(1)})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.dut = dut = NibbleLanes(arch=NibbleArch(dsps=SUM_LIMIT))
        sums = [getattr(self, f"sum{lane}") for lane in range(4)]
        low, high = -8 * 7 * self.products, 8 * 8 * self.products
        packed = [value << lane * NIBBLE_LANE_BITS for lane, value in enumerate(sums)]
        m.d.comb += dut.total.eq(sum(packed, start=Const(LANE_OFFSETS, 48)))
        possible = Cat((value >= low) & (value <= high) for value in sums).all()
        same = Cat(dut.sums[lane] == value for lane, value in enumerate(sums)).all()
        m.d.comb += self.ok.eq(same | ~possible)
        return m


# a product by a constant is a sum of shifted operands, which the solver can compare
_NIBBLE_CASES: Final[Mapping[str, range]] = {"a0": range(16)}

PACKING_CLAIMS: Final = (
    *(Claim(block="chain", name=f"first DSP, {mode}", miter=partial(PairMiter, mode=mode)) for mode in _MODES),
    Claim(block="chain", name="packed activations", miter=PackerMiter),
    *(Claim(block="chain", name=f"next DSP, {mode}", miter=partial(NextMiter, mode=mode)) for mode in _MODES),
    Claim(block="chain", name="correction of the next DSP", miter=CorrectionMiter),
    *(Claim(block="chain", name=f"restart, {mode}", miter=partial(RestartMiter, mode=mode)) for mode in _MODES),
    Claim(block="chain", name="lanes of 8 products", miter=partial(LanesMiter, products=8)),
    Claim(block="pack4", name="first DSP", miter=partial(NibbleStepMiter, first=True), cases=_NIBBLE_CASES),
    Claim(block="pack4", name="next DSP", miter=partial(NibbleStepMiter, first=False)),
    Claim(
        block="pack4",
        name=f"lanes of {SUM_LIMIT} products",
        miter=partial(NibbleLanesMiter, products=SUM_LIMIT),
    ),
)
