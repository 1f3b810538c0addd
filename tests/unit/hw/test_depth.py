"""The depth walker on small netlists whose depth is known."""

from typing import Any

import pytest

from sparsefab.hw.depth import LogicDepth, logic_depth


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
    # register 1 -> LUT -> two joined CARRY4 -> register; then once more through a LUT and a CARRY4
    cells = [
        _register(1, 99),
        _cell("LUT2", 2, 1),
        _cell("CARRY4", 3, 2),
        _cell("CARRY4", 4, 3),
        _register(50, 4),
    ]
    one = logic_depth({"modules": {"top": {"cells": {str(i): cell for i, cell in enumerate(cells)}}}}, "top")
    assert one == LogicDepth(lut_levels=0, carry_chains=1, lut_levels_on_carry=1)
    assert one.fast
    cells += [_cell("LUT2", 5, 4), _cell("CARRY4", 6, 5), _register(51, 6)]
    two = logic_depth({"modules": {"top": {"cells": {str(i): cell for i, cell in enumerate(cells)}}}}, "top")
    assert two == LogicDepth(lut_levels=0, carry_chains=2, lut_levels_on_carry=2)
    assert not two.fast
