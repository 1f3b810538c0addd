"""Four int4 products in a DSP: all operands, the limit of a lane's sum, and the cascade in Amaranth's simulator."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from sparsefab.hw.modules import Library, to_verilog
from sparsefab.hw.pack4 import LANE_BITS, SUM_LIMIT, NibbleSegment
from sparsefab.hw.synthesize import synthesize

_OFFSET = (1 << LANE_BITS - 1) - 1
_S4 = np.arange(-8, 8)


def _lanes(packed: np.ndarray) -> list[np.ndarray]:
    """Take the lanes of P apart, offsets included in the three lower ones."""
    low = [((packed >> lane * LANE_BITS) & (1 << LANE_BITS) - 1) - _OFFSET for lane in range(3)]
    return [*low, packed >> 3 * LANE_BITS]


def test_all_operands_of_one_dsp() -> None:
    w0, w1, a0, a1 = (grid.reshape(-1).astype(np.int64) for grid in np.meshgrid(_S4, _S4, _S4, _S4))
    offsets = sum(_OFFSET << lane * LANE_BITS for lane in range(3))
    packed = ((w1 << 2 * LANE_BITS) + w0) * ((a1 << LANE_BITS) + a0) + offsets
    for lane, want in zip(_lanes(packed), (w0 * a0, w0 * a1, w1 * a0, w1 * a1), strict=True):
        np.testing.assert_array_equal(lane, want)


def test_sum_limit_is_tight() -> None:
    """Lanes are exact for all sums if they are for the extremes of each: what a lane passes on grows with its sum."""
    products = np.multiply.outer(_S4, _S4)
    low, high = int(products.min()), int(products.max())

    def exact(count: int) -> bool:
        for sums in product((count * low, count * high), repeat=4):
            packed = sum(value << lane * LANE_BITS for lane, value in enumerate(sums))
            packed += sum(_OFFSET << lane * LANE_BITS for lane in range(3))
            if [int(lane) for lane in _lanes(np.int64(packed))] != list(sums):
                return False
        return True

    assert SUM_LIMIT == 16
    assert exact(SUM_LIMIT)
    assert not exact(SUM_LIMIT + 1)


@pytest.mark.parametrize("dsps", [1, 3, SUM_LIMIT])
def test_cascade(dsps: int) -> None:
    segment = NibbleSegment(dsps=dsps)
    random = np.random.default_rng(dsps)
    beats = 40
    weights, activations = (random.integers(-8, 8, (beats, dsps, 2)) for _ in range(2))
    weights[0], activations[0] = -8, -8
    weights[1], activations[1] = -8, 7
    want = np.einsum("bdi,bdj->bij", weights, activations).reshape(beats, 4)
    latency = dsps - 1 + 5
    got: list[list[int]] = []

    async def bench(context: Any) -> None:
        for cycle in range(beats + latency + 1):
            for d in range(dsps):
                beat = cycle - d
                if 0 <= beat < beats:
                    for name, values in (("weights", weights), ("activations", activations)):
                        lower, upper = values[beat, d].tolist()
                        context.set(getattr(segment, f"{name}{d}"), lower & 15 | (upper & 15) << 4)
            if cycle >= latency:
                bits = context.get(segment.sums)
                half = 1 << segment.sum_bits - 1
                words = [bits >> lane * segment.sum_bits & 2 * half - 1 for lane in range(4)]
                got.append([(word ^ half) - half for word in words])
            await context.tick()

    simulator = Simulator(segment)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()
    assert got[:beats] == want.tolist()


def test_resources() -> None:
    pytest.importorskip("pyosys")
    library = Library()
    top = to_verilog(NibbleSegment(dsps=8, body="vendor", placer=library), "top")
    resources = synthesize({"top": top} | library.verilog())
    assert resources.dsp == 8
    assert resources.lut_per_dsp <= 5
    assert resources.depth.fast, resources.depth


def test_refuses_more_than_a_lane_holds() -> None:
    with pytest.raises(ValueError, match="dsps must be 1 to 16, the products that 11 bits sum exactly, not 17"):
        NibbleSegment(dsps=17)
