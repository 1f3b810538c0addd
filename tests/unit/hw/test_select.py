"""Distributed RAM against a Python list."""

from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from sparsefab.hw.modules import Inline
from sparsefab.hw.select import LutRam


@pytest.mark.parametrize(
    ("memories", "width", "sites"), [(1, 1, 4), (1, 6, 4), (1, 7, 8), (1, 45, 28), (3, 5, 12), (8, 16, 76)]
)
def test_reads_what_was_written(memories: int, width: int, sites: int) -> None:
    ram = LutRam(memories=memories, width=width, body="behavioural", placer=Inline())
    assert ram.lut_sites == sites
    random = np.random.default_rng(width)
    content = np.zeros((32, memories), np.int64)

    async def bench(context: Any) -> None:
        for _ in range(100):
            write, enable = int(random.integers(32)), int(random.integers(2))
            reads, data = random.integers(32, size=memories), random.integers(1 << width, size=memories)
            context.set(ram.write_address, write)
            context.set(ram.write_enable, enable)
            for k in range(memories):
                context.set(getattr(ram, f"read_address{k}"), int(reads[k]))
                context.set(getattr(ram, f"write_data{k}"), int(data[k]))
            assert [context.get(getattr(ram, f"read_data{k}")) for k in range(memories)] == content[
                reads, range(memories)
            ].tolist()
            await context.tick()
            if enable:
                content[write] = data
            assert [context.get(getattr(ram, f"read_data{k}")) for k in range(memories)] == content[
                reads, range(memories)
            ].tolist()

    simulator = Simulator(ram)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()


def test_refuses_no_width() -> None:
    with pytest.raises(ValueError, match="width must be positive"):
        LutRam(memories=1, width=0, body="vendor", placer=Inline())
