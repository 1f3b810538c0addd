"""Parameters: what is refused, and what is derived from operand ranges."""

from itertools import product

import numpy as np
import pytest

from sparsefab.arch import LANE_BITS, LANE_OFFSET, AcceleratorArch, AccumulatorArch, ArrayArch, ChainArch
from sparsefab.config import dumps, loads
from sparsefab.hw.chain_axis import chain_axis_wrapper


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dsps": 20}, "dsps must be a positive multiple of segment = 8, not 20"),
        ({"dsps": 0}, "dsps must be"),
        ({"dsps": 18, "segment": 9}, "segment must be at most 8, the products of s8 x s8"),
        ({"dsps": 200, "segment": 100}, "segment must be 1 to 96, the DSPs of a column inside one SLR"),
        ({"dsps": 64, "accumulator_bits": 21}, "accumulator_bits must be 22 to 48"),
        ({"dsps": 64, "weight_bits": 9}, "weight_bits must be 2 to 8, not 9"),
        ({"dsps": 9, "segment": 3, "ends": True}, "segment must be a multiple of 2, a group, where rows end, not 3"),
        ({"dsps": 64, "block": 8}, "block must be 16"),
    ],
)
def test_refuses(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChainArch(**arguments)


def _lanes(packed: int) -> tuple[int, int]:
    """Read a segment's packed sum as the adder tree does."""
    return (packed & (1 << LANE_BITS) - 1) - LANE_OFFSET, packed >> LANE_BITS


@pytest.mark.parametrize(("weight_bits", "activation_bits"), list(product(range(2, 9), repeat=2)))
def test_segment_limit_is_tight(weight_bits: int, activation_bits: int) -> None:
    """Over all operands: sums of `segment_limit` products come out of the lanes as they went in, one more does not."""
    arch = ChainArch(dsps=1, segment=1, weight_bits=weight_bits, activation_bits=activation_bits)
    weights, activations = (np.arange(-(1 << bits - 1), 1 << bits - 1) for bits in (weight_bits, activation_bits))
    products = np.multiply.outer(weights, activations)
    low, high = int(products.min()), int(products.max())
    assert arch.product_range == (low, high)

    def exact(count: int) -> bool:
        # a lane is a carry of the other: it is exact for all sums if it is for the extreme ones, which all lie between
        extremes = list(product((count * low, count * high), repeat=2))
        return all(_lanes((upper << LANE_BITS) + lower + LANE_OFFSET) == (lower, upper) for lower, upper in extremes)

    assert exact(arch.segment_limit)
    assert not exact(arch.segment_limit + 1)
    longest = ChainArch(dsps=min(arch.segment_limit, 8), segment=min(arch.segment_limit, 8), weight_bits=weight_bits,
                        activation_bits=activation_bits)  # fmt: skip
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


def test_accumulators_and_arrays() -> None:
    chain = ChainArch(dsps=64, accumulator_bits=36, matrix_vector=False)
    assert AccumulatorArch(multiplier_bits=8).max_inputs(chain) == (2**35 - 1) // 2**14 // 255
    assert AccumulatorArch().max_inputs(chain) == (2**35 - 1) // 2**14
    array = ArrayArch(chains=4, chain=chain, accumulators=AccumulatorArch(multiplier_bits=8))
    assert (array.dsps, array.row_beats(13)) == (4 * 66, 4)
    assert (array.row_beats(13, vector=True), array.row_beats(16, vector=True)) == (2, 2)
    with pytest.raises(ValueError, match="rows must be 16 to 4096, not 8"):
        AccumulatorArch(rows=8)
    with pytest.raises(ValueError, match="multiplier_bits must be 0 to 17"):
        AccumulatorArch(multiplier_bits=18)
    with pytest.raises(ValueError, match="chains must be at least 1"):
        ArrayArch(chains=0, chain=chain)
    with pytest.raises(ValueError, match="ends must be False"):
        ArrayArch(chains=1, chain=ChainArch(dsps=64, ends=True))
    with pytest.raises(ValueError, match="ends must be False for AXI4-Stream"):
        chain_axis_wrapper(ChainArch(dsps=64, ends=True))


@pytest.mark.parametrize(
    ("dsps", "slots", "blocks", "expected"),
    # dense: a word for each DSP; 4:16: a segment holds two blocks; 8:16: one; 11:16: 5 blocks over 7 segments
    [
        (64, 16, 99, (1, 1, 8)),
        (64, 16, 1, (1, 1, 2)),
        (64, 4, 99, (16, 1, 8)),
        (64, 4, 3, (16, 1, 2)),
        (64, 8, 99, (16, 1, 8)),
        (64, 11, 99, (16, 1, 7)),
    ],
)
def test_what_a_tile_fills(dsps: int, slots: int, blocks: int, expected: tuple[int, int, int]) -> None:
    assert ChainArch(dsps=dsps).tile_fill(slots, blocks) == expected


@pytest.mark.parametrize(
    ("rows", "bits", "blocks"),
    # as Yosys maps the memory of two lanes
    [(512, 36, 1.0), (512, 48, 1.5), (64, 36, 1.0), (1024, 36, 2.0), (2048, 32, 4.0), (512, 25, 1.0)],
)
def test_block_rams_of_the_accumulators(rows: int, bits: int, blocks: float) -> None:
    chain = ChainArch(dsps=16, accumulator_bits=bits)
    assert AccumulatorArch(rows=rows).bram36(chain) == blocks
