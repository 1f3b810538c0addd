"""Engines against sim.reference.accumulate and formats.requantize: compressed weights in, codes out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sparsefab.arch import AccumulatorArch, ArrayArch, ChainArch
from sparsefab.hw.dequantize.arch import DequantizeArch
from sparsefab.hw.emit import engine_verilog
from sparsefab.hw.engine import EngineArch
from sparsefab.sim.engine import engine_streams, verify_engine
from sparsefab.sim.products import Product, random_product
from sparsefab.sim.run import SimulatorName, simulators

pytestmark = pytest.mark.cocotb

BUILD = Path(__file__).parents[2] / "build" / "sim"


def _need(simulator: SimulatorName) -> None:
    if reason := simulators(BUILD)[simulator]:
        pytest.skip(reason)


def engine(
    chains: int, dsps: int, slots: int, *, pairs: bool, both: bool = True, multiplier_bits: int = 8
) -> EngineArch:
    positions = {"positions": "all"} if slots == 16 else {"positions": "bitmap" if pairs else "index"}
    return EngineArch(
        array=ArrayArch(
            chains=chains,
            chain=ChainArch(dsps=dsps, accumulator_bits=36, matrix_vector=both),
            accumulators=AccumulatorArch(rows=16, multiplier_bits=multiplier_bits),
        ),
        dequantize=DequantizeArch(dsps=dsps, slots=slots, pairs=pairs, format="int8", beat_bits=256, **positions),
    )


def product(rows: int, dsps: int, slots: int, tokens: int, *, pairs: bool, group: bool = True) -> Product:
    tile = dsps // slots * 16
    drawn = random_product(rows=rows, columns=3 * tile, slots=slots, tokens=tokens, dsps=dsps, pairs=pairs,
                           group_size=tile if group else None, seed=rows)  # fmt: skip
    # a bias as large as the products, and shifts that leave codes of both in the middle of their range
    bits = 22 if group else 15
    shifts = (bits - 11 + np.arange(rows) % 3).astype(np.int32)
    requantizer = replace(drawn.requantizer, shifts=shifts, zero_point=-7, code_max=90)
    return replace(drawn, bias=drawn.bias >> (24 - bits), requantizer=requantizer)


@pytest.mark.parametrize(
    ("simulator", "chains", "dsps", "slots", "pairs", "rows", "tokens"),
    [
        ("icarus", 2, 8, 4, True, 6, 1),
        pytest.param("icarus", 2, 8, 8, False, 13, 3, marks=pytest.mark.slow),
        pytest.param("icarus", 2, 16, 16, True, 9, 1, marks=pytest.mark.slow),
        pytest.param("verilator", 3, 16, 16, False, 41, 4, marks=pytest.mark.slow),
    ],
)
def test_engines(
    simulator: SimulatorName, chains: int, dsps: int, slots: int, pairs: bool, rows: int, tokens: int
) -> None:
    _need(simulator)
    arch = engine(chains, dsps, slots, pairs=pairs)
    report = verify_engine(arch, product(rows, dsps, slots, tokens, pairs=pairs), build_dir=BUILD, simulator=simulator)
    assert report.mismatches == 0, [run for run in report.runs if run.mismatches]


@pytest.mark.slow
@pytest.mark.parametrize("both", [False, True])
def test_codes_of_weight_beats(both: bool) -> None:
    _need("icarus")
    arch = replace(engine(2, 8, 8, pairs=False, both=both, multiplier_bits=0), dequantize=None)
    given = product(37, 8, 8, 3, pairs=False, group=False)
    report = verify_engine(arch, given, build_dir=BUILD, simulator="icarus")
    assert report.mismatches == 0, [run for run in report.runs if run.mismatches]


@pytest.mark.slow
def test_a_planted_bug_is_caught() -> None:
    """The first row's group scale for both rows of a pair."""
    _need("icarus")
    arch = engine(1, 8, 8, pairs=True)
    modules = engine_verilog(arch, primitives="behavioural")
    lanes = modules["sparsefab_accumulate_lanes"]
    assert lanes.count("group[15:8]") == 1
    modules["sparsefab_accumulate_lanes"] = lanes.replace("group[15:8]", "group[7:0]")
    report = verify_engine(arch, product(6, 8, 8, 1, pairs=True), build_dir=BUILD, simulator="icarus", modules=modules)
    assert report.mismatches > 0


def test_impossible_engines() -> None:
    array = ArrayArch(chains=1, chain=ChainArch(dsps=16, matrix_vector=False))
    with pytest.raises(ValueError, match=r"dequantize\.dsps must be the chains' 16, not 8"):
        EngineArch(array=array, dequantize=DequantizeArch(dsps=8, slots=8, positions="bitmap"))
    with pytest.raises(ValueError, match=r"dequantize\.pairs must be False"):
        EngineArch(array=array, dequantize=DequantizeArch(dsps=16, pairs=True))
    with pytest.raises(ValueError, match="at most 16 rows or pairs of rows, not 17"):
        engine_streams(engine(1, 8, 8, pairs=False), product(17, 8, 8, 1, pairs=False))
