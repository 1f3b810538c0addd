"""Join the segments of a chain: one registered adder tree for both lanes."""

from amaranth.hdl import Elaboratable, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.data import ArrayLayout
from amaranth.lib.wiring import In, Out

from sparsefab.arch import LANE_BITS, LANE_OFFSET, ChainArch

__all__ = ["ReduceTree"]


class ReduceTree(wiring.Component):
    """Split the packed sums of all segments into lanes, add them, take the lower lane's offset away.

    Parameters
    ----------
    arch : ChainArch

    Members
    -------
    totals : In                Packed sums of the segments, as `ChainSegment.total`.
    sums : Out                 signed[lanes] of arch.sum_bits.

    Notes
    -----
    Latency arch.tree_levels + 1 cycles, one sum of both lanes a cycle; one carry chain between registers.
    """

    def __init__(self, *, arch: ChainArch) -> None:
        self.arch = arch
        super().__init__(
            {
                "totals": In(ArrayLayout(arch.segment_bits, arch.segments)),
                "sums": Out(ArrayLayout(arch.sum_bits, arch.lanes)),
            }
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        arch = self.arch
        low, high = arch.product_range
        totals = [Value.cast(self.totals[s]) for s in range(arch.segments)]
        lower = _tree(m, "lower", [t[:LANE_BITS] for t in totals], (0, arch.segment * high + LANE_OFFSET))
        upper = _tree(
            m, "upper", [t[LANE_BITS:].as_signed() for t in totals], (arch.segment * low, arch.segment * high)
        )
        # the offsets of all segments leave in one subtraction, the upper lane waits for it
        lower_sum = Signal(arch.sum_bits, reset_less=True)
        upper_sum = Signal(arch.sum_bits, reset_less=True)
        m.d.sync += [lower_sum.eq(lower - arch.segments * LANE_OFFSET), upper_sum.eq(upper)]
        m.d.comb += [self.sums[0].eq(lower_sum), self.sums[1].eq(upper_sum)]
        return m


def _tree(m: Module, name: str, values: list[Value], limits: tuple[int, int]) -> Value:
    """Add values within `limits` pairwise, a register a level; an odd one waits in a register."""
    level = 0
    low, high = limits
    while len(values) > 1:
        level += 1
        low, high = 2 * low, 2 * high
        joined: list[Value] = []
        for i in range(0, len(values), 2):
            pair = values[i : i + 2]
            register = Signal(range(low, high + 1), name=f"s{level}_{name}{i // 2}", reset_less=True)
            m.d.sync += register.eq(pair[0] + pair[1] if len(pair) == 2 else pair[0])
            joined.append(register)
        values = joined
    return values[0]
