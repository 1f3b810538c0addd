"""Verilator's lint on the emitted Verilog of every registered block."""

from pathlib import Path

import pytest

from sparsefab.errors import MissingToolError
from sparsefab.hw.axis import AXIS_TOP
from sparsefab.hw.blocks import BLOCKS
from sparsefab.hw.emit import TOP
from sparsefab.sim.lint import lint
from sparsefab.sim.verilator import verilator_command

pytestmark = pytest.mark.cocotb

BUILD = Path(__file__).parents[2] / "build" / "sim"
DESIGNS = [(name, axis) for name in BLOCKS for axis in (False, True)]


def _need_verilator() -> None:
    try:
        verilator_command(BUILD)
    except MissingToolError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("name", "axis"), DESIGNS)
def test_no_warnings(name: str, axis: bool) -> None:
    _need_verilator()
    block = BLOCKS.get(name)
    modules = block.modules(block.default, primitives="behavioural", axis=axis)
    assert lint(modules, top=AXIS_TOP if axis else TOP, cache_dir=BUILD) == []


def test_a_planted_latch_is_reported() -> None:
    _need_verilator()
    text = "module top(input a, input b, output reg c); always @* if (a) c = b; endmodule\n"
    found = lint({"top": text}, top="top", cache_dir=BUILD)
    assert any("LATCH" in line for line in found)
    assert lint({"top": "module top(; endmodule\n"}, top="top", cache_dir=BUILD)
