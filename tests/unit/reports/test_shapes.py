"""Models known by shape alone: bytes against packed tensors, prices against single estimates, resuming."""

from pathlib import Path

import numpy as np
import pytest

from sparsefab.errors import ConfigError, TargetError
from sparsefab.formats import pack, storage_layout
from sparsefab.models.compress import Rule, compress, find_recipe
from sparsefab.reports.objectives import Limits
from sparsefab.reports.pareto import standings
from sparsefab.reports.points import Evaluation, Point
from sparsefab.reports.shapes import ShapeEvaluator, shape_jobs
from sparsefab.reports.space import Allocation, Space
from sparsefab.session import Explored, Session

TARGETS = ("u280", "h200")


def explored(out: Path, **change: object) -> Explored:
    arguments: dict[str, object] = {"recipes": ["w8", "w4g32", "fp8"], "targets": TARGETS, "context": 512} | change
    return Session(out / "cache").explore("llama2-7b", out=out, **arguments)  # type: ignore[arg-type]


def test_a_sweep_by_shape_prices_as_estimate_does(tmp_path: Path) -> None:
    found = explored(tmp_path)
    assert len(found.points) == 3 * 2 * 2
    assert found.run.objectives == ("bits_per_weight", "latency_s")
    session = Session(tmp_path / "cache")
    for point in found.points:
        assert point.metric is None
        if point.status == "absent":
            with pytest.raises(TargetError) as refused:
                session.estimate("llama2-7b", point.recipe, point.target, context=512)
            assert point.reason == str(refused.value)
            assert (point.recipe, point.latency_s) == ("fp8", None)
            continue
        decode, prefill = session.estimate("llama2-7b", point.recipe, point.target, context=512)
        single = decode if point.phase == "decode" else prefill
        assert single is not None
        assert point.latency_s is not None
        assert point.latency_s.value == pytest.approx(single.latency_s.value)
        assert point.memory_bytes is not None
        assert point.memory_bytes.value == pytest.approx(single.memory_bytes.value)
    assert "nothing is recommended" in found.files["summary.md"].read_text()
    assert found.best_on("fpga") is not None
    assert (tmp_path / found.run.verilog[""]).is_file()


def test_caches_are_settings_with_bytes_and_extra_work(tmp_path: Path) -> None:
    space = Space(recipes=("w8",), targets=TARGETS, context=(4096,), kv=("fp16", "int4,group=64", "gear"))
    found = explored(tmp_path, recipes=[], space=space)
    assert len(found.points) == 2 * 2 * 3
    assert all(standing.rank == "front" for standing in standings(found.points, found.run.objectives))
    decode = {(p.target, p.kv): p for p in found.points if p.phase == "decode"}
    values, tokens = 2 * 32 * 4096, 4096
    for target in TARGETS:
        plain, packed, gear = (decode[target, kv] for kv in space.kv)
        assert plain.terms["kv_cache_bytes"] == 2.0 * values * tokens
        assert packed.terms["kv_cache_bytes"] == pytest.approx((0.5 + 4 / 64) * values * tokens)
        assert plain.memory_bytes is not None
        assert packed.memory_bytes is not None
        assert plain.memory_bytes.value - packed.memory_bytes.value == pytest.approx((1.5 - 4 / 64) * values * tokens)
        assert (packed.terms["kv_extra_operations"], plain.provenance) == (0.0, decode[target, "fp16"].provenance)
        # a query and a value a head: rank 4 over the tokens and the head, and 2 % of the values apart
        extra = 2 * 32 * 4 * (tokens + 128) + 2 * 32 * 0.02 * tokens * 128
        assert gear.terms["kv_extra_operations"] == pytest.approx(2 * 32 * extra)
        single, _ = Session(tmp_path / "cache").estimate("llama2-7b", "w8", target, context=4096, kv="gear")
        assert gear.latency_s is not None
        assert gear.latency_s.value == pytest.approx(single.latency_s.value)
    assert "cache gear" in found.files["summary.md"].read_text()
    assert found.run.settings["kv"] == "fp16, int4,group=64, gear"


def test_a_second_sweep_prices_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = explored(tmp_path, recipes=["w8"], targets=["a100"])
    monkeypatch.setattr("sparsefab.reports.pricer.PriceSheet", None)
    again = explored(tmp_path, recipes=["w8"], targets=["a100"])
    assert again.points == first.points
    assert {point.status for point in again.points} == {"ok"}


def test_bytes_by_shape_are_those_of_packed_weights() -> None:
    session = Session()
    model = session.source("char-llama").load()
    for name in ("w8", "w4g32", "w8-2of4"):
        recipe = find_recipe(name)
        (job,) = shape_jobs("char-llama", model.workload, [(recipe.name, recipe.text)], 0)
        accuracy = ShapeEvaluator(model.workload)(job)
        layers = compress(model, recipe).layers
        packed = sum(pack(layer.tensor, storage_layout(layer.tensor.spec)).nbytes for layer in layers.values())
        assert accuracy.weight_bytes == packed
        assert accuracy.metric is None
        assert not Evaluation(job=job, accuracy=accuracy).failed


def test_what_only_weights_tell_is_refused_by_name(tmp_path: Path) -> None:
    for space, what in (
        (Space(recipes=("w8",), objectives=("loss", "latency_s")), "loss"),
        (Space(recipes=("w8",), limits=Limits(at_most={"loss_fraction": 0.1})), "loss_fraction"),
        (
            Space(allocation=Allocation(rules=(Rule(), Rule(weights="int4")), bits_per_weight=(4.0,))),
            "an allocation",
        ),
    ):
        with pytest.raises(ConfigError, match=f"known by shape alone, so {what} cannot be had"):
            explored(tmp_path, recipes=None, space=space)


def test_limits_keep_points_off_the_front_and_an_impossible_one_is_an_error(tmp_path: Path) -> None:
    targets = ["h200", "a100"]
    every = explored(tmp_path, recipes=["w8", "w4g32"], targets=targets)
    slow = np.median([p.latency_s.value for p in every.points if p.latency_s is not None])
    limited = Space(recipes=("w8", "w4g32"), limits=Limits(at_most={"latency_s": float(slow)}, fits=True))
    found = explored(tmp_path, recipes=None, space=limited, targets=targets)

    def on_front(result: Explored) -> set[str]:
        from sparsefab.reports.pareto import standings

        ranked = standings(result.points, result.run.objectives, result.run.limits)
        return {place.point.key for place in ranked if place.on_front}

    assert on_front(found) < on_front(every)
    assert "outside" in found.files["report.html"].read_text()
    impossible = Space(recipes=("w8",), limits=Limits(at_most={"latency_s": 1e-9}))
    with pytest.raises(ConfigError, match="no point of the space keeps the limits"):
        explored(tmp_path / "none", recipes=None, space=impossible, targets=["a100"])
    assert (tmp_path / "none" / "report.html").is_file()


def test_memory_that_does_not_fit_is_a_broken_limit(tmp_path: Path) -> None:
    """LLaMA2-7B at 8 bits is 6.5 GB of weights: with a cache of 16 x 4096 tokens beyond the 8 GB of a U280."""
    space = Space(recipes=("w8",), targets=TARGETS, batch=(1, 16), context=(4096,), limits=Limits(fits=True))
    found = explored(tmp_path, recipes=None, space=space)

    def broken(point: Point) -> tuple[str, ...]:
        return found.run.limits.broken(point)

    assert {broken(p) for p in found.points if (p.target, p.batch) == ("u280", 16)} == {("fits",)}
    assert {broken(p) for p in found.points if p.target == "h200"} == {()}
