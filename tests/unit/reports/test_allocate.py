"""The knapsack against all choices, and recipes that keep their size."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsefab.errors import ConfigError
from sparsefab.models.compress import Rule, compress
from sparsefab.models.model import Model
from sparsefab.reports.allocate import allocated_recipes, knapsack
from sparsefab.reports.space import Allocation
from sparsefab.reports.sweep import packed_bytes


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_the_knapsack_is_the_best_of_all_choices(rows: int, choices: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    errors = chance.integers(0, 50, (rows, choices)).astype(np.float64)
    sizes = chance.integers(1, 64, (rows, choices)).astype(np.float64)
    errors[chance.random((rows, choices)) < 0.15] = np.nan
    budget = 128.0  # divides the steps, so that sizes are not rounded
    best = np.inf
    for chosen in itertools.product(range(choices), repeat=rows):
        picked = [(errors[row, column], sizes[row, column]) for row, column in enumerate(chosen)]
        if not any(np.isnan(error) for error, _ in picked) and sum(size for _, size in picked) <= budget:
            best = min(best, sum(error for error, _ in picked))
    found = knapsack(errors, sizes, budget)
    if found is None:
        assert best == np.inf
    else:
        assert sizes[np.arange(rows), found].sum() <= budget
        assert errors[np.arange(rows), found].sum() == best


def small_model() -> Model:
    from sparsefab.models.zoo import get
    from sparsefab.session import Session

    assert get("char-llama")
    return Session().source("char-llama").load()


def test_allocated_recipes_keep_their_size_and_beat_the_smallest_rule() -> None:
    model = small_model()
    rules = (Rule(weights="int2", group_size=32), Rule(weights="int4", group_size=32), Rule(weights="int8"))
    recipes = allocated_recipes(model, Allocation(rules=rules, bits_per_weight=(0.5, 3.5, 5.0)))
    assert [recipe.name for recipe in recipes] == ["allocated-3.5b", "allocated-5b"]
    weights = sum(layer.weight_shape[0] * layer.weight_shape[1] for layer in model.workload.weight_layers())
    errors = []
    for recipe, bits in zip(recipes, (3.5, 5.0), strict=True):
        compressed = compress(model, recipe)
        assert len(compressed.layers) == len(list(model.workload.weight_layers()))
        assert sum(packed_bytes(compressed).values()) * 8 <= bits * weights
        errors.append(sum(layer.relative_error**2 for layer in compressed.layers.values()))
    assert errors[0] > errors[1]
    with pytest.raises(ConfigError, match="no allocation meets bits_per_weight; the smallest rules need"):
        allocated_recipes(model, Allocation(rules=rules, bits_per_weight=(0.5,)))
