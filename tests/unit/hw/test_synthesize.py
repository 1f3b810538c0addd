"""Resource counts of the vendor netlist."""

import pytest

from sparsefab.arch import ChainArch
from sparsefab.hw.emit import chain_verilog
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
def test_chain_of_64() -> None:
    resources = synthesize(chain_verilog(ChainArch(dsps=64)))
    assert resources.dsp == 64
    assert resources.lut_per_dsp <= 30
    assert resources.depth.fast, resources.depth
