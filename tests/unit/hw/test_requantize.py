"""The requantizer in Amaranth's simulator against the scalar definition."""

from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator

from sparsefab.formats.requantize import requantize_scalar
from sparsefab.hw.emit import requantize_verilog
from sparsefab.hw.requantize import RequantizeUnit
from sparsefab.hw.synthesize import synthesize
from sparsefab.sim.requantize import requantize_stimuli


@pytest.mark.parametrize(
    ("bits", "zero_point", "low", "high"), [(32, 0, -128, 127), (24, 131, 0, 255), (46, -7, -7, 127)]
)
def test_equals_the_definition(bits: int, zero_point: int, low: int, high: int) -> None:
    unit = RequantizeUnit(accumulator_bits=bits, lanes=2)
    stimuli = requantize_stimuli(accumulator_bits=bits, lanes=2, beats=400, seed=bits)
    want = [
        [requantize_scalar(int(a), int(m), int(s), zero_point, low, high) for a in row]
        for row, m, s in zip(stimuli.accumulators, stimuli.multipliers, stimuli.shifts, strict=True)
    ]
    got: list[list[int]] = []

    async def source(context: Any) -> None:
        context.set(unit.zero_point, zero_point)
        context.set(unit.code_min, low)
        context.set(unit.code_max, high)
        context.set(unit.i.valid, 1)
        for payload in stimuli.payloads(bits):
            context.set(Value.cast(unit.i.payload), payload)
            await context.tick().until(unit.i.ready)
        context.set(unit.i.valid, 0)

    async def sink(context: Any) -> None:
        random = np.random.default_rng(0)
        while len(got) < len(want):
            context.set(unit.o.ready, int(random.random() < 0.8))
            _, _, valid, ready, first, second = await context.tick().sample(
                unit.o.valid, unit.o.ready, unit.o.payload[0], unit.o.payload[1]
            )
            if valid and ready:
                got.append([first, second])

    simulator = Simulator(unit)
    simulator.add_clock(1e-9)
    simulator.add_process(source)
    simulator.add_testbench(sink)
    simulator.run_until(2e-6)
    assert got == want


def test_resources() -> None:
    pytest.importorskip("pyosys")
    resources = synthesize(requantize_verilog(accumulator_bits=32, lanes=2))
    assert resources.dsp == 2
    assert resources.depth.fast, resources.depth


def test_refuses() -> None:
    with pytest.raises(ValueError, match="accumulator_bits must be 17 to 46, not 16"):
        RequantizeUnit(accumulator_bits=16)
