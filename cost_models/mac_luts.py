"""LUTs of one exact MAC of any format, from a few physical terms fitted to the synthesized table.

    n   bits of a significand with its hidden bit; all of an integer's
    W   accumulator: 2 (2^E + M) + ceil(log2 terms) - 1 for floats, 2 bits + ceil(log2 terms) + 1 for integers
    s   levels of the shift to the accumulator's grid: log2 of the exponents' reach; 0 where nothing is shifted

    plain      LUT = c0 n^2 [2 n > 6] + c1 W + c2 n s + c3 W [s > 0] + c4 n [signed integer]
    dsp        LUT = c0 + c1 W' + c2 W' s + c3 n s        W' = W where the accumulator does not fit the DSP, else 0
    converter  LUT = c0 W + c1 W log2 W                   added by rounding back to the format

A product of significands of together up to six bits is a table and has no rows. Coefficients are not negative, fitted
by least squares of relative errors. Source: data/mac_table.csv, which `sparsefab table` makes.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from math import ceil, log2
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import FormatError
from sparsefab.formats import FloatFormat, Format, IntFormat, get_format

__all__ = ["FITS", "MacFit", "MacSample", "fit_macs", "mac_lut", "read_samples", "terms_of"]

FITS: Final = ("plain", "dsp", "converter")
_TERMS: Final = {
    "plain": ("multiplier_rows", "accumulator_bits", "significand_shift", "placed_bits", "signed_rows"),
    "dsp": ("constant", "accumulator_bits", "accumulator_shift", "significand_shift"),
    "converter": ("accumulator_bits", "normalizer_luts"),
}
_TABLE_INPUTS: Final = 6  # of a LUT6
_DSP_PORT_BITS, _DSP_SUM_BITS = 27, 48  # UG579: the A side of the multiplier, P

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MacSample:
    """One row of the table, as far as the fit reads it."""

    format: str
    multiplier: str
    converted: bool
    lut: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MacFit:
    """Coefficients in LUTs a unit of each term, and their residuals as a share of the LUTs synthesized."""

    name: str
    coefficients: dict[str, float]
    samples: int
    mean_error: float
    worst_error: float
    worst_format: str


def terms_of(fmt: Format, terms: int = 4608) -> dict[str, float]:
    """Return the physical terms of a MAC with both factors in `fmt`."""
    if terms < 1:
        raise ValueError(f"terms must be at least 1, not {terms}")
    growth = (terms - 1).bit_length()
    if not isinstance(fmt, IntFormat | FloatFormat):
        raise FormatError(f"{fmt.name} is a format of blocks; name its elements' format")
    if isinstance(fmt, IntFormat):
        n, reach, accumulator = fmt.bits, 0, 2 * fmt.bits + growth + 1
    else:
        n = fmt.mantissa_bits + (fmt.exponent_bits > 0)
        reach = 2 * ((1 << fmt.exponent_bits) - 2) if fmt.exponent_bits > 1 else 0
        accumulator = 2 * ((1 << fmt.exponent_bits) + fmt.mantissa_bits) + growth - 1
    levels = log2(reach + 1)
    return {
        "constant": 1.0,
        "multiplier_rows": float(n * n if 2 * n > _TABLE_INPUTS else 0),
        "accumulator_bits": float(accumulator),
        "accumulator_shift": accumulator * levels,
        "significand_shift": n * levels,
        "placed_bits": float(accumulator if reach else 0),
        "signed_rows": float(n if isinstance(fmt, IntFormat) and fmt.signed else 0),
        "normalizer_luts": accumulator * ceil(log2(accumulator)),
        "in_dsp": float(accumulator <= _DSP_SUM_BITS and n + reach < _DSP_PORT_BITS),
    }


def read_samples(text: str | None = None) -> tuple[MacSample, ...]:
    """Read the rows of a table; None is the shipped one."""
    if text is None:
        text = files("sparsefab.cost_models").joinpath("data/mac_table.csv").read_text()
    return tuple(
        MacSample(
            format=line["format"],
            multiplier=line["multiplier"],
            converted=line["converted"] == "yes",
            lut=int(line["lut"]),
        )
        for line in csv.DictReader(text.splitlines())
    )


def fit_macs(samples: Iterable[MacSample]) -> dict[str, MacFit]:
    """Fit all coefficients, {name: fit}.

    Raises
    ------
    ValueError                 If a fit has fewer samples than coefficients.
    """
    table = {(row.format, row.multiplier, row.converted): row.lut for row in samples}
    names = [name for name, multiplier, converted in table if multiplier == "fabric" and not converted]
    whole = [name for name in names if (name, "dsp", False) in table and (name, "fabric", True) in table]
    wanted = {
        "plain": [(name, table[name, "fabric", False]) for name in whole],
        "dsp": [(name, table[name, "dsp", False]) for name in whole],
        "converter": [(name, table[name, "fabric", True] - table[name, "fabric", False]) for name in whole],
    }
    return {name: _fit(name, rows) for name, rows in wanted.items()}


def mac_lut(fmt: Format, *, multiplier: str = "fabric", converted: bool = False, terms: int = 4608) -> float:
    """Predict the LUT sites of one MAC.

    Raises
    ------
    ValueError                 If the multiplier is neither 'fabric' nor 'dsp'.
    """
    if multiplier not in ("fabric", "dsp"):
        raise ValueError(f"multiplier must be 'fabric' or 'dsp', not {multiplier!r}")
    fits = _shipped()
    total = _predict(fits["plain" if multiplier == "fabric" else "dsp"], fmt, terms)
    return total + (_predict(fits["converter"], fmt, terms) if converted else 0.0)


@lru_cache(maxsize=1)
def _shipped() -> dict[str, MacFit]:
    return fit_macs(read_samples())


def _values(name: str, fmt: Format, terms: int = 4608) -> list[float]:
    found = terms_of(fmt, terms)
    outside = 1.0 - found["in_dsp"] if name == "dsp" else 1.0
    return [found[t] * (outside if t.startswith("accumulator_") else 1.0) for t in _TERMS[name]]


def _predict(fit: MacFit, fmt: Format, terms: int) -> float:
    return float(np.dot(_values(fit.name, fmt, terms), list(fit.coefficients.values())))


def _fit(name: str, rows: Sequence[tuple[str, int]]) -> MacFit:
    from scipy.optimize import nnls

    if len(rows) < len(_TERMS[name]):
        raise ValueError(f"{len(_TERMS[name])} coefficients need as many formats, not {len(rows)}")
    matrix = np.array([_values(name, get_format(fmt)) for fmt, _ in rows])
    target = np.array([max(lut, 1) for _, lut in rows], np.float64)
    solved: tuple[Any, Any] = nnls(matrix / target[:, None], np.ones(len(rows)))
    coefficients: Floats = solved[0]
    errors = np.abs(matrix @ coefficients / target - 1)
    worst = int(np.argmax(errors))
    return MacFit(
        name=name,
        coefficients={t: float(c) for t, c in zip(_TERMS[name], coefficients, strict=True)},
        samples=len(rows),
        mean_error=float(errors.mean()),
        worst_error=float(errors[worst]),
        worst_format=rows[worst][0],
    )
