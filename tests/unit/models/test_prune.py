"""Magnitude masks against their definitions."""

from itertools import product

import numpy as np
import pytest

from sparsefab.formats import BlockN, parse_pattern
from sparsefab.formats.sparsity import BLOCK_N_CHOICES
from sparsefab.models.compress import magnitude_mask


@pytest.mark.parametrize("seed", range(4))
def test_per_block_n_keeps_most_energy_for_what_it_stores(seed: int) -> None:
    """No other choice of N for the blocks stores as little and keeps more."""
    random = np.random.default_rng(seed)
    weights = (random.normal(0, 1, (16, 64)) * np.repeat(random.uniform(0.2, 2, 4), 16)).astype(np.float32)
    mask = magnitude_mask(weights, parse_pattern("N:16@0.4"))
    assert mask is not None
    stored = 16 * int(BlockN.block_n(mask).sum())
    assert stored == mask.sum()
    assert 0.4 - 8 * 16 / weights.size <= mask.mean() <= 0.4
    blocks = -np.sort(-np.square(weights.astype(np.float64)).reshape(16, 4, 16), axis=2)
    kept = float(np.square(weights[mask], dtype=np.float64).sum())
    for choice in product(BLOCK_N_CHOICES, repeat=4):
        if 16 * sum(choice) <= stored:
            energy = sum(blocks[:, block, :n].sum() for block, n in enumerate(choice))
            assert energy <= kept * (1 + 1e-12)


def test_row_pairs_keep_the_largest_sums_of_squares() -> None:
    weights = np.zeros((2, 16), np.float32)
    weights[0, [1, 5]] = 3, 2
    weights[1, [5, 9]] = 2, 2.5  # 3^2 = 9, 2^2 + 2^2 = 8, 2.5^2 = 6.25
    mask = magnitude_mask(weights, parse_pattern("2:16 pairs"))
    assert mask is not None
    assert np.flatnonzero(mask[0]).tolist() == [1, 5]
    np.testing.assert_array_equal(mask[0], mask[1])


def test_density_zero_and_one() -> None:
    weights = np.ones((16, 32), np.float32)
    for density in (0, 1):
        mask = magnitude_mask(weights, parse_pattern(f"N:16@{density}"))
        assert mask is not None
        assert mask.mean() == density
