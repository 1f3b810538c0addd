"""The DSP58's int8 mode against plain integers, in register settings and operation modes drawn at random."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from amaranth.hdl import Module
from amaranth.sim import Simulator

from sparsefab.hw.primitives.dsp58 import DSP58_REGISTERS, DSP58Dot

__all__ = ["DSP58_MODES", "dot_outputs", "random_cycles", "random_registers", "run_twin"]

_MASK: Final = (1 << 58) - 1
# W, Z, X and Y: every choice of each
DSP58_MODES: Final = tuple(
    w << 7 | z << 4 | xy for w in (0b00, 0b01, 0b11) for z in (0b000, 0b001, 0b010, 0b011) for xy in (0b0101, 0b0000)
)

Cycle = dict[str, int]


def random_cycles(random: np.random.Generator, count: int) -> list[Cycle]:
    """Draw inputs: every fourth vector of extremes, operation modes in any order."""
    cycles = []
    for number in range(count):
        a = random.integers(-256, 256, 3) if number % 4 else random.choice([-256, 255, 0], 3)
        b = random.integers(-128, 128, 3) if number % 4 else random.choice([-128, 127], 3)
        cycles.append(
            {
                "A": sum((int(x) & 0x1FF) << 9 * k for k, x in enumerate(a)) | int(random.integers(128)) << 27,
                "B": sum((int(x) & 0xFF) << 8 * k for k, x in enumerate(b)),
                "C": int(random.integers(1 << 58)),
                "PCIN": int(random.integers(1 << 58)),
                "OPMODE": int(random.choice(DSP58_MODES)),
            }
        )
    return cycles


def dot_outputs(registers: Mapping[str, int], cycles: list[Cycle]) -> list[int]:
    """P after each clock edge, inputs still applied, by integers alone: the oracle of the twin."""
    held = {"AREG": 0, "BREG": 0, "CREG": 0, "OPMODEREG": 0, "MREG": 0}
    sources = {"AREG": "A", "BREG": "B", "CREG": "C", "OPMODEREG": "OPMODE"}
    p, outputs = 0, []

    def seen(cycle: Cycle, name: str) -> int:
        return held[name] if registers[name] else cycle[sources[name]]

    def dot(cycle: Cycle) -> int:
        a, b = seen(cycle, "AREG"), seen(cycle, "BREG")
        return sum(_signed(a >> 9 * k, 9) * _signed(b >> 8 * k, 8) for k in range(3))

    def total(cycle: Cycle) -> int:
        mode, c = seen(cycle, "OPMODEREG"), seen(cycle, "CREG")
        products = held["MREG"] if registers["MREG"] else dot(cycle)
        w = {0: 0, 1: p, 3: c}[mode >> 7]
        z = {0: 0, 1: cycle["PCIN"], 2: p, 3: c}[mode >> 4 & 7]
        return (w + z + (products if mode & 15 else 0)) & _MASK

    for cycle in cycles:
        # the clock rises: all registers take what they see
        new_p, new_m = total(cycle), dot(cycle)
        held |= {name: cycle[port] for name, port in sources.items()} | {"MREG": new_m}
        p = new_p
        outputs.append(p if registers["PREG"] else total(cycle))
    return outputs


def run_twin(registers: Mapping[str, int], cycles: list[Cycle]) -> list[int]:
    """The same by the Amaranth twin."""
    m = Module()
    m.submodules.dsp = dsp = DSP58Dot(registers=registers)
    outputs: list[int] = []

    async def bench(context: Any) -> None:
        for cycle in cycles:
            for name, value in cycle.items():
                context.set(getattr(dsp, name), value)
            await context.tick()
            outputs.append(context.get(dsp.P))

    simulator = Simulator(m)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()
    return outputs


def random_registers(random: np.random.Generator) -> dict[str, int]:
    """Draw which registers are on; P's always, since operation modes feed it back."""
    return {name: int(random.integers(2)) for name in DSP58_REGISTERS} | {"PREG": 1}


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (value >> bits - 1 << bits)
