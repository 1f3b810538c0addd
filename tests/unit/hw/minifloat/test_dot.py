"""The MX block dot product in Amaranth's simulator, against the definition and against the software reference."""

from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator

from sparsefab.hw.minifloat.dot import BlockDot, DotArch
from sparsefab.sim.dot import dot_stimuli


def outputs(arch: DotArch, payloads: list[int], count: int) -> list[int]:
    dut = BlockDot(arch=arch)
    got: list[int] = []

    async def source(context: Any) -> None:
        context.set(dut.i.valid, 1)
        for payload in payloads:
            context.set(Value.cast(dut.i.payload), payload)
            await context.tick().until(dut.i.ready)
        context.set(dut.i.valid, 0)

    async def sink(context: Any) -> None:
        context.set(dut.o.ready, 1)
        while len(got) < count:
            _, _, valid, word = await context.tick().sample(dut.o.valid, Value.cast(dut.o.payload))
            if valid:
                got.append(word)

    simulator = Simulator(dut)
    simulator.add_clock(1e-9)
    simulator.add_process(source)
    simulator.add_testbench(sink)
    simulator.run_until((len(payloads) + dut.latency + 60) * 1e-9)
    return got


@pytest.mark.parametrize(
    ("a", "b", "multiplier"),
    [
        ("mxfp4", "mxfp4", "fabric"),
        ("mxint8", "mxint8", "fabric"),
        ("mxfp8_e4m3", "mxfp8_e4m3", "fabric"),
        ("mxfp6_e3m2-b16", "mxfp4-b16", "dsp"),
        ("mxfp8_e5m2-b16", "mxfp6_e2m3-f0-b16", "fabric"),
    ],
)
def test_equals_the_definition(a: str, b: str, multiplier: str) -> None:
    arch = DotArch(a=a, b=b, blocks=64, multiplier=multiplier)
    payloads, words = dot_stimuli(arch, sums=24, seed=1)
    assert outputs(arch, payloads, len(words)) == words


def test_nan_and_infinity_mark_their_sum_and_no_other() -> None:
    arch = DotArch(a="mxfp8_e5m2-b16", b="mxfp4-b16", blocks=16)
    payloads, words = dot_stimuli(arch, sums=24, seed=2, specials=True)
    flag = 1 << arch.window_bits
    got = outputs(arch, payloads, len(words))
    assert [word & flag for word in got] == [word & flag for word in words]
    assert [word for word in got if not word & flag] == [word for word in words if not word & flag]
    assert 0 < sum(word == flag for word in words) < len(words)


def test_the_window_holds_its_extremes() -> None:
    arch = DotArch(a="mxfp4", b="mxfp4", blocks=4)
    lowest, highest = 0b1111, 0b0111  # -6 and 6
    pairs = arch.pairs
    block = sum(lowest << 4 * k for k in range(pairs)) | sum(highest << 4 * (pairs + k) for k in range(pairs))
    last = 1 << 8 * pairs + 16
    got = outputs(arch, [block, block, block, block | last], 1)
    signed = got[0] - (1 << arch.window_bits)
    assert signed == -4 * 36 * 4 * pairs << arch.fraction_bits  # 36 on a grid of a quarter


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"a": "e4m3"}, "needs MX formats, not e4m3"),
        ({"a": "nvfp4"}, "needs MX formats, not nvfp4"),
        ({"b": "mxfp4-b16"}, "blocks of one size, not 32 and 16"),
        ({"blocks": 0}, "blocks must be 1 to 65536, not 0"),
        ({"a": "mxfp8_e5m2-f32", "b": "mxfp8_e5m2"}, "at most 96 are added in a cycle"),
    ],
)
def test_refuses(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DotArch(**{"a": "mxfp4", "b": "mxfp4", **changed})


def test_every_distance_of_exponents() -> None:
    """One product of -1 on the grid: floor of every shift, limits included."""
    arch = DotArch(a="mxint8", b="mxint8", blocks=1)
    minus_one = 0xFF | 1 << 8 * arch.pairs  # code -1 times code 1
    distances = np.arange(0, 511, 3)
    low = 16 * arch.pairs
    payloads = [
        minus_one | min(int(d), 255) << low | max(int(d) - 255, 0) << low + 8 | 1 << low + 16 for d in distances
    ]
    want = [-(1 << max(arch.fraction_bits - int(d), 0)) & ((1 << arch.window_bits) - 1) for d in distances]
    assert outputs(arch, payloads, len(want)) == want
