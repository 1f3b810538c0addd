"""A rule for each layer: the least error within a number of bytes, as a knapsack solved by dynamic programming.

The error of a layer under a rule is the squared relative error of its weights; errors of layers add. That is a start,
not the loss of the model: the recipes it gives are evaluated like all others.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ConfigError
from sparsefab.formats import storage_layout
from sparsefab.models.compress import Recipe, Rule, assign, compress
from sparsefab.models.model import Model
from sparsefab.reports.space import Allocation

__all__ = ["allocated_recipes", "knapsack"]

_STEPS = 4096  # of the budget; a choice's bytes are rounded up to them, so that the budget holds


def knapsack(errors: NDArray[np.float64], sizes: NDArray[np.float64], budget: float) -> NDArray[np.int64] | None:
    """Choose one column a row so that the sizes' sum keeps the budget and the errors' sum is least.

    Parameters
    ----------
    errors, sizes : float64[rows, choices]   A choice with a NaN is not to be had.
    budget : float               Of the sizes' sum; each size is rounded up to a 4096th of it.

    Returns
    -------
    int64[rows] | None           None if nothing keeps the budget.
    """
    if errors.shape != sizes.shape or errors.ndim != 2:
        raise ValueError(f"errors and sizes must be [rows, choices] alike, not {errors.shape} and {sizes.shape}")
    rows, choices = errors.shape
    usable = ~(np.isnan(errors) | np.isnan(sizes))
    steps = np.where(usable, np.ceil(np.nan_to_num(sizes) / budget * _STEPS - 1e-9), _STEPS + 1).astype(np.int64)
    best = np.zeros(_STEPS + 1)  # least error of the rows so far within each number of steps
    taken = np.zeros((rows, _STEPS + 1), np.int64)
    for row in range(rows):
        options = np.full((choices, _STEPS + 1), np.inf)
        for choice in range(choices):
            if (step := steps[row, choice]) <= _STEPS:
                options[choice, step:] = best[: _STEPS + 1 - step] + errors[row, choice]
        taken[row] = options.argmin(axis=0)
        best = options.min(axis=0)
    if not np.isfinite(best[_STEPS]):
        return None
    result = np.zeros(rows, np.int64)
    left = _STEPS
    for row in reversed(range(rows)):
        result[row] = taken[row, left]
        left -= int(steps[row, result[row]])
    return result


def allocated_recipes(model: Model, allocation: Allocation) -> list[Recipe]:
    """One recipe a size that can be met, its rules naming the layers they are for.

    Raises
    ------
    ConfigError                  If no size can be met.
    """
    names = [layer.name for layer in model.workload.weight_layers()]
    errors, sizes = _measured(model, names, allocation.rules)
    weights = sum(model.weights[name].size for name in names)
    found = []
    for bits in allocation.bits_per_weight:
        chosen = knapsack(errors, sizes, bits * weights / 8)
        if chosen is not None:
            found.append(Recipe(name=f"allocated-{bits:g}b", rules=_rules(names, chosen, allocation.rules)))
    if not found:
        least = float(np.nanmin(sizes, axis=1).sum()) * 8 / weights
        raise ConfigError(f"no allocation meets bits_per_weight; the smallest rules need {least:.3g}")
    return found


def _measured(
    model: Model, names: Sequence[str], rules: Sequence[Rule]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Squared relative error and stored bytes of every layer under every rule, NaN where a rule does not fit."""
    errors, sizes = np.full((2, len(names), len(rules)), np.nan)
    for column, rule in enumerate(rules):
        fitting = [layer.name for layer in model.workload.weight_layers() if _fits(model, layer.name, rule)]
        if not fitting:
            continue
        compressed = compress(model, Recipe(name="candidate", rules=(replace(rule, layers=tuple(fitting)),)))
        for name, layer in compressed.layers.items():
            spec = layer.tensor.spec
            errors[names.index(name), column] = layer.relative_error**2
            sizes[names.index(name), column] = sum(storage_layout(spec).section_bytes(spec).values())
    return errors, sizes


def _fits(model: Model, name: str, rule: Rule) -> bool:
    alone = replace(model.workload, layers=tuple(x for x in model.workload.weight_layers() if x.name == name))
    try:
        return rule.weights != "float" and bool(
            assign(alone, Recipe(name="candidate", rules=(replace(rule, layers=(name,)),))).layers
        )
    except ConfigError:
        return False


def _rules(names: Sequence[str], chosen: NDArray[np.int64], rules: Sequence[Rule]) -> tuple[Rule, ...]:
    result = []
    for column, rule in enumerate(rules):
        layers = tuple(name for name, choice in zip(names, chosen, strict=True) if choice == column)
        if layers:
            result.append(replace(rule, layers=layers))
    return tuple(result)
