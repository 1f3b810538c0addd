"""The chain in Amaranth's own simulator: no external tool, the same reference."""

from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator

from sparsefab.arch import ChainArch
from sparsefab.hw.chain import SparseChain
from sparsefab.sim.beats import BeatFormat
from sparsefab.sim.stimuli import random_stimuli


@pytest.mark.parametrize(("dsps", "segment"), [(3, 3), (4, 2)])
def test_random_beats(dsps: int, segment: int) -> None:
    arch = ChainArch(dsps=dsps, segment=segment)
    stimuli = random_stimuli(arch, beats=80, slots=(0, 1, 2), seed=3)
    chain = SparseChain(arch=arch)
    received: list[int] = []
    bits = BeatFormat.stream(arch)
    want = bits.sums(stimuli)
    random = np.random.default_rng(0)

    def source(stream: Any, payloads: list[int]) -> Any:
        async def bench(context: Any) -> None:
            for payload in payloads:
                while random.random() < 0.2:
                    await context.tick()
                context.set(Value.cast(stream.payload), payload)
                context.set(stream.valid, 1)
                await context.tick().until(stream.ready)
                context.set(stream.valid, 0)

        return bench

    async def sink(context: Any) -> None:
        while len(received) < len(want):
            context.set(chain.sums.ready, int(random.random() < 0.6))
            _, _, valid, ready, payload = await context.tick().sample(
                chain.sums.valid, chain.sums.ready, Value.cast(chain.sums.payload)
            )
            if valid and ready:
                received.append(payload)

    simulator = Simulator(chain)
    simulator.add_clock(1e-9)
    simulator.add_process(source(chain.acts, bits.acts(stimuli)))
    simulator.add_process(source(chain.weights, bits.weights(stimuli)))
    simulator.add_testbench(sink)
    simulator.run_until(3e-6)
    assert received == want
