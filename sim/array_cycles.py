"""Count the cycles of arrays of chains in their Verilog, over random shapes: the table that the cost model is held to.

    python -m sparsefab.sim.array_cycles cost_models/data/array_cycles.csv

Each count is one product of packed random weights through an array with its accumulators, sources and sinks always
ready, from reset to the last result. Values do not decide when a beat moves, so the modules that only compute, the
chains' segments and the accumulators' lanes, are left out of the Verilog that is counted: minutes instead of hours in
Icarus. A test counts a shape with all of it.
"""

import argparse
import csv
import io
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from sparsefab.arch import AccumulatorArch, ArrayArch, ChainArch
from sparsefab.errors import VerificationError
from sparsefab.hw.emit import array_verilog
from sparsefab.sim.products import random_product
from sparsefab.sim.run import verify_array
from sparsefab.sim.simulator import SimulatorName
from sparsefab.storage import write_atomic

__all__ = ["ArrayCount", "count_cycles", "random_counts", "to_csv"]

# (chains, DSPs a chain, bits of the group scales): a build each
_ARRAYS: Final = ((1, 16, 0), (2, 16, 8), (3, 24, 0), (4, 32, 8), (2, 64, 0), (5, 32, 0), (8, 16, 0))
_SLOTS: Final = (1, 2, 3, 4, 6, 8, 11, 16)
_ACCUMULATOR_ROWS: Final = 64
_MOST_BEATS: Final = 3000
_DATA: Final = ("sparsefab_chain_segment", "sparsefab_accumulate_lanes")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayCount:
    """One product on one array, and the cycles it was counted to take.

    chains, dsps, multiplier_bits, accumulator_rows   The array; both modes in every chain.
    rows, columns, slots, tokens                      Weights [rows, columns], `slots`:16, times so many tokens.
    pairs                                             Two rows a DSP at one token, instead of two tokens.
    """

    chains: int
    dsps: int
    multiplier_bits: int
    accumulator_rows: int
    rows: int
    columns: int
    slots: int
    tokens: int
    pairs: bool
    cycles: int = 0

    @property
    def arch(self) -> ArrayArch:
        """The array."""
        return ArrayArch(
            chains=self.chains,
            chain=ChainArch(dsps=self.dsps, accumulator_bits=36),
            accumulators=AccumulatorArch(rows=self.accumulator_rows, multiplier_bits=self.multiplier_bits),
        )


def random_counts(seed: int, each: int) -> list[ArrayCount]:
    """Draw `each` shapes an array, long and short tiles, rows up to beyond the accumulators'; cycles are still 0."""
    random = np.random.default_rng(seed)
    counts: list[ArrayCount] = []
    for chains, dsps, multiplier_bits in _ARRAYS:
        while sum((count.chains, count.dsps) == (chains, dsps) for count in counts) < each:
            slots = int(random.choice([n for n in _SLOTS if n <= dsps]))
            pairs = bool(random.integers(2))
            rows = int(chains * np.exp(random.uniform(0, np.log(4 * _ACCUMULATOR_ROWS)))) + int(random.integers(chains))
            rows += rows % 2 if pairs else 0
            tile = dsps // slots * 16
            columns = 16 * int(random.integers(1, 6 * tile // 16 + 1))
            tokens = int(random.integers(1, 6))
            passes = tokens if pairs else -(-tokens // 2)
            if -(-rows // chains) * -(-columns // tile) * passes <= _MOST_BEATS:
                counts.append(
                    ArrayCount(
                        chains=chains,
                        dsps=dsps,
                        multiplier_bits=multiplier_bits,
                        accumulator_rows=_ACCUMULATOR_ROWS,
                        rows=rows,
                        columns=columns,
                        slots=slots,
                        tokens=tokens,
                        pairs=pairs,
                    )
                )
    return counts


def count_cycles(
    count: ArrayCount, *, build_dir: Path, simulator: SimulatorName = "icarus", values: bool = False
) -> int:
    """Run the product.

    Parameters
    ----------
    values : bool              Keep what computes, and hold the results to the reference.

    Raises
    ------
    MissingToolError           If the simulator is not installed.
    VerificationError          If it does not finish, or a result differs from the reference.
    """
    product = random_product(
        rows=count.rows,
        columns=count.columns,
        slots=count.slots,
        tokens=count.tokens,
        dsps=count.dsps,
        pairs=count.pairs,
    )
    modules = _verilog(count.arch)
    if not values:
        modules = modules | {name: _hollow(name, modules[name]) for name in _DATA}
    report = verify_array(
        count.arch, product, build_dir=build_dir, simulator=simulator, modes=("plain",), modules=modules
    )
    (run,) = report.runs
    if values and run.mismatches:
        raise VerificationError(f"{count}: {run.mismatches} results differ, first {run.first}")
    return run.cycles


@lru_cache(maxsize=1)
def _verilog(arch: ArrayArch) -> dict[str, str]:
    return array_verilog(arch, primitives="behavioural")


def _hollow(name: str, text: str) -> str:
    """A module's ports, and zeros on its outputs."""
    lines = text[text.index(f"module {name}(") :].partition("endmodule")[0].splitlines()
    ports = [line for line in lines if re.match(r"\s*(module|input|output) ", line)]
    outputs = [match[1] for match in (re.match(r"\s*output (?:\[.*\] )?(\w+);", line) for line in ports) if match]
    return "\n".join([*ports, *(f"  assign {output} = 0;" for output in outputs), "endmodule", ""])


def to_csv(counts: Sequence[ArrayCount]) -> str:
    """A line for each count, fields by name; `pairs` as 0 or 1."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(ArrayCount)], lineterminator="\n")
    table.writeheader()
    table.writerows({name: int(value) for name, value in asdict(count).items()} for count in counts)
    return text.getvalue()


def main(arguments: Sequence[str] | None = None, *, count: Callable[..., int] = count_cycles) -> None:
    """Count and write the table."""
    parser = argparse.ArgumentParser(prog="python -m sparsefab.sim.array_cycles", description=__doc__)
    parser.add_argument("output", type=Path, metavar="FILE", help="CSV")
    parser.add_argument("--each", type=int, default=5, metavar="N", help="shapes an array (default: 5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--build-dir", type=Path, default=Path("build/sim"), metavar="DIR")
    options = parser.parse_args(arguments)
    done = []
    for shape in random_counts(options.seed, options.each):
        done.append(ArrayCount(**asdict(shape) | {"cycles": count(shape, build_dir=options.build_dir)}))
        print(done[-1], file=sys.stderr)
    write_atomic(options.output, to_csv(done).encode())


if __name__ == "__main__":
    main()
