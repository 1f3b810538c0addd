"""Accumulators and arrays of chains against sim.reference.accumulate, on packed products."""

from pathlib import Path

import numpy as np
import pytest

from sparsefab.arch import AccumulatorArch, ArrayArch, ChainArch
from sparsefab.errors import LayoutError
from sparsefab.hw import tiles
from sparsefab.hw.emit import accumulate_verilog
from sparsefab.sim.array_streams import array_streams
from sparsefab.sim.products import Product, random_product
from sparsefab.sim.run import SimulatorName, simulators, verify_accumulate, verify_array

pytestmark = pytest.mark.cocotb

BUILD = Path(__file__).parents[2] / "build" / "sim"


def _need(simulator: SimulatorName) -> None:
    if reason := simulators(BUILD)[simulator]:
        pytest.skip(reason)


def array(chains: int, dsps: int, multiplier_bits: int, rows: int = 16, both: bool = False) -> ArrayArch:
    return ArrayArch(
        chains=chains,
        chain=ChainArch(dsps=dsps, accumulator_bits=36, matrix_vector=both),
        accumulators=AccumulatorArch(rows=rows, multiplier_bits=multiplier_bits),
    )


# rows of 1 to 3 beats a tile, more rows than the accumulators hold, an odd token, an odd row
GROUPED = [(13, 96, 8, 3, 32), (1, 128, 4, 2, 64), (5, 64, 16, 4, 16), (40, 64, 8, 2, 32)]


@pytest.mark.parametrize(
    ("multiplier_bits", "shapes"),
    [
        (8, [2, 3]),
        (0, [2]),
        pytest.param(8, [0, 1], marks=pytest.mark.slow),
        pytest.param(0, [0, 1, 3], marks=pytest.mark.slow),
    ],
)
def test_accumulators(multiplier_bits: int, shapes: list[int]) -> None:
    _need("icarus")
    for rows, columns, slots, tokens, group in (GROUPED[shape] for shape in shapes):
        product = random_product(rows=rows, columns=columns, slots=slots, tokens=tokens, dsps=16,
                                 group_size=group if multiplier_bits else None, seed=rows)  # fmt: skip
        report = verify_accumulate(array(2, 16, multiplier_bits), product, build_dir=BUILD, simulator="icarus")
        assert report.mismatches == 0, [run for run in report.runs if run.mismatches]
        assert [run.name for run in report.runs] == ["plain", "idles", "back-pressure", "both"]
        if rows >= 8:  # a tile of 4 beats or more: none is lost between tiles
            assert report.runs[0].utilisation == 1.0


@pytest.mark.parametrize("simulator", ["icarus", pytest.param("verilator", marks=pytest.mark.slow)])
def test_array(simulator: SimulatorName) -> None:
    _need(simulator)
    for rows, columns, slots, tokens, group in GROUPED[:1]:
        product = random_product(rows=rows, columns=columns, slots=slots, tokens=tokens, dsps=16, group_size=group)
        report = verify_array(array(2, 16, 8), product, build_dir=BUILD, simulator=simulator)
        assert report.mismatches == 0, [run for run in report.runs if run.mismatches]


@pytest.mark.slow
@pytest.mark.parametrize("multiplier_bits", [0, 8])
def test_array_of_64(multiplier_bits: int) -> None:
    _need("verilator")
    random = np.random.default_rng(1)
    for slots in (1, 2, 4, 8, 11, 16):
        tile = 64 // slots * 16
        rows, tokens = int(random.integers(1, 300)), int(random.integers(1, 6))
        product = random_product(rows=rows, columns=3 * tile, slots=slots, tokens=tokens, dsps=64, seed=slots,
                                 group_size=tile if multiplier_bits else None)  # fmt: skip
        report = verify_array(array(4, 64, multiplier_bits, rows=64), product, build_dir=BUILD)
        assert report.mismatches == 0, [run for run in report.runs if run.mismatches]


