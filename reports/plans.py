"""Recipes as cost models see them: a plan a layer, from shapes alone or from an evaluation's details."""

from collections.abc import Mapping

from sparsefab.cost_models.estimate import LayerPlan
from sparsefab.formats import IntFormat, TensorSpec
from sparsefab.models.compress import CompressedModel, Recipe, assign
from sparsefab.workload import Workload

__all__ = ["plans_json", "plans_of", "shape_plans"]


def shape_plans(workload: Workload, recipe: Recipe) -> dict[str, LayerPlan]:
    """Apply a recipe to layers whose weights nobody has: block and unstructured patterns at their own density.

    Raises
    ------
    ConfigError                     If the recipe does not fit the workload.
    """
    plans: dict[str, LayerPlan] = {}
    known: dict[tuple[object, ...], LayerPlan] = {}  # equal plans are one object, which prices are found by
    assignment = assign(workload, recipe)
    for layer in workload.weight_layers():
        chosen = assignment.layers.get(layer.name)
        if chosen is None:
            continue
        key = *layer.weight_shape, chosen
        if key not in known:
            asymmetric = isinstance(chosen.weights, IntFormat) and not chosen.weights.signed
            spec = TensorSpec.of(
                *layer.weight_shape,
                chosen.weights,
                chosen.pattern,
                chosen.group_size,
                asymmetric=asymmetric,
                outliers=chosen.outliers,
            )
            known[key] = LayerPlan(spec=spec, activation=chosen.activations.name)
        plans[layer.name] = known[key]
    return plans


def plans_json(compressed: CompressedModel) -> dict[str, object]:
    """Describe a compressed model's layers as JSON values that `plans_of` reads."""
    return {
        name: {"spec": layer.tensor.spec.to_json(), "activation": layer.activations.name}
        for name, layer in compressed.layers.items()
    }


def plans_of(details: Mapping[str, object]) -> dict[str, LayerPlan]:
    """Read plans back from an evaluation's details."""
    plans = details["plans"]
    if not isinstance(plans, dict):
        raise TypeError("details['plans'] must be a table by layer name")
    known: dict[LayerPlan, LayerPlan] = {}
    result = {}
    for name, table in plans.items():
        plan = LayerPlan(spec=TensorSpec.from_json(table["spec"]), activation=table["activation"])
        result[name] = known.setdefault(plan, plan)
    return result
