"""The FPGA model against this project's own Verilog: cycles that were counted, cells that were synthesized."""

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from sparsefab.arch import AccumulatorArch, ArrayArch, ChainArch
from sparsefab.cost_models.array import array_cycles, chain_cycles
from sparsefab.cost_models.block_fit import composition_errors
from sparsefab.cost_models.gemm import Floats
from sparsefab.cost_models.published import rtl_counts
from sparsefab.cost_models.resources import chain_resources
from sparsefab.cost_models.validate_rows import Row

__all__ = ["ArrayCount", "array_counts", "validate_rtl"]

_COUNTS = Path(__file__).resolve().parent / "data" / "array_cycles.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayCount:
    """A product on an array, counted by `sparsefab.sim.array_cycles`: rows, columns, slots, passes, cycles."""

    array: ArrayArch
    shape: tuple[int, int, int, int]
    vector: bool
    cycles: int

    @property
    def predicted(self) -> float:
        """Cycles by the model."""
        rows, columns, slots, passes = (_one(value) for value in self.shape)
        return float(array_cycles(self.array, rows, columns, slots, passes, vector=self.vector).total[0])


@lru_cache(maxsize=1)
def array_counts() -> tuple[ArrayCount, ...]:
    """Return the counts, read once."""
    with _COUNTS.open(newline="") as file:
        lines = [{name: int(value) for name, value in line.items()} for line in csv.DictReader(file)]
    return tuple(
        ArrayCount(
            array=ArrayArch(
                chains=line["chains"],
                chain=ChainArch(dsps=line["dsps"], accumulator_bits=36),
                accumulators=AccumulatorArch(rows=line["accumulator_rows"], multiplier_bits=line["multiplier_bits"]),
            ),
            shape=(
                line["rows"],
                line["columns"],
                line["slots"],
                line["tokens"] if line["pairs"] else -(-line["tokens"] // 2),
            ),
            vector=line["pairs"] > 0,
            cycles=line["cycles"],
        )
        for line in lines
    )


def validate_rtl() -> list[Row]:
    """Compare cycles with the simulated Verilog, resources with its synthesis."""
    return [*_chains(), *_arrays(), *_compositions()]


def _chains() -> list[Row]:
    counts, errors = rtl_counts(), []
    for dsps, *shape, cycles in counts.cycles.counted:
        rows, columns, slots, tokens = (_one(value) for value in shape)
        errors.append(abs(chain_cycles(ChainArch(dsps=dsps), rows, columns, slots, tokens).total[0] / cycles - 1.0))
    result = [_row("cycles of a chain, RTL", [float(error) for error in errors], 0.02)]
    for place, kind in enumerate(("lut", "ff"), start=1):
        wrong = [
            abs(chain_resources(ChainArch(dsps=row[0]))[kind].value / row[place] - 1.0)
            for row in counts.synthesis.counted
        ]
        result.append(_row(f"{kind} of a chain, synthesis", wrong, 0.10))
    return result


def _arrays() -> list[Row]:
    """The whole table, though nothing of it is fitted but the latency behind the last sum."""
    errors = [abs(count.predicted / count.cycles - 1.0) for count in array_counts()]
    return [_row("array cycles, RTL, both modes", errors, 0.02)]


def _compositions() -> list[Row]:
    """Designs that no block was fitted to: LUT and FF near, DSP and block RAM as they are."""
    errors = [found for _, found in composition_errors("test")]
    return [
        _row(f"{kind} of composed designs, synthesis", [found[kind] for found in errors], goal)
        for kind, goal in (("lut", 0.10), ("ff", 0.10), ("dsp", 0.0), ("bram36", 0.0))
    ]


def _row(name: str, errors: list[float], goal: float) -> Row:
    return Row(part="fpga", name=name, metric="largest error", value=max(errors), goal=goal, samples=len(errors))


def _one(value: int) -> Floats:
    return np.array([float(value)])
