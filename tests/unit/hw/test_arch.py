"""Parameters: what is refused, and what is derived from operand ranges."""

from itertools import product

import pytest

from sparsefab.arch import LANE_BITS, AcceleratorArch, ChainArch
from sparsefab.config import dumps, loads


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dsps": 20}, "dsps must be a positive multiple of segment = 8, not 20"),
        ({"dsps": 0}, "dsps must be"),
        ({"dsps": 18, "segment": 9}, "segment must be at most 8, the products of s8 x s8"),
        ({"dsps": 200, "segment": 100}, "segment must be 1 to 96, the DSPs of a column inside one SLR"),
        ({"dsps": 64, "accumulator_bits": 21}, "accumulator_bits must be 22 to 48"),
        ({"dsps": 64, "weight_bits": 9}, "weight_bits must be 2 to 8, not 9"),
        ({"dsps": 64, "block": 8}, "block must be 16"),
    ],
)
def test_refuses(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChainArch(**arguments)


@pytest.mark.parametrize(("weight_bits", "activation_bits"), list(product(range(2, 9), repeat=2)))
def test_lane_offset_keeps_every_sum_in_the_lane(weight_bits: int, activation_bits: int) -> None:
    # column_dsps lifts the other limit, so that the lane's own is met
    arch = ChainArch(dsps=1, segment=1, weight_bits=weight_bits, activation_bits=activation_bits)
    values = [
        w * a
        for w in (-(1 << weight_bits - 1), (1 << weight_bits - 1) - 1)
        for a in (-(1 << activation_bits - 1), (1 << activation_bits - 1) - 1)
    ]
    assert arch.product_range == (min(values), max(values))
    limit = min(arch.segment_limit, 8)
    longest = ChainArch(dsps=limit, segment=limit, weight_bits=weight_bits, activation_bits=activation_bits)
    assert limit * min(values) + longest.lane_offset >= 0
    assert limit * max(values) + longest.lane_offset < 1 << LANE_BITS
    low, high = longest.sum_range
    assert -(1 << longest.sum_bits - 1) <= low
    assert high < 1 << longest.sum_bits - 1
    assert low < -(1 << longest.sum_bits - 2) or high >= 1 << longest.sum_bits - 2  # not a bit too many


def test_full_range_int8_takes_eight() -> None:
    assert ChainArch(dsps=64).segment_limit == 8


def test_accelerator_fits_its_regions() -> None:
    arch = AcceleratorArch(cores=3, chains_per_core=32, chain=ChainArch(dsps=64), clock_hz=225e6, hbm_channels=24)
    assert arch.dsps == 6144
    assert arch.macs_per_cycle == 12288
    assert loads(dumps(arch), AcceleratorArch) == arch
    with pytest.raises(ValueError, match="chains_per_core must be at most 42"):
        AcceleratorArch(cores=3, chains_per_core=43, chain=ChainArch(dsps=64), clock_hz=225e6, hbm_channels=24)
    with pytest.raises(ValueError, match="hbm_channels must be a multiple of cores"):
        AcceleratorArch(cores=3, chains_per_core=1, chain=ChainArch(dsps=64), clock_hz=225e6, hbm_channels=32)
