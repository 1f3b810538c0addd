"""Blocks of the FPGA table from synthesized designs, part by part, and how well they compose the designs left out."""

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsefab.arch import AccumulatorArch, ArrayArch, ChainArch
from sparsefab.cost_models.resources import PARTS, array_resources

__all__ = ["Design", "composition_errors", "designs", "fit_blocks"]

_TABLE = Path(__file__).resolve().parent / "data" / "design_table.csv"
_KINDS = ("lut", "ff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A synthesized design of `sparsefab.hw.design_table`: an array with everything up to `part`, and its counts."""

    use: str
    part: str
    array: ArrayArch
    counts: dict[str, float]

    @property
    def name(self) -> str:
        """4 x 64 both modes, group scales, requantizer."""
        array = self.array
        modes = "both modes" if array.chain.matrix_vector else "one mode"
        scales = ", group scales" if array.accumulators.multiplier_bits else ""
        return f"{array.chains} x {array.chain.dsps} {modes}{scales}, {self.part}"


@lru_cache(maxsize=1)
def designs() -> tuple[Design, ...]:
    """Return the synthesized designs, read once."""
    with _TABLE.open(newline="") as file:
        return tuple(
            Design(
                use=line["use"],
                part=line["part"],
                array=ArrayArch(
                    chains=int(line["chains"]),
                    chain=ChainArch(dsps=int(line["dsps"]), accumulator_bits=36, matrix_vector=line["modes"] == "2"),
                    accumulators=AccumulatorArch(multiplier_bits=int(line["multiplier_bits"])),
                ),
                counts={kind: float(line[kind]) for kind in ("lut", "ff", "dsp", "bram36")},
            )
            for line in csv.DictReader(file)
        )


def fit_blocks() -> dict[tuple[str, str], tuple[float, float]]:
    """Return (LUT, FF) by (part, per) from the designs whose use is 'fit'.

    A part is what its designs have beyond the parts before it: chains a share a DSP and one a chain, accumulators a
    share a chain and one an array, requantizers a share a chain.
    """
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for part, shares in _SHARES.items():
        own = [design for design in designs() if design.use == "fit" and design.part == part]
        left = np.array([[design.counts[kind] for kind in _KINDS] for design in own])
        left -= np.array([_before(found, design) for design in own])
        counts = np.array([[_count(design, per) for per in shares] for design in own])
        # relative errors count: a large design must not outweigh the others
        weight = 1.0 / np.array([[design.counts["lut"]] for design in own])
        solved = np.linalg.lstsq(counts * weight, left * weight, rcond=None)[0]
        found |= {(part, per): (float(lut), float(ff)) for per, (lut, ff) in zip(shares, solved, strict=True)}
    return found


_SHARES = {
    "chain": ("dsp", "chain"),
    "accumulators": ("chain", "core"),
    "requantizer": ("chain",),
}


def _count(design: Design, per: str) -> float:
    array = design.array
    return {"dsp": array.chains * array.chain.dsps, "chain": array.chains, "core": 1}[per]


def _before(found: dict[tuple[str, str], tuple[float, float]], design: Design) -> NDArray[np.float64]:
    """LUT and FF of the parts before a design's own."""
    before = PARTS[: PARTS.index(design.part)]
    shares = [_count(design, per) * np.array(share) for (part, per), share in found.items() if part in before]
    return np.asarray(sum(shares, start=np.zeros(2)))


def composition_errors(use: str) -> list[tuple[Design, dict[str, float]]]:
    """Relative error of every count of the designs of one use, by the table's blocks."""
    return [
        (
            design,
            {
                kind: abs(found[kind].value / count - 1.0) if count else float(found[kind].value != 0.0)
                for kind, count in design.counts.items()
            },
        )
        for design in designs()
        if design.use == use
        for found in (array_resources(design.array, design.part),)
    ]
