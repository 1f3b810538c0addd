"""Activation pairs as the multiplier takes them, computed once for all segments while they are written."""

from amaranth.hdl import Cat, Elaboratable, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.wiring import In, Out

from sparsefab.arch import ChainArch

__all__ = ["ActivationPacker"]


class ActivationPacker(wiring.Component):
    """Make bank words: the first activation, and above it what the packed operand has there.

    Parameters
    ----------
    arch : ChainArch

    Members
    -------
    vector : In(1)             The words are for one token that two rows meet.
    pairs : In                 s8[lanes] for each DSP of a segment.
    words : Out                arch.word_bits for each DSP: activation 0, then a signed number of one bit more:
                               activation 1 less the sign of activation 0 (two tokens), or minus activation 0 (one).

    Notes
    -----
    Latency one cycle; one carry chain a DSP of a segment.
    """

    def __init__(self, *, arch: ChainArch) -> None:
        self.arch = arch
        super().__init__(
            {
                "vector": In(1),
                "pairs": In(ArrayLayout(arch.lanes * arch.activation_bits, arch.segment)),
                "words": Out(ArrayLayout(arch.word_bits, arch.segment)),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        bits = self.arch.activation_bits
        for d in range(self.arch.segment):
            pair = Value.cast(self.pairs[d])
            first, second = pair[:bits], pair[bits:]
            negative = first[-1]
            # one adder for both: ~first + 1, or second + (-1 or 0)
            left = Cat(self.vector.replicate(bits) & ~first | ~self.vector.replicate(bits) & second)
            left = Cat(left, left[-1])
            right = (~self.vector & negative).replicate(bits + 1)
            upper = Signal(bits + 1, name=f"s0_upper{d}", reset_less=True)
            lower = Signal(bits, name=f"s0_lower{d}", reset_less=True)
            m.d.sync += [lower.eq(first), upper.eq(left + right + self.vector)]
            m.d.comb += self.words[d].eq(Cat(lower, upper))
        return m
