"""Checks of the vendor primitives' twins, with every operation code they must have met."""

from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np

from sparsefab.sim.dsp58 import DSP58_MODES, dot_outputs, random_cycles, random_registers, run_twin
from sparsefab.sim.reference.dsp48e2 import simulate
from sparsefab.sim.reference.dsp48e2_ports import INPUTS
from sparsefab.sim.tally import Tally
from sparsefab.sim.vectors import random_attributes, random_inputs, simulate_twin

__all__ = ["check_dsp48e2", "check_dsp58"]

# name -> (port, lowest bit, bits): fields of the DSP48E2 of which every value is to come
_FIELDS: Final = {
    "OPMODE W": ("OPMODE", 7, 2),
    "OPMODE Z": ("OPMODE", 4, 3),
    "OPMODE Y": ("OPMODE", 2, 2),
    "OPMODE X": ("OPMODE", 0, 2),
    "ALUMODE": ("ALUMODE", 0, 4),
    "INMODE": ("INMODE", 0, 5),
    "CARRYINSEL": ("CARRYINSEL", 0, 3),
}


def check_dsp48e2(build_dir: Path, seed: int) -> Tally:
    """The twin against the reference in configurations drawn at random."""
    random = np.random.default_rng(seed)
    cases, failures, first = 0, 0, ""
    coverage = {f"{name} {value:0{bits}b}": 0 for name, (_, _, bits) in _FIELDS.items() for value in range(1 << bits)}
    columns = list(INPUTS)
    for number in range(40):
        attributes, inputs = random_attributes(random), random_inputs(random, 128)
        differ = simulate_twin(attributes, inputs) != simulate(attributes, inputs)
        cases, failures = cases + differ.size, failures + int(differ.sum())
        for name, (port, low, bits) in _FIELDS.items():
            seen = Counter((inputs[:, columns.index(port)] >> low & ((1 << bits) - 1)).tolist())
            for value, count in seen.items():
                coverage[f"{name} {value:0{bits}b}"] += count
        simd = f"USE_SIMD {attributes['USE_SIMD']}"
        coverage[simd] = coverage.get(simd, 0) + len(inputs)
        if differ.any() and not first:
            first = f"configuration {number}, cycle {int(np.argmax(differ.any(axis=1)))}"
    return Tally.judged(cases=cases, failures=failures, first=first, coverage=coverage)


def check_dsp58(build_dir: Path, seed: int) -> Tally:
    """The twin of the int8 mode against integers, in register settings drawn at random."""
    random = np.random.default_rng(seed)
    cases, failures, first = 0, 0, ""
    coverage = {f"OPMODE {mode:09b}": 0 for mode in DSP58_MODES}
    for _ in range(20):
        registers, cycles = random_registers(random), random_cycles(random, 100)
        pairs = zip(run_twin(registers, cycles), dot_outputs(registers, cycles), strict=True)
        differ = [cycle for cycle, (got, want) in enumerate(pairs) if got != want]
        cases, failures = cases + len(cycles), failures + len(differ)
        for inputs in cycles:
            coverage[f"OPMODE {inputs['OPMODE']:09b}"] += 1
        if differ and not first:
            first = f"registers {registers}, cycle {differ[0]}"
    return Tally.judged(cases=cases, failures=failures, first=first, coverage=coverage)
