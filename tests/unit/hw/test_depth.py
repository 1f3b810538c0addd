"""The depth walker on small netlists whose depth is known."""

from typing import Any

import pytest
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sparsefab.hw.depth import LogicDepth, logic_depth
from sparsefab.hw.modules import to_verilog
from sparsefab.hw.synthesize import synthesize

pytest.importorskip("pyosys")


class _Sum(wiring.Component):
    """A registered sum of `terms` bytes without registers between the adders."""

    def __init__(self, terms: int) -> None:
        self.terms = terms
        super().__init__({"i": In(8 * terms), "o": Out(16)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        register = Signal(16)
        total: Any = self.i[:8]
        for term in range(1, self.terms):
            total = (total + self.i[8 * term : 8 * term + 8])[:16]
            step = Signal(16, name=f"step{term}")
            m.d.comb += step.eq(total)
            total = Cat(step)
        m.d.sync += register.eq(total)
        m.d.comb += self.o.eq(register)
        return m


def _cell(kind: str, output: int, *inputs: int, port: str = "O") -> dict[str, Any]:
    """A cell with numbered nets; inputs are I0, I1, .. or, for a RAM's read, its address."""
    names = [f"ADDR{port[-1]}" if kind.startswith("RAM") else f"I{i}" for i in range(len(inputs))]
    return {
        "type": kind,
        "connections": {port: [output]} | {name: [net] for name, net in zip(names, inputs, strict=True)},
        "port_directions": {port: "output"} | dict.fromkeys(names, "input"),
    }


def _register(output: int, source: int) -> dict[str, Any]:
    return {
        "type": "FDRE",
        "connections": {"Q": [output], "D": [source]},
        "port_directions": {"Q": "output", "D": "input"},
    }


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
@pytest.mark.parametrize("ram", [False, True])
def test_counts_luts(levels: int, ram: bool) -> None:
    cells = [_register(1, 99)]
    for level in range(levels):
        last = ram and level == levels - 1
        cells.append(_cell("RAM32M", level + 2, level + 1, port="DOA") if last else _cell("LUT6", level + 2, level + 1))
    cells.append(_register(50, levels + 1))
    depth = logic_depth({"modules": {"top": {"cells": {str(i): cell for i, cell in enumerate(cells)}}}}, "top")
    assert depth == LogicDepth(lut_levels=levels, carry_chains=0, lut_levels_on_carry=0)
    assert depth.fast == (levels <= 2)


def test_counts_carry_chains() -> None:
    one = synthesize({"top": to_verilog(_Sum(2), "top")}).depth
    assert one.carry_chains == 1
    assert one.fast
    three = synthesize({"top": to_verilog(_Sum(4), "top")}).depth
    assert three.carry_chains >= 2
    assert not three.fast
