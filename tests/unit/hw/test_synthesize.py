"""Resource counts of the vendor netlist."""

import pytest

from sparsefab.arch import AccumulatorArch, ArrayArch, ChainArch
from sparsefab.hw.emit import accumulate_verilog, array_verilog, chain_verilog
from sparsefab.hw.synthesize import synthesize

pytest.importorskip("pyosys")


def test_small_chain_stays_below_thirty_luts_a_dsp() -> None:
    resources = synthesize(chain_verilog(ChainArch(dsps=16, matrix_vector=False)))
    assert resources.dsp == 16
    assert resources.ram_lut == 240  # banks, skew and the output FIFO of 41 bits
    assert resources.lut_per_dsp <= 30
    assert resources.depth.fast, resources.depth
    assert resources.lut == resources.logic_lut + resources.shift_lut + resources.ram_lut


@pytest.mark.slow
def test_rows_that_end_in_beats_cost_less_than_twenty_luts_a_dsp() -> None:
    plain, ends = (synthesize(chain_verilog(ChainArch(dsps=64, ends=ends))) for ends in (False, True))
    assert ends.lut_per_dsp - plain.lut_per_dsp <= 20
    assert ends.depth.fast, ends.depth


@pytest.mark.slow
def test_chain_of_64() -> None:
    resources = synthesize(chain_verilog(ChainArch(dsps=64)))
    assert resources.dsp == 64
    assert resources.lut_per_dsp <= 30
    assert resources.depth.fast, resources.depth


def _array(chains: int, dsps: int, multiplier_bits: int, both: bool) -> ArrayArch:
    return ArrayArch(
        chains=chains,
        chain=ChainArch(dsps=dsps, accumulator_bits=36, matrix_vector=both),
        accumulators=AccumulatorArch(multiplier_bits=multiplier_bits),
    )


@pytest.mark.parametrize(
    ("chains", "dsps", "multiplier_bits", "both"),
    [
        (2, 8, 8, True),
        pytest.param(1, 16, 0, False, marks=pytest.mark.slow),
        pytest.param(4, 64, 0, False, marks=pytest.mark.slow),
        pytest.param(4, 64, 8, False, marks=pytest.mark.slow),
        pytest.param(4, 64, 0, True, marks=pytest.mark.slow),
        pytest.param(4, 64, 8, True, marks=pytest.mark.slow),
        pytest.param(8, 32, 17, True, marks=pytest.mark.slow),
    ],
)
def test_arrays_keep_the_logic_depth(chains: int, dsps: int, multiplier_bits: int, both: bool) -> None:
    resources = synthesize(array_verilog(_array(chains, dsps, multiplier_bits, both)))
    assert resources.depth.fast, resources.depth
    assert resources.dsp == chains * (dsps + (2 if multiplier_bits else 0))


@pytest.mark.slow
@pytest.mark.parametrize("multiplier_bits", [0, 8])
@pytest.mark.parametrize(("rows", "both"), [(16, True), (512, True), (1024, False)])
def test_accumulators_keep_the_logic_depth(multiplier_bits: int, rows: int, both: bool) -> None:
    chain = ChainArch(dsps=64, accumulator_bits=36, matrix_vector=both)
    kept = AccumulatorArch(rows=rows, multiplier_bits=multiplier_bits)
    resources = synthesize(accumulate_verilog(ArrayArch(chains=2, chain=chain, accumulators=kept)))
    assert resources.depth.fast, resources.depth
