"""Four int4 products in a DSP: all operands, the limit of a lane's sum, resources."""

from itertools import product

import numpy as np
import pytest

from sparsefab.hw.pack4 import LANE_BITS, SUM_LIMIT, NibbleArch, nibble_verilog
from sparsefab.hw.synthesize import synthesize
from sparsefab.sim.pack4 import nibble_stimuli

_OFFSET = (1 << LANE_BITS - 1) - 1
_S4 = np.arange(-8, 8)


def _lanes(packed: np.ndarray) -> list[np.ndarray]:
    """Take the lanes of P apart, offsets included in the three lower ones."""
    low = [((packed >> lane * LANE_BITS) & (1 << LANE_BITS) - 1) - _OFFSET for lane in range(3)]
    return [*low, packed >> 3 * LANE_BITS]


def test_all_operands_of_one_dsp() -> None:
    w0, w1, a0, a1 = (grid.reshape(-1).astype(np.int64) for grid in np.meshgrid(_S4, _S4, _S4, _S4))
    offsets = sum(_OFFSET << lane * LANE_BITS for lane in range(3))
    packed = ((w1 << 2 * LANE_BITS) + w0) * ((a1 << LANE_BITS) + a0) + offsets
    for lane, want in zip(_lanes(packed), (w0 * a0, w0 * a1, w1 * a0, w1 * a1), strict=True):
        np.testing.assert_array_equal(lane, want)


def test_sum_limit_is_tight() -> None:
    """Lanes are exact for all sums if they are for the extremes of each: what a lane passes on grows with its sum."""
    products = np.multiply.outer(_S4, _S4)
    low, high = int(products.min()), int(products.max())

    def exact(count: int) -> bool:
        for sums in product((count * low, count * high), repeat=4):
            packed = sum(value << lane * LANE_BITS for lane, value in enumerate(sums))
            packed += sum(_OFFSET << lane * LANE_BITS for lane in range(3))
            if [int(lane) for lane in _lanes(np.int64(packed))] != list(sums):
                return False
        return True

    assert SUM_LIMIT == 16
    assert exact(SUM_LIMIT)
    assert not exact(SUM_LIMIT + 1)


def test_stimuli_fill_every_lane() -> None:
    arch = NibbleArch()
    _, words = nibble_stimuli(arch, beats=3, seed=0)
    lanes = [[word >> arch.sum_bits * lane & (1 << arch.sum_bits) - 1 for lane in range(4)] for word in words[:2]]
    assert lanes == [[16 * 64] * 4, [(1 << arch.sum_bits) - 16 * 56] * 4]


def test_resources() -> None:
    pytest.importorskip("pyosys")
    resources = synthesize(nibble_verilog(NibbleArch()))
    assert resources.dsp == 16
    assert resources.lut_per_dsp <= 15  # skew and output FIFO included
    assert resources.depth.fast, resources.depth


def test_refuses_more_than_a_lane_holds() -> None:
    with pytest.raises(ValueError, match="dsps must be 1 to 16, the products that 11 bits sum exactly, not 17"):
        NibbleArch(dsps=17)
