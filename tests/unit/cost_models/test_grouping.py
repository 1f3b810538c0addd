"""Layers grouped by kind and plan: every layer once, equal ones together, and nothing that differs."""

import pytest

from sparsefab.cost_models.estimate import LayerPlan
from sparsefab.cost_models.grouping import LayerKinds, layer_kinds
from sparsefab.formats.catalog import get_format
from sparsefab.formats.tensors import TensorSpec
from sparsefab.workloads import load_workload


def test_a_decoder_has_a_handful_of_kinds() -> None:
    kinds = layer_kinds(load_workload("llama2-7b"))
    # square projections, gate and up, down, the head: by hand from the shapes
    assert [layer.weight_shape for layer in kinds.examples] == [
        (4096, 4096), (11008, 4096), (4096, 11008), (32000, 4096)
    ]  # fmt: skip
    assert [kinds.of.count(kind) for kind in range(4)] == [4 * 32, 2 * 32, 32, 1]
    assert layer_kinds(load_workload("llama2-7b")) is kinds


@pytest.mark.parametrize("model", ["smollm2-135m", "mixtral-8x7b", "resnet-50", "bert-base"])
def test_groups_hold_every_layer_once(model: str) -> None:
    kinds = LayerKinds(load_workload(model))
    spec = {
        layer.weight_shape: LayerPlan(spec=TensorSpec.of(*layer.weight_shape, get_format("int4")), activation="int8")
        for layer in kinds.layers
    }
    plans = {layer.name: spec[layer.weight_shape] for layer in kinds.layers[::2]}
    groups = kinds.group(plans)
    assert sum(group.layers for group in groups) == len(kinds.layers)
    assert sum(group.layers for group in groups if group.plan.spec is not None) == len(plans)
    for group in groups:
        names = [
            layer.name for layer, kind in zip(kinds.layers, kinds.of, strict=True)
            if kind == group.kind and plans.get(layer.name, LayerPlan()) == group.plan
        ]  # fmt: skip
        assert (names[0], len(names)) == (group.first, group.layers)


def test_a_plan_for_no_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="'nowhere' is none"):
        LayerKinds(load_workload("smollm2-135m")).group({"nowhere": LayerPlan()})
