"""Count the cells of designs that the cost model is fitted to and judged on: `python -m sparsefab.hw.counts`.

Prints the tables `[[accumulate]]` and `[[array]]` of cost_models/data/rtl.toml, one line a design as it is done. The
accumulators are what is fitted, the arrays are held out.
"""

from collections.abc import Iterator
from typing import Final

from sparsefab.arch import AccumulatorArch, ArrayArch, ChainArch
from sparsefab.hw.emit import accumulate_verilog, array_verilog
from sparsefab.hw.synthesize import Resources, synthesize

__all__ = ["ACCUMULATORS", "ARRAYS", "count"]

# chains, DSPs of a chain, bits of an accumulator, of a group scale, rows
Design = tuple[int, int, int, int, int]

ACCUMULATORS: Final[tuple[Design, ...]] = (
    (1, 16, 32, 0, 512),
    (2, 64, 32, 0, 512),
    (4, 64, 36, 0, 512),
    (1, 64, 36, 8, 512),
    (2, 16, 36, 8, 512),
    (4, 64, 40, 8, 1024),
    (8, 32, 36, 8, 512),
)
ARRAYS: Final[tuple[Design, ...]] = (
    (4, 16, 36, 8, 512),
    (2, 32, 32, 0, 512),
    (2, 32, 36, 8, 512),
    (4, 16, 32, 0, 512),
    (2, 64, 36, 8, 512),
    (2, 64, 32, 0, 1024),
)


def arch_of(design: Design) -> ArrayArch:
    """The parameters that a row of the table stands for."""
    chains, dsps, accumulator_bits, multiplier_bits, rows = design
    return ArrayArch(
        chains=chains,
        chain=ChainArch(dsps=dsps, accumulator_bits=accumulator_bits, matrix_vector=False),
        accumulators=AccumulatorArch(rows=rows, multiplier_bits=multiplier_bits),
    )


def count() -> Iterator[tuple[str, Design, Resources]]:
    """Synthesize every design: (table, design, cells)."""
    for design in ACCUMULATORS:
        yield "accumulate", design, synthesize(accumulate_verilog(arch_of(design)))
    for design in ARRAYS:
        yield "array", design, synthesize(array_verilog(arch_of(design)))


if __name__ == "__main__":
    for table, design, found in count():
        cells = [found.lut, found.ff, found.dsp, found.bram36]
        print(f"{table}: {[*design, *cells]},  # {found.depth}", flush=True)