def _mixed(dsps: int, slots: tuple[int, ...], group: int | None, most_rows: int, seed: int) -> list[Product]:
    """Products of both modes in turn, short and long, rows and tokens odd and even, a pattern of its own each."""
    random = np.random.default_rng(seed)
    return [
        random_product(
            rows=2 * int(random.integers(1, most_rows // 2)) + (n == 16) * int(random.integers(2)),
            columns=3 * (dsps // n) * 16,
            slots=n,
            tokens=int(random.integers(1, 4)),
            dsps=dsps,
            group_size=None if group is None else dsps // n * 16 * group,
            pairs=bool((place + seed) % 2),
            seed=place,
        )
        for place, n in enumerate(slots)
    ]


@pytest.mark.parametrize(
    ("simulator", "chains", "dsps", "multiplier_bits", "slots", "most_rows"),
    [
        ("icarus", 2, 8, 8, (4, 8), 20),
        pytest.param("icarus", 1, 16, 0, (16, 4, 8), 12, marks=pytest.mark.slow),
        pytest.param("verilator", 3, 32, 8, (8, 16, 2, 4, 16, 8), 200, marks=pytest.mark.slow),
        pytest.param("verilator", 4, 64, 0, (16, 8, 16, 11, 4, 16), 400, marks=pytest.mark.slow),
    ],
)
def test_modes_switch_between_sums(
    simulator: SimulatorName, chains: int, dsps: int, multiplier_bits: int, slots: tuple[int, ...], most_rows: int
) -> None:
    """Lanes are tokens in one product and rows with group scales and biases of their own in the next."""
    _need(simulator)
    arch = array(chains, dsps, multiplier_bits, rows=32, both=True)
    products = _mixed(dsps, slots, 1 if multiplier_bits else None, most_rows, seed=chains)
    for verify in (verify_accumulate, verify_array):
        report = verify(arch, *products, build_dir=BUILD, simulator=simulator)
        assert report.mismatches == 0, [run for run in report.runs if run.mismatches]


def test_planted_bugs_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums that are not cleared, and a short tile that reads rows before they are written."""
    _need("icarus")
    arch = array(1, 16, 8)
    modules = accumulate_verilog(arch, primitives="behavioural")
    lanes = modules["sparsefab_accumulate_lanes"]
    assert lanes.count(".RSTC(s1_first)") == 2
    modules["sparsefab_accumulate_lanes"] = lanes.replace(".RSTC(s1_first)", ".RSTC(1'h0)")
    product = random_product(rows=5, columns=64, slots=8, tokens=4, dsps=16, group_size=32)
    assert verify_accumulate(arch, product, build_dir=BUILD, simulator="icarus", modules=modules).mismatches > 0
    monkeypatch.setattr(tiles, "TILE_CYCLES", 3)
    modules = accumulate_verilog(arch, primitives="behavioural")
    product = random_product(rows=1, columns=128, slots=8, tokens=4, dsps=16, group_size=32)
    assert verify_accumulate(arch, product, build_dir=BUILD, simulator="icarus", modules=modules).mismatches > 0


def test_impossible_products() -> None:
    with pytest.raises(LayoutError, match="group_size must be a multiple of 32, the inputs of a tile of 16"):
        array_streams(array(1, 16, 8), random_product(rows=4, columns=96, slots=8, tokens=1, dsps=16, group_size=48))
    with pytest.raises(LayoutError, match="multiplier_bits must be at least 8"):
        array_streams(array(1, 16, 4), random_product(rows=64, columns=64, slots=8, tokens=1, dsps=16, group_size=32))
    pairs = random_product(rows=4, columns=64, slots=8, tokens=1, dsps=16, pairs=True)
    with pytest.raises(LayoutError, match="matrix_vector must be true for pairs of rows, layout chain-16x8-pairs"):
        array_streams(array(1, 16, 0), pairs)
    with pytest.raises(LayoutError, match="chains of 8 DSPs"):
        array_streams(array(1, 8, 0), random_product(rows=4, columns=64, slots=8, tokens=1, dsps=16))
