"""Weight layers that differ in nothing but their names, so that each kind is priced once and multiplied.

A decoder of 32 equal blocks has five kinds of weight layers; under a recipe of a few rules they make a handful of
(kind, plan) pairs, which is what a sheet of prices looks up instead of every layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from sparsefab.cost_models.result import LayerPlan
from sparsefab.workload import Convolution, Linear, Workload

__all__ = ["Group", "LayerKinds", "layer_kinds"]

_FLOAT = LayerPlan()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Layers of one kind under one plan: how many, and the first one's name for messages."""

    kind: int
    plan: LayerPlan
    layers: int
    first: str


class LayerKinds:
    """The kinds of a workload's weight layers.

    Attributes
    ----------
    layers : tuple                  Weight layers, in the workload's order.
    of : tuple[int, ...]            The kind of each.
    examples : tuple                The first layer of each kind.
    """

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.layers: tuple[Linear | Convolution, ...] = tuple(workload.weight_layers())
        numbers: dict[Linear | Convolution, int] = {}
        self.of = tuple(numbers.setdefault(replace(layer, name=""), len(numbers)) for layer in self.layers)
        self.examples = tuple(self.layers[self.of.index(number)] for number in range(len(numbers)))
        self._names = {layer.name for layer in self.layers}

    def group(self, plans: Mapping[str, LayerPlan]) -> Sequence[Group]:
        """Group the layers under their plans, in the order of each group's first layer; a layer without one is float.

        Raises
        ------
        ValueError                  If a plan names no weight layer.
        """
        self.check(plans)
        counts: dict[tuple[int, int], int] = {}
        first: dict[tuple[int, int], tuple[str, LayerPlan]] = {}
        for layer, kind in zip(self.layers, self.of, strict=True):
            plan = plans.get(layer.name, _FLOAT)
            key = kind, id(plan)  # plans hash slowly, and equal ones are mostly one object
            counts[key] = counts.get(key, 0) + 1
            first.setdefault(key, (layer.name, plan))
        return tuple(
            Group(kind=key[0], plan=first[key][1], layers=count, first=first[key][0]) for key, count in counts.items()
        )

    def check(self, plans: Mapping[str, LayerPlan]) -> None:
        """Raise ValueError if a plan names no weight layer."""
        strangers = sorted(plans.keys() - self._names)
        if strangers:
            raise ValueError(f"plans must name weight layers of {self.workload.name}; {strangers[0]!r} is none")


@lru_cache(maxsize=16)
def layer_kinds(workload: Workload) -> LayerKinds:
    """Return the kinds of a workload's layers, found once: every sheet and recipe asks for them."""
    return LayerKinds(workload)
