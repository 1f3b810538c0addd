"""A segment of the chain: DSPs in cascade, each with its own activation bank, fed with skew."""

from typing import Any

from amaranth.hdl import Cat, Const, Elaboratable, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.arch import ChainArch
from sparsefab.hw.ends import SegmentHead
from sparsefab.hw.modules import Placer
from sparsefab.hw.select import LutRam
from sparsefab.hw.skew import BeatSkew
from sparsefab.hw.stages import later
from sparsefab.hw.step import ChainStep, StepKind

__all__ = ["ChainSegment"]


class ChainSegment(wiring.Component):
    """Sum over `arch.segment` DSPs of weight times selected activation, for two lanes at once.

    Parameters
    ----------
    arch : ChainArch
    body : str                 'behavioural' or 'vendor' primitives.
    placer : Placer            Where the parts that are emitted once come from.

    Members
    -------
    weights : In               s8[segment][weight_rows], taken in every cycle.
    indices : In               u4[segment], the activation of the bank that each weight meets.
    write_enable, write_index, pairs : In
                               A word for each DSP, into place `write_index` of a bank.
    read_bank, write_bank : In(1)
                               Which bank the weights and activations of the cycle before concern.
    matrix : In(1)             With arch.matrix_vector: the weights of the cycle before meet two tokens, not two rows
                               one token.
    starts : In                With arch.ends, with the weights: a bit a group of two DSPs, a row starts there.
    head, starting : Out       With arch.ends: as of `SegmentHead`; `total` is then from the start on.
    total : Out                Packed sum: upper lane from bit 18, signed; lower lane plus LANE_OFFSET below.

    Notes
    -----
    Words are pairs of activations, or with arch.matrix_vector what `ActivationPacker` makes of them. Latency
    segment + 4 cycles from weights to total; one beat a cycle. A write is seen by weights that come one cycle
    later or more; weights that came up to segment - 1 cycles before a write of the same word may see it, too.
    """

    def __init__(self, *, arch: ChainArch, body: str, placer: Placer) -> None:
        self.arch, self.body, self.placer = arch, body, placer
        super().__init__(
            {
                "weights": In(arch.segment * arch.weight_rows * arch.weight_bits),
                "indices": In(arch.segment * arch.index_bits),
                "read_bank": In(1),
                "write_enable": In(1),
                "write_index": In(arch.index_bits),
                "write_bank": In(1),
                "pairs": In(arch.segment * arch.word_bits),
                "total": Out(arch.segment_bits),
            }
            | ({"matrix": In(1)} if arch.matrix_vector else {})
            | (
                {"starts": In(arch.segment_groups), "head": Out(arch.head_bits), "starting": Out(1)}
                if arch.ends
                else {}
            )
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        arch = self.arch
        # stage 0: take the activations; weights and indices go into their skew
        s0_index = Signal.like(self.write_index, reset_less=True)
        s0_pairs = Signal.like(self.pairs, reset_less=True)
        s0_write = Signal()
        m.d.sync += [s0_write.eq(self.write_enable), s0_index.eq(self.write_index), s0_pairs.eq(self.pairs)]
        skew: Any = BeatSkew(
            dsps=arch.segment,
            weight_bits=arch.weight_rows * arch.weight_bits,
            index_bits=arch.index_bits,
            body=self.body,
            placer=self.placer,
        )
        m.submodules.skew = skew
        m.d.comb += [skew.weights.eq(self.weights), skew.indices.eq(self.indices)]

        # selection: the weights' indices read the banks
        banks: Any = self.placer.place(
            m,
            "banks",
            "sparsefab_banks",
            lambda: LutRam(memories=arch.segment, width=arch.word_bits, body=self.body, placer=self.placer),
        )
        m.d.comb += [
            banks.write_address.eq(Cat(s0_index, self.write_bank)),
            *(
                getattr(banks, f"write_data{d}").eq(s0_pairs.word_select(d, arch.word_bits))
                for d in range(arch.segment)
            ),
            banks.write_enable.eq(s0_write),
        ]

        bank: Value = self.read_bank
        matrix: Value = self.matrix if arch.matrix_vector else Const(1)
        steps: list[Any] = []
        for d in range(arch.segment):
            if d:
                bank = later(m, bank, "bank", 1, first=d)
                matrix = later(m, matrix, "matrix", 1, first=d) if arch.matrix_vector else matrix
            # multiply and cascade: two products of one operand, added to the neighbour's
            step = self._place_step(m, d)
            m.d.comb += [
                getattr(banks, f"read_address{d}").eq(Cat(getattr(skew, f"index{d}"), bank)),
                step.weight.eq(getattr(skew, f"weight{d}")),
                step.word.eq(getattr(banks, f"read_data{d}")),
            ]
            if arch.matrix_vector:
                m.d.comb += step.matrix.eq(matrix)
            if d:
                m.d.comb += step.cascade_in.eq(steps[-1].cascade_out)
            steps.append(step)
        m.d.comb += self.total.eq(steps[-1].total[: arch.segment_bits])
        if arch.ends:
            self._cut(m, steps)
        return m

    def _cut(self, m: Module, steps: list[Any]) -> None:
        """Start rows anew inside the cascade, and keep what it held there."""
        arch = self.arch
        m.submodules.cut = head = SegmentHead(arch=arch, body=self.body, placer=self.placer)
        m.d.comb += [
            head.starts.eq(self.starts),
            self.head.eq(head.head),
            self.starting.eq(head.starting),
            steps[0].split.eq(later(m, self.starts[1:].any(), "split", 1)),
        ]
        for g in range(1, arch.segment_groups):
            first = g * arch.group
            m.d.comb += [
                steps[first].start.eq(later(m, self.starts[g], f"start{g}", first + 1, reset_less=False)),
                getattr(head, f"prefix{g}").eq(steps[first - 1].total[: arch.head_bits]),
            ]

    def _place_step(self, m: Module, d: int) -> Any:
        restarts = self.arch.ends and d % self.arch.group == 0
        kind: StepKind = "first" if not d else "restart" if restarts else "next"
        return self.placer.place(
            m,
            f"step{d}",
            f"sparsefab_chain_{kind}",
            lambda: ChainStep(arch=self.arch, kind=kind, body=self.body, placer=self.placer),
        )
