"""Measuring a GPU, with a made-up device in its place; fitting, and the file's way through estimate and validate."""

import importlib.util
import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sparsefab.cli.main import main
from sparsefab.cost_models.attention import cache_times
from sparsefab.cost_models.calibrate import write_measured
from sparsefab.cost_models.cuda import AttentionStep, Calls, Cuda, Product, open_cuda
from sparsefab.cost_models.measure_gpu import (
    guess_device,
    measure_attention,
    measure_power,
    measure_products,
    plan_attention,
    plan_products,
)
from sparsefab.cost_models.power_fit import fit_power, power_samples
from sparsefab.cost_models.roofline import data_sheet_times
from sparsefab.cost_models.user_anchors import load_user_anchors
from sparsefab.errors import ConfigError, TargetError
from sparsefab.targets import load_device

L4 = load_device("l4")


def true_seconds(product: Product, kernel: str = "fp16") -> float:
    """A made-up L4: 6 us a launch, 80 % of its bandwidth, 60 % of its peak."""
    shape = (np.array([float(side)]) for side in (product.m, product.n, product.k))
    memory_s, compute_s = data_sheet_times(L4, kernel, *shape)
    return float(6e-6 + max(memory_s[0] / 0.8, compute_s[0] / 0.6))


def true_attention(step: AttentionStep) -> float:
    """4 us a launch, 75 % of its bandwidth."""
    row = [step.batch, step.context, 0, step.heads, step.kv_heads, step.head_size, 2.0]
    return float(4e-6 + cache_times(L4, np.array([row]))[0][0] / 0.75)


def true_watts(memory: float, compute: float) -> float:
    return min(72.0, 15.0 + 40.0 * memory + 70.0 * compute)


def fake_cuda(turns: list[int] | None = None, bad: set[int] = frozenset()) -> Cuda:  # type: ignore[assignment]
    random = np.random.default_rng(0)

    def calls(item: Product | AttentionStep) -> Calls:
        if isinstance(item, Product) and item.m in bad:
            raise RuntimeError("out of memory")
        return Calls(run=lambda: item, count=4)

    def seconds(made: Calls) -> float:
        item: Any = made.run()
        return true_seconds(item) if isinstance(item, Product) else true_attention(item)

    def timer(made: Calls, count: int) -> list[float]:
        if turns is not None:
            turns.append(count)
        return [seconds(made) * float(np.exp(0.03 * random.normal())) for _ in range(count)]

    def load(made: Calls | None, span: float) -> tuple[float, float]:
        if made is None:
            return 0.0, true_watts(0.0, 0.0)
        product: Any = made.run()
        uses = data_sheet_times(L4, "fp16", *(np.array([float(side)]) for side in (product.m, product.n, product.k)))
        time = seconds(made)
        return time, true_watts(float(uses[0][0]) / time, float(uses[1][0]) / time)

    return Cuda(name="NVIDIA L4", versions="made up", kernels={"fp16": calls, "nothing": calls}, timer=timer,
                attention=calls, load=load)  # fmt: skip


@pytest.fixture(scope="module")
def anchors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, cuda = tmp_path_factory.mktemp("anchors") / "l4.json", fake_cuda()
    products = pd.DataFrame(measure_products(cuda, L4, plan_products(40)))
    steps = pd.DataFrame(measure_attention(cuda, L4, plan_attention(112)))
    power = measure_power(cuda, L4)
    write_measured(path, products, steps, power, source="made up", licence="none", date="2026-11-22")
    return path


def test_every_product_is_timed() -> None:
    turns: list[int] = []
    rows = measure_products(fake_cuda(turns), L4, plan_products(3)[:5])
    assert len(rows) == 5
    assert turns == [7] * 5
    assert {row["dtype"] for row in rows} == {"fp16"}  # the device's file knows no kernel 'nothing'
    assert rows[0]["latency_ms"] == pytest.approx(true_seconds(plan_products(3)[0]) * 1e3, rel=0.1)
    cuda = fake_cuda()
    cuda = replace(cuda, kernels={"nothing": cuda.kernels["nothing"]})
    with pytest.raises(TargetError, match="none of the kernels that can be timed here: nothing"):
        measure_products(cuda, L4, plan_products(1))


def test_a_product_that_fails_is_left_out_and_many_are_an_error(caplog: pytest.LogCaptureFixture) -> None:
    products = plan_products(10)
    left = {products[0].m}
    rows = measure_products(fake_cuda(bad=left), L4, products)
    assert len(rows) == sum(product.m not in left for product in products)
    assert "out of memory" in caplog.text
    with pytest.raises(TargetError, match=r"could not be timed, the last: out of memory"):
        measure_products(fake_cuda(bad={product.m for product in products}), L4, products)


def test_a_machine_without_attention_or_meter_measures_the_rest() -> None:
    cuda = replace(fake_cuda(), attention=None, load=None)
    assert measure_attention(cuda, L4, plan_attention(3)) == []
    assert measure_power(cuda, L4) == []


def test_the_terms_of_a_made_up_board_are_found() -> None:
    samples = power_samples(measure_power(fake_cuda(), L4), L4)
    fit = fit_power(samples, L4.power.limit_w.value)
    assert (fit.static_w, fit.memory_w, fit.compute_w) == pytest.approx((15.0, 40.0, 70.0), rel=0.05)
    assert fit.mean_error < 0.02
    capped = samples[samples[:, 2] >= 71.9]
    assert len(capped)  # the loads reach the limit, which says only that a term is large enough


