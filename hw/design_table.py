"""Synthesize engines and parts of them: the table behind the cost model's blocks and the rule that composes them.

    python -m sparsefab.hw.design_table cost_models/data/design_table.csv

Accumulators of 512 rows and 36 bits, with group scales. Registers in a
row may become shift registers in LUTs, as Yosys chooses. Counts are an upper bound; nothing is placed.
"""

import argparse
import csv
import hashlib
import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Final

from sparsefab.arch import AccumulatorArch, ArrayArch, ChainArch
from sparsefab.errors import StorageError
from sparsefab.hw.emit import array_verilog, engine_verilog, group_verilog
from sparsefab.hw.engine import EngineArch
from sparsefab.hw.synthesize import synthesize
from sparsefab.storage import write_atomic

__all__ = ["DESIGNS", "PARTS", "Design", "read_designs", "synthesize_design"]

#: What a design holds: everything up to its own part.
PARTS: Final = ("chain", "accumulators", "requantizer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """One synthesized design.

    use                        'fit': the blocks of the cost model come from it; 'test': it is predicted.
    part                       The last of PARTS that it has.
    modes                      2: two tokens or two rows a DSP, 1: two tokens.
    multiplier_bits            Of the group scales.
    lut, ff, dsp, bram36       Counts; LUT sites with shift registers and distributed RAM.
    lut_levels                 The longest run of LUTs between registers.
    netlist                    First digits of the Verilog's SHA-256: a row is kept as long as they stay.
    """

    use: str
    part: str
    chains: int
    dsps: int
    modes: int
    multiplier_bits: int
    lut: int = 0
    ff: int = 0
    dsp: int = 0
    bram36: float = 0.0
    lut_levels: int = 0
    netlist: str = ""

    @property
    def array(self) -> ArrayArch:
        """Its array of chains."""
        return ArrayArch(
            chains=self.chains,
            chain=ChainArch(dsps=self.dsps, accumulator_bits=36, matrix_vector=self.modes == 2),
            accumulators=AccumulatorArch(multiplier_bits=self.multiplier_bits),
        )

    def modules(self) -> dict[str, str]:
        """Its Verilog."""
        if self.part == "chain":
            return group_verilog(self.array)
        if self.part == "accumulators":
            return array_verilog(self.array)
        return engine_verilog(EngineArch(array=self.array))


def _design(use: str, part: str, chains: int, dsps: int, modes: int, multiplier_bits: int) -> Design:
    return Design(use=use, part=part, chains=chains, dsps=dsps, modes=modes, multiplier_bits=multiplier_bits)


DESIGNS: Final = (
    _design("fit", "chain", 1, 16, 2, 0),
    _design("fit", "chain", 1, 64, 2, 0),
    _design("fit", "accumulators", 1, 16, 2, 8),
    _design("fit", "accumulators", 4, 16, 2, 8),
    _design("fit", "requantizer", 2, 16, 2, 8),
    _design("test", "chain", 1, 32, 2, 0),
    _design("test", "accumulators", 2, 64, 2, 8),
    _design("test", "accumulators", 8, 16, 2, 8),
    _design("test", "accumulators", 4, 32, 2, 8),
    _design("test", "accumulators", 2, 32, 2, 0),
    _design("test", "requantizer", 4, 16, 2, 8),
    _design("test", "requantizer", 2, 64, 2, 8),
)


def synthesize_design(design: Design, known: Sequence[Design] = ()) -> Design:
    """Fill in the counts; those of a known design with the same Verilog are taken over."""
    modules = design.modules()
    netlist = hashlib.sha256("\n".join(modules.values()).encode()).hexdigest()[:12]
    for other in known:
        if other.netlist == netlist:
            return replace(other, use=design.use)
    found = synthesize(modules)
    return replace(
        design,
        lut=found.lut,
        ff=found.ff,
        dsp=found.dsp,
        bram36=found.bram36,
        lut_levels=found.depth.lut_levels,
        netlist=netlist,
    )


def read_designs(path: Path) -> tuple[Design, ...]:
    """Read a table back.

    Raises
    ------
    StorageError               If the file is no such table.
    """
    kinds = {"use": str, "part": str, "netlist": str, "bram36": float}
    try:
        lines = list(csv.DictReader(io.StringIO(path.read_text())))
        return tuple(
            Design(**{field.name: kinds.get(field.name, int)(line[field.name]) for field in fields(Design)})
            for line in lines
        )
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path}: is no table of designs ({error}); remove it") from error


def _text(designs: Iterable[Design]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Design)], lineterminator="\n")
    table.writeheader()
    table.writerows(map(asdict, designs))
    return text.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Synthesize all designs; rows of a table that is there are kept where the Verilog has not changed."""
    parser = argparse.ArgumentParser(prog="python -m sparsefab.hw.design_table", description=__doc__)
    parser.add_argument("output", type=Path, metavar="FILE", help="CSV")
    path = parser.parse_args(arguments).output
    known = read_designs(path) if path.exists() else ()
    done: list[Design] = []
    for design in DESIGNS:
        done.append(synthesize_design(design, known))
        print(done[-1], file=sys.stderr)
        again = [other for other in known if all(other.netlist != row.netlist for row in done)]
        write_atomic(path, _text([*done, *again]).encode())  # what is not reached again stays for the next run
    write_atomic(path, _text(done).encode())


if __name__ == "__main__":
    main()
