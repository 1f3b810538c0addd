"""Distributed RAM against a Python list."""

from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from sparsefab.hw.modules import Inline
from sparsefab.hw.select import LutRam


@pytest.mark.parametrize(("width", "sites"), [(1, 4), (6, 4), (7, 8), (14, 8), (16, 12), (45, 28)])
def test_reads_what_was_written(width: int, sites: int) -> None:
    ram = LutRam(width=width, body="behavioural", placer=Inline())
    assert ram.lut_sites == sites
    random = np.random.default_rng(width)
    content = [0] * 32

    async def bench(context: Any) -> None:
        for _ in range(100):
            write, read, data = int(random.integers(32)), int(random.integers(32)), int(random.integers(1 << width))
            enable = int(random.integers(2))
            for port, value in (
                (ram.write_address, write),
                (ram.read_address, read),
                (ram.write_data, data),
                (ram.write_enable, enable),
            ):
                context.set(port, value)
            assert context.get(ram.read_data) == content[read]
            await context.tick()
            if enable:
                content[write] = data
            assert context.get(ram.read_data) == content[read]

    simulator = Simulator(ram)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()


def test_refuses_no_width() -> None:
    with pytest.raises(ValueError, match="width must be positive"):
        LutRam(width=0, body="vendor", placer=Inline())
