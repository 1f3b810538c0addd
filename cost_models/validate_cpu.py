"""How wrong the fit of CPU kernels is: on matrices of a run that it has not seen, and from specifications alone.

Rows of the validation page; see `validate.Row`.
"""

from dataclasses import replace

import numpy as np

from sparsefab.cost_models.cpu_fit import DENSITY, LEAST_MATRICES, MOST_SAMPLES, fit_samples, matrices_of, samples_table
from sparsefab.cost_models.cpu_recordings import recordings
from sparsefab.cost_models.estimate import LayerPlan, Options, estimate
from sparsefab.cost_models.gemm import Floats
from sparsefab.cost_models.validate_rows import Goal, Row, judge
from sparsefab.formats.catalog import get_format
from sparsefab.formats.sparsity import Dense, parse_pattern
from sparsefab.formats.tensors import TensorSpec
from sparsefab.targets import KernelSample, MeasuredCpu, measured_device
from sparsefab.workload import Linear, Phase, Workload

__all__ = ["validate_cpu", "validate_recordings"]

Times = tuple[Floats, Floats, Floats, Floats]
_EVERY = 4  # one matrix in so many is left out
_ENDLESS = 1 << 50  # weights are hot where kernels are timed
_GROUP = 128  # of the timed 4-bit products


def validate_cpu(measured: MeasuredCpu | None = None) -> list[Row]:
    """Judge the fit of this machine's kernels; a machine without timed kernels has one row that says so."""
    rows: list[Row] = []
    for name, (value, low, high, seconds) in ({} if measured is None else _left_out(measured)).items():
        rows += judge("cpu", f"this machine, {name}", (value, low, high), seconds, {"mean error": 0.10})
    note = "not measured here: `sparsefab bench cpu --calibrate` times the kernels"
    missing = Row(part="cpu", name="this machine", metric="mean error", value=None, goal=0.10, samples=0, note=note)
    return rows or [missing]


def validate_recordings() -> list[Row]:
    """Judge the fit on the shipped recordings, kernel by kernel and all together."""
    rows: list[Row] = []
    goals: dict[str, Goal] = {"mean error": 0.10, "coverage": 0.80}
    for recording in recordings():
        parts = _left_out(recording.measured)
        note = f"{recording.title}; {recording.features}; {recording.date}"
        for name, (value, low, high, seconds) in parts.items():
            rows += judge("cpu", f"{recording.name}, {name}", (value, low, high), seconds, goals, note)
        value, low, high, seconds = (np.concatenate(part) for part in zip(*parts.values(), strict=True))
        rows += judge("cpu", f"{recording.name}, all kernels", (value, low, high), seconds, goals, note)
        alone = _from_peaks(recording.measured)
        rows += judge("cpu", f"{recording.name}, from its peaks alone", alone[:3], alone[3], {"coverage": 0.80}, note)
    return rows


def _from_peaks(measured: MeasuredCpu) -> Times:
    """Predict every timed product as if no kernel had been timed: peaks of one thread, shares of other machines."""
    bare = replace(measured, kernels=(), last_level_cache_bytes=_ENDLESS, peaks=measured.peaks[:1])
    device, options, rows = measured_device(bare), Options(measured=bare), []
    for sample in measured.kernels:
        if sample.kernel == "block_4x1" and sample.rows % 4:
            continue  # a last block that is short is no pattern of a layer
        spec = _spec(sample)
        layer = Linear(name="product", in_features=sample.columns, out_features=sample.rows)
        workload = Workload(name="product", family="encoder", layers=(layer,))
        phase = Phase(kind="prefill", context=sample.tokens)
        plans = {"product": LayerPlan(spec=spec, activation="int8")}
        figure = estimate(workload, plans, device, phase, options).latency_s
        rows.append((figure.value, figure.low, figure.high, sample.seconds))
    value, low, high, seconds = np.array(rows, np.float64).T
    return value, low, high, seconds


def _spec(sample: KernelSample) -> TensorSpec:
    if sample.kernel == "dequantize_int8":
        return TensorSpec.of(sample.rows, sample.columns, get_format("int4"), group_size=_GROUP)
    pattern = Dense() if sample.kernel == "dense_int8" else parse_pattern(f"4x1@{sample.density:.4f}")
    return TensorSpec.of(sample.rows, sample.columns, get_format("int8"), pattern)


def _left_out(measured: MeasuredCpu) -> dict[str, Times]:
    """Predicted, low, high and timed seconds of the matrices left out, one in four, by kernel and threads."""
    peaks = {item.threads: item for item in measured.peaks}
    samples = tuple(s for s in measured.kernels if s.threads in peaks)
    found: dict[str, Times] = {}
    for kernel, threads in sorted({(s.kernel, s.threads) for s in samples if s.kernel != "fp32"}):
        table = samples_table(tuple(s for s in samples if s.kernel == kernel and s.threads == threads))
        left = matrices_of(table) % _EVERY == 0
        if len(set(matrices_of(table).tolist())) < LEAST_MATRICES:
            continue
        fit = fit_samples(kernel, table[~left][:MOST_SAMPLES], peaks[threads], measured.isa)
        times = fit.seconds(table[left, : DENSITY + 1], peaks[threads])
        found[f"{kernel}, {threads} thread" + ("s" if threads > 1 else "")] = (*times, table[left, -1])
    return found
