"""Batched prices against one estimate a point: the same numbers, far faster."""

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from sparsefab.cost_models.batch import PriceSheet
from sparsefab.cost_models.estimate import KvCache, LayerPlan, Options, Support, estimate
from sparsefab.errors import TargetError
from sparsefab.formats.catalog import get_format
from sparsefab.formats.sparsity import parse_pattern
from sparsefab.formats.tensors import TensorSpec
from sparsefab.targets import CpuPeaks, Device, MeasuredCpu, load_device, measured_device
from sparsefab.workload import Phase, Workload
from sparsefab.workloads import load_workload

HOST = MeasuredCpu(
    name="box", date="2026-11-22", isa="avx512_vnni", cores=2, memory_bytes=2**34, last_level_cache_bytes=2**27,
    peaks=(CpuPeaks(threads=1, int8_op_per_s=0.76e12, fp32_op_per_s=176e9, memory_bytes_per_s=16e9),),
)  # fmt: skip
RECIPES = (("int8", "int8", None, "dense"), ("int4", "int8", 128, "dense"), ("int4sym", "int8", None, "2:4"),
           ("int8", "int8", None, "4x1@0.3"))  # fmt: skip


def recipe(workload: Workload, fmt: str, acts: str, group: int | None, pattern: str) -> dict[str, LayerPlan]:
    return {
        layer.name: LayerPlan(
            spec=TensorSpec.of(*layer.weight_shape, get_format(fmt), parse_pattern(pattern), group), activation=acts)
        for layer in workload.weight_layers()
    }  # fmt: skip


def target(name: str) -> tuple[Device, Options]:
    return (measured_device(HOST), Options(measured=HOST)) if name == "host" else (load_device(name), Options())


def mixed(recipes: list[dict[str, LayerPlan]], workload: Workload, row: np.ndarray) -> Mapping[str, LayerPlan]:
    return {
        layer.name: recipes[choice][layer.name]
        for layer, choice in zip(workload.weight_layers(), row.tolist(), strict=True)
    }


@pytest.mark.parametrize("name", ["u280", "h200", "a10", "host", "epyc_9654"])
@pytest.mark.parametrize("model", ["smollm2-135m", "mixtral-8x7b", "resnet-50"])
@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_a_batch_is_as_many_estimates(name: str, model: str, kind: str) -> None:
    workload, (device, options) = load_workload(model), target(name)
    options = replace(options, kv=KvCache.from_text("int4,group=64"))
    usable = [
        row for row in RECIPES
        if (device.kind != "gpu" or row[2] is None) and (workload.family != "cnn" or row[3] == "dense")
    ]  # fmt: skip
    recipes = [recipe(workload, *row) for row in usable]
    phase = Phase(kind=kind, batch=2, context=1 if workload.family == "cnn" else 200)  # type: ignore[arg-type]
    sheet = PriceSheet(workload, device, phase, options)
    choices = np.random.default_rng(0).integers(0, len(recipes), (4, len(sheet.layers)))
    totals = sheet.totals(recipes, choices)
    assert not totals.refused
    for point, row in enumerate(choices):
        plans = mixed(recipes, workload, row)
        one = estimate(workload, plans, device, phase, options)
        for figure, batch in ((one.latency_s, totals.latency_s), (one.energy_per_token_j, totals.energy_per_token_j),
                              (one.throughput_tokens_per_s, totals.throughput_tokens_per_s)):  # fmt: skip
            assert batch[point].tolist() == pytest.approx([figure.value, figure.low, figure.high], rel=1e-9)
        assert totals.memory_bytes[point] == pytest.approx(one.memory_bytes.value, rel=1e-12)
        assert totals.traffic_bytes[point] == pytest.approx(one.traffic_bytes, rel=1e-9)
        again = sheet.estimate(plans)
        assert again.latency_s.value == pytest.approx(one.latency_s.value, rel=1e-9)
        assert again.terms_s == pytest.approx({k: v for k, v in one.terms_s.items() if v}, rel=1e-9)
        assert (again.provenance, again.resources) == (one.provenance, one.resources)
        if device.kind != "cpu":
            assert again.notes == one.notes
        price = one.price_per_million_tokens_usd
        if price is not None and totals.price_per_million_tokens_usd is not None:
            assert totals.price_per_million_tokens_usd[point, 0] == pytest.approx(price.value)
            assert again.price_per_million_tokens_usd is not None


def test_weights_in_the_cache_are_seen_from_the_whole_model() -> None:
    model, options = load_workload("smollm2-135m"), Options(measured=HOST)
    phase = Phase(kind="decode")
    plans = recipe(model, "int8", "int8", None, "4x1@0.3")  # 81 MB in a cache of 134 MB; dense int8 would not fit
    for chosen in (plans, recipe(model, "int8", "int8", None, "dense")):
        one = estimate(model, chosen, measured_device(HOST), phase, options)
        sheet = PriceSheet(model, measured_device(HOST), phase, options)
        assert sheet.estimate(chosen).latency_s.low == pytest.approx(one.latency_s.low, rel=1e-9)


def test_points_that_a_target_refuses() -> None:
    model, board = load_workload("smollm2-135m"), load_device("u280")
    recipes: list[Mapping[str, LayerPlan]] = [recipe(model, "int8", "int8", None, "dense"), {}]
    sheet = PriceSheet(model, board, Phase(kind="decode"))
    totals = sheet.totals(recipes)
    assert set(totals.refused) == {1}
    assert "float weights are absent" in totals.refused[1]
    assert np.isfinite(totals.latency_s[0]).all()
    assert np.isnan(totals.latency_s[1]).all()
    with pytest.raises(TargetError, match=r"layer layers\.0\.self_attn\.q_proj: float weights"):
        sheet.estimate({})
    assert sheet.price(sheet.kinds.group(recipes[0]))[1] is Support.NATIVE


def test_bad_choices() -> None:
    model = load_workload("smollm2-135m")
    sheet = PriceSheet(model, load_device("h200"), Phase(kind="decode"))
    with pytest.raises(ValueError, match="choices must be of shape"):
        sheet.totals([{}], np.zeros((1, 3), np.intp))
    with pytest.raises(ValueError, match="choices must lie in 0 to 0"):
        sheet.totals([{}], np.ones((1, len(sheet.layers)), np.intp))
    with pytest.raises(ValueError, match="'nowhere' is none"):
        sheet.estimate({"nowhere": LayerPlan()})


def test_a_core_prices_fifty_thousand_layers_a_second() -> None:
    # some two million are usual; the sheet's own prices are counted in
    model = load_workload("llama2-7b")
    recipes = [recipe(model, *row) for row in RECIPES]
    choices = np.random.default_rng(0).integers(0, len(recipes), (500, len(list(model.weight_layers()))))
    begin = time.process_time()
    totals = PriceSheet(model, load_device("u280"), Phase(kind="decode")).totals(recipes, choices)
    assert choices.size / (time.process_time() - begin) > 50_000
    assert np.isfinite(totals.latency_s).all()