def test_the_plan_is_the_same_for_a_seed() -> None:
    assert plan_products(5, 1) == plan_products(5, 1) != plan_products(5, 2)
    assert len({(product.n, product.k) for product in plan_products(30)}) == 30


def test_devices_by_the_name_they_give() -> None:
    for name, expected in (("NVIDIA L4", "l4"), ("NVIDIA L40S", "l40s"), ("NVIDIA H200", "h200"),
                           ("NVIDIA GeForce RTX 3090", "rtx3090"), ("NVIDIA A100-SXM4-80GB", "a100"),
                           ("NVIDIA GB200", "gb200")):  # fmt: skip
        assert guess_device(name).name == expected
    with pytest.raises(TargetError, match="--target FILE"):
        guess_device("NVIDIA T4")


def test_a_fitted_file_has_the_shipped_form_and_is_judged(anchors: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = json.loads(anchors.read_text())["pairs"]
    assert [(pair["device"], pair["kernel"]) for pair in pairs] == [("l4", "fp16"), ("l4", "attention")]
    assert main(["validate", "--measured", str(anchors), "--json"]) == 0
    rows = {(row["name"], row["metric"]): row for row in json.loads(capsys.readouterr().out)["rows"]}
    for name in ("l4 fp16", "l4 attention"):
        assert rows[name, "mean error"]["value"] < 0.05
        assert rows[name, "mean error"]["samples"] > 10
    assert rows["l4 power, each load left out", "mean error"]["value"] < 0.05


def test_estimates_take_the_users_file(anchors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = load_user_anchors(anchors)
    value = {}
    for label, extra in (("shipped", []), ("own", ["--measured", str(anchors)])):
        command = ["estimate", "mistral-7b", "--target", "l4", "--json", "--cache-dir", str(tmp_path), *extra]
        assert main(command) == 0
        value[label] = json.loads(capsys.readouterr().out)
    assert value["own"]["latency_s"] != value["shipped"]["latency_s"]
    assert fit.citation in value["own"]["sources"]
    own = sum(true_seconds(Product(m=1, n=n, k=k)) * count for n, k, count in (
        (4096, 4096, 64), (1024, 4096, 64), (14336, 4096, 64), (4096, 14336, 32), (32000, 4096, 1)))  # fmt: skip
    # without the sides beyond what was timed, the made-up device's own times
    assert value["own"]["latency_s"]["value"] == pytest.approx(own, rel=0.15)


def test_a_table_is_fitted_on_the_way(tmp_path: Path) -> None:
    rows = measure_products(fake_cuda(), L4, plan_products(20))
    pd.DataFrame(rows).drop(columns="source").to_csv(tmp_path / "mine.csv", index=False)
    fit = load_user_anchors(tmp_path / "mine.csv").gemm["l4", "fp16"]
    product = Product(m=64, n=4096, k=4096)
    shape = [np.array([float(side)]) for side in (product.m, product.n, product.k)]
    assert fit.seconds(*shape, *data_sheet_times(L4, "fp16", *shape))[0][0] == pytest.approx(
        true_seconds(product), rel=0.1
    )


def test_too_few_products_are_refused(tmp_path: Path) -> None:
    table = pd.DataFrame(measure_products(fake_cuda(), L4, plan_products(2)))
    table.to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(ConfigError, match="too few to fit"):
        load_user_anchors(tmp_path / "few.csv")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_user_anchors(tmp_path / "none.json")


def test_without_torch_or_a_device(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["bench", "gpu"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install torch" in error
    none = SimpleNamespace(__version__="2.9", cuda=SimpleNamespace(is_available=lambda: False))
    monkeypatch.setitem(sys.modules, "torch", none)
    with pytest.raises(TargetError, match="sees none"):
        open_cuda()


def test_a_torch_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of torch: shapes of the operands, and which kernels a device lacks."""
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    class Tensor:
        def __init__(self, *shape: int) -> None:
            self.shape = shape

        def t(self) -> "Tensor":
            return Tensor(*reversed(self.shape))

    def matmul(x: Tensor, w: Tensor) -> None:
        shapes.append((x.shape, w.shape))

    def lacks(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel")

    replays = 0

    class Graph:
        def replay(self) -> None:
            nonlocal replays
            replays += 1

    class Stream:
        def wait_stream(self, other: object) -> None: ...

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None: ...

        def elapsed_time(self, other: "Event") -> float:
            return 4.0

    torch = SimpleNamespace(
        __version__="2.9", version=SimpleNamespace(cuda="13"), bfloat16="bf16", int8="int8", _int_mm=lacks,
        randn=lambda *shape, **_: Tensor(*shape), randint=lambda low, high, shape, **_: Tensor(*shape), matmul=matmul,
        cuda=SimpleNamespace(is_available=lambda: True, synchronize=lambda: None, Event=Event, Stream=Stream,
                             CUDAGraph=Graph, graph=lambda _: nullcontext(), stream=lambda _: nullcontext(),
                             current_stream=Stream, get_device_name=lambda: "NVIDIA L4"),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    cuda = open_cuda()
    assert set(cuda.kernels) == {"fp16"}
    assert cuda.load is None
    calls = cuda.kernels["fp16"](Product(m=3, n=512, k=256))
    assert calls.count == 256  # copies that exceed the cache, as far as so many do
    assert cuda.timer(calls, 4) == pytest.approx([4e-3 / 256] * 4)
    assert shapes[-1] == ((3, 256), (256, 512))
    assert replays == 2 + 1 + 4  # the probe's, one to warm up, four turns
    assert cuda.missing["sq"] == "no such kernel"


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_the_real_torch_without_a_device() -> None:
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(TargetError, match="CUDA device"):
            open_cuda()
