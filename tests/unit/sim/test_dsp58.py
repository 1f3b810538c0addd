"""The DSP58's int8 mode: the twin equals integers, the vendor's emission says every attribute, faults are seen."""

import re

import numpy as np
import pytest

from sparsefab.hw.modules import to_verilog
from sparsefab.hw.primitives import is_wrapper
from sparsefab.hw.primitives.dsp58 import DSP58_REGISTERS, DSP58Dot
from sparsefab.sim.dsp58 import DSP58_MODES, dot_outputs, random_cycles, random_registers, run_twin

ALL_ON = dict.fromkeys(DSP58_REGISTERS, 1)


@pytest.mark.parametrize("seed", range(6))
def test_twin_equals_integers(seed: int) -> None:
    random = np.random.default_rng(seed)
    registers, cycles = random_registers(random), random_cycles(random, 200)
    assert {cycle["OPMODE"] for cycle in cycles} == set(DSP58_MODES)
    assert run_twin(registers, cycles) == dot_outputs(registers, cycles)


def test_without_registers() -> None:
    random = np.random.default_rng(9)
    none = dict.fromkeys(DSP58_REGISTERS, 0)
    cycles = [cycle | {"OPMODE": 0b11_001_0101} for cycle in random_cycles(random, 50)]
    assert run_twin(none, cycles) == dot_outputs(none, cycles)


def test_the_extreme_dot_product() -> None:
    """3 * (-256 * -128), summed over a chain of four slices by hand: 393,216 and more, no lane to overflow."""
    a, b = 0x100 | 0x100 << 9 | 0x100 << 18, 0x80 | 0x80 << 8 | 0x80 << 16
    cycle = {"A": a, "B": b, "C": 0, "PCIN": 3 * 98_304, "OPMODE": 0b00_001_0101}
    assert run_twin(ALL_ON, [cycle] * 3)[-1] == 4 * 3 * 256 * 128
    assert dot_outputs(ALL_ON, [cycle] * 3)[-1] == 4 * 3 * 256 * 128


def test_a_fault_is_seen() -> None:
    random = np.random.default_rng(1)
    cycles = random_cycles(random, 100)
    wrong = [cycle | {"A": cycle["A"] ^ 1 << 26} for cycle in cycles]
    assert run_twin(ALL_ON, wrong) != dot_outputs(ALL_ON, cycles)


def test_emissions_differ_in_the_body_alone() -> None:
    pytest.importorskip("pyosys")
    vendor, twin = (to_verilog(DSP58Dot(body=body), "sparsefab_dsp58") for body in ("vendor", "behavioural"))
    assert sorted(re.findall(r"^  (?:input|output) .*", vendor, re.MULTILINE)) == sorted(
        re.findall(r"^  (?:input|output) .*", twin, re.MULTILINE)
    )
    assert is_wrapper("sparsefab_dsp58")
    given = re.findall(r"^    \.(\w+)\(", vendor, re.MULTILINE)
    assert len(given) == len(set(given))
    for attribute in ("DSP_MODE", "MREG", "RESET_MODE", "IS_NEGATE_INVERTED", "USE_SIMD", "ACASCREG"):
        assert attribute in given
    assert '.DSP_MODE("INT8")' in vendor


@pytest.mark.parametrize("registers", [{"ADREG": 1}, {"MREG": 2}])
def test_refuses(registers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="registers must be 0 or 1 for names of"):
        DSP58Dot(registers=registers)
    with pytest.raises(ValueError, match="body must be one of"):
        DSP58Dot(body="verilog")
