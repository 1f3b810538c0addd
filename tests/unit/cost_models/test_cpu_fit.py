"""The fit of a machine's own kernels: on a machine made up here, whose times are known, and through the estimates."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sparsefab.cost_models.cpu_fit import (
    LEAST_MATRICES,
    SECONDS,
    cpu_fits,
    fit_samples,
    matrices_of,
    padded_tokens,
    samples_table,
)
from sparsefab.cost_models.estimate import LayerPlan, Options, Provenance, estimate
from sparsefab.cost_models.validate_cpu import validate_cpu
from sparsefab.formats.catalog import get_format
from sparsefab.formats.sparsity import parse_pattern
from sparsefab.formats.tensors import TensorSpec
from sparsefab.kernels_cpu.features import Level
from sparsefab.kernels_cpu.spmm import Product
from sparsefab.targets import CpuPeaks, KernelSample, MeasuredCpu, measured_device
from sparsefab.workload import Phase
from sparsefab.workloads import load_workload

ISA = "avx512-vnni"
PEAKS = CpuPeaks(threads=1, int8_op_per_s=1e12, fp32_op_per_s=2e11, memory_bytes_per_s=2e10)


def seconds(kernel: str, rows: int, columns: int, tokens: int, density: float) -> float:
    """A made-up machine: 5 us a call, 80 % of the peak, a third slower where rows are short."""
    padded = padded_tokens(kernel, np.array([float(tokens)]), ISA)[0]
    work = 2.0 * rows * columns * density * padded / 0.8e12
    return float(5e-6 + work * (1.0 + 0.33 * np.exp(-columns / 800.0)))


def machine(matrices: int, kernels: tuple[str, ...] = ("dense_int8", "block_4x1"), noise: float = 0.02) -> MeasuredCpu:
    random = np.random.default_rng(1)
    samples = []
    for kernel in kernels:
        for _ in range(matrices):
            rows, columns = (int(side) for side in random.integers(4, 65, 2) * 64)
            density = 1.0 if kernel == "dense_int8" else float(random.choice([0.1, 0.2, 0.4]))
            for tokens in (1, 8, 32, 64, 100, 256):
                value = seconds(kernel, rows, columns, tokens, density) * float(np.exp(noise * random.normal()))
                samples.append(KernelSample(kernel=kernel, rows=rows, columns=columns, tokens=tokens, density=density,
                                            threads=1, seconds=value))  # type: ignore[arg-type]  # fmt: skip
    return MeasuredCpu(name="made up", date="2026-11-22", isa=ISA, cores=1, memory_bytes=2**34,
                       peaks=(PEAKS,), kernels=tuple(samples), last_level_cache_bytes=2**28)  # fmt: skip


def test_panels() -> None:
    tokens = np.array([1.0, 2.0, 4.0, 16.0, 17.0, 32.0, 33.0, 64.0, 65.0])
    assert padded_tokens("dense_int8", tokens, ISA).tolist() == [1, 2, 16, 16, 32, 32, 64, 64, 128]
    assert padded_tokens("dense_int8", tokens, "avx512-amx").tolist() == [1, 16, 16, 16, 32, 32, 64, 64, 128]
    assert padded_tokens("block_4x1", tokens, ISA).tolist() == [1, 16, 16, 16, 32, 32, 64, 64, 128]
    assert padded_tokens("dense_int8", tokens, "avx2").tolist() == [1, 2, 64, 64, 64, 64, 64, 64, 128]
    assert padded_tokens("block_4x1", tokens, "avx2").tolist() == [1, 32, 32, 32, 32, 32, 64, 64, 128]
    assert padded_tokens("block_4x1", tokens, "portable").tolist() == [32, 32, 32, 32, 32, 32, 64, 64, 128]
    assert padded_tokens("dequantize_int8", tokens, "avx2").tolist() == tokens.tolist()


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize(("kernel", "aligned"), [("dense_int8", True), ("block_4x1", False)])
def test_panels_are_those_of_the_kernels(level: Level, kernel: str, aligned: bool) -> None:
    product: Any = SimpleNamespace(weights=SimpleNamespace(aligned=aligned), level=level, _interleaved=False)
    for tokens in (1, 2, 3, 4, 16, 17, 32, 33, 64, 65, 200):
        width = Product.width(product, tokens)
        expected = -(-tokens // width) * width
        assert padded_tokens(kernel, np.array([float(tokens)]), level.value).tolist() == [expected], tokens


def test_a_made_up_machine_is_recovered() -> None:
    measured = machine(28)
    rows = {(row.name, row.metric): row for row in validate_cpu(measured)}
    for kernel in ("dense_int8", "block_4x1"):
        error = rows[f"this machine, {kernel}, 1 thread", "mean error"]
        assert error.value is not None
        assert error.samples == 42
        assert error.value < 0.05  # the noise alone is 1.6 %
        assert error.passed
    # one product by hand, on shapes that were not timed
    fit = cpu_fits(measured)["dense_int8"]
    value, low, high = fit.seconds(np.array([[1000.0, 900.0, 64.0, 1.0]]), PEAKS)
    assert value[0] == pytest.approx(seconds("dense_int8", 1000, 900, 64, 1.0), rel=0.06)
    assert low[0] < value[0] < high[0]


def test_bounds_hold_on_matrices_left_out_fit_after_fit() -> None:
    """Matrices that are slower or faster as a whole, as real ones are, by 4 %; samples scatter by 2 %."""
    table, inside = samples_table(machine(24, ("block_4x1",)).kernels), []
    matrix = matrices_of(table)
    for seed in range(8):
        random = np.random.default_rng(seed)
        made = table.copy()
        made[:, SECONDS] *= np.exp(0.04 * random.normal(size=matrix.max() + 1))[matrix]
        left = np.isin(matrix, random.permutation(matrix.max() + 1)[:6])
        fit = fit_samples("block_4x1", made[~left], PEAKS, ISA)
        value, low, high = fit.seconds(made[left, :SECONDS], PEAKS)
        assert np.abs(value / made[left, SECONDS] - 1.0).mean() < 0.10
        inside.append(float(((made[left, SECONDS] >= low) & (made[left, SECONDS] <= high)).mean()))
    assert min(inside) >= 0.75
    assert 0.87 <= np.mean(inside) <= 0.99


def test_beyond_what_was_timed_the_time_grows_with_the_work() -> None:
    fit = cpu_fits(machine(16))["dense_int8"]
    times = fit.seconds(np.array([[4096.0, 4096.0, 256.0, 1.0], [4096.0, 4096.0, 2560.0, 1.0]]), PEAKS)[0]
    assert times[1] / times[0] == pytest.approx(10.0, rel=0.02)


def test_twice_the_peaks_take_half_the_work() -> None:
    measured = machine(16)
    twice = replace(PEAKS, threads=2, int8_op_per_s=2e12, memory_bytes_per_s=4e10)
    table = np.array([[4096.0, 2048.0, 256.0, 1.0]])
    fit = cpu_fits(measured)["dense_int8"]
    assert fit.seconds(table, PEAKS)[0][0] / fit.seconds(table, twice)[0][0] == pytest.approx(2.0, rel=0.02)


def test_estimates_use_the_timed_kernels() -> None:
    measured, model = machine(16), load_workload("smollm2-135m")
    plans = {
        layer.name: LayerPlan(
            spec=TensorSpec.of(*layer.weight_shape, get_format("int8"), parse_pattern("4x1@0.2")), activation="int8")
        for layer in model.weight_layers()
    }  # fmt: skip
    phase = Phase(kind="prefill", context=128)
    cost = estimate(model, plans, measured_device(measured), phase, Options(measured=measured))
    up = next(layer for layer in cost.layers if layer.name == "layers.0.mlp.up_proj")
    assert up.latency_s.value == pytest.approx(seconds("block_4x1", 1536, 576, 128, 0.2), rel=0.08)
    assert any("timed here" in note for note in cost.notes)
    assert up.provenance is Provenance.CALIBRATED
    bare = replace(measured, kernels=())
    assumed = estimate(model, plans, measured_device(bare), phase, Options(measured=bare))
    assert any("bench cpu --calibrate" in note for note in assumed.notes)
    assert assumed.provenance is Provenance.MODELLED


def test_weights_beyond_the_cache_are_read_from_memory() -> None:
    small = replace(machine(16), last_level_cache_bytes=2**20)
    model = load_workload("smollm2-135m")
    plans = {
        layer.name: LayerPlan(spec=TensorSpec.of(*layer.weight_shape, get_format("int8")), activation="int8")
        for layer in model.weight_layers()
    }
    cost = estimate(model, plans, measured_device(small), Phase(kind="decode"), Options(measured=small))
    for layer in cost.layers:
        if layer.kernel == "dense_int8":
            assert layer.latency_s.value >= layer.memory_bytes / PEAKS.memory_bytes_per_s


def test_too_few_kernels_are_no_fit() -> None:
    few = machine(LEAST_MATRICES - 1)
    assert cpu_fits(few) == {}
    (row,) = validate_cpu(few)
    assert (row.value, row.samples) == (None, 0)
    assert row.passed
    assert "not measured here" in row.note
    assert validate_cpu(None)[0].to_json()["value"] is None


def test_the_same_samples_give_the_same_fit() -> None:
    table = samples_table(machine(10).kernels[:60])
    first, second = (fit_samples("dense_int8", table, PEAKS, ISA) for _ in range(2))
    assert first.curve == second.curve
    assert first.bounds == second.bounds
