"""How wrong the models are: error and interval coverage on what they were not fitted to.

Each function returns rows with the figure reached and the goal it is held to. The shipped facts are used by default;
`--measured FILE` brings the user's own in the same form.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from sparsefab.arch import AcceleratorArch, ChainArch
from sparsefab.cost_models.anchors import Calibration, load_attention, load_gemm, product_fits
from sparsefab.cost_models.assumptions import Configuration, assumptions
from sparsefab.cost_models.attention import cache_times
from sparsefab.cost_models.cross_checks import validate_power, validate_torch
from sparsefab.cost_models.estimate import LayerPlan, Options, estimate
from sparsefab.cost_models.gemm import Floats
from sparsefab.cost_models.gpu import product_seconds
from sparsefab.cost_models.measured_tables import ProductTable, read_products
from sparsefab.cost_models.published import published
from sparsefab.cost_models.roofline import data_sheet_times
from sparsefab.cost_models.user_anchors import load_user_anchors
from sparsefab.cost_models.validate_cpu import validate_cpu, validate_recordings
from sparsefab.cost_models.validate_rows import Goal, Row, judge, relative_errors
from sparsefab.cost_models.validate_rtl import validate_rtl
from sparsefab.formats.catalog import get_format
from sparsefab.formats.sparsity import NM, Dense
from sparsefab.formats.tensors import TensorSpec
from sparsefab.targets import MeasuredCpu, Quantity, load_device
from sparsefab.workload import Phase
from sparsefab.workloads import load_workload

__all__ = [
    "PARTS",
    "Row",
    "fit_marlin_launch",
    "fit_memory_efficiency",
    "flightllm_plans",
    "validate",
    "validate_anchors",
    "validate_attention",
    "validate_flightllm",
    "validate_fpga",
    "validate_marlin",
    "validate_products",
    "validate_simulator",
]

_CHAIN_DSPS = 64
_PREDICTED_CONTEXT = 1024
_DECODE_ROWS, _DECODE_SIDE = 64, 2048


def validate_anchors(calibration: Calibration) -> list[Row]:
    """Judge a user's fitted anchor file on the products and decode steps that its fit has not seen."""
    rows = []
    for (name, kernel), table in calibration.held_out.items():
        if not len(table):
            continue
        if kernel == "attention":
            times = calibration.attention[name].seconds(table[:, :-1], *cache_times(load_device(name), table[:, :-1]))
        else:
            times = product_seconds(
                load_device(name), kernel, table[:, 0], table[:, 1], table[:, 2], anchors=calibration
            )[0]
        goals = {"mean error": 0.12 if kernel == "attention" else 0.10, "coverage": 0.80}
        rows += judge("own", f"{name} {kernel}", times, table[:, -1], goals)
    if calibration.power is not None:
        own = calibration.power
        rows.append(Row(part="own", name=f"{own.device} power, each load left out", metric="mean error",
                        value=own.mean_error, goal=0.30, samples=len(own.samples)))  # fmt: skip
    return rows


def validate_products(tables: Sequence[ProductTable] | None = None) -> list[Row]:
    """Judge GPU products on shapes whose (n, k) took no part in the fit, or on the user's tables.

    A device without a calibration of its own is predicted from its data sheet and its neighbours, with wider goals.
    """
    given = tables is not None
    if tables is None:
        tables = [
            ProductTable(device=device, kernel=kernel, m=rows[:, 0], n=rows[:, 1], k=rows[:, 2], seconds=rows[:, 3])
            for (device, kernel), rows in load_gemm().held_out.items()
        ]
    rows: list[Row] = []
    pooled: dict[bool, list[tuple[Floats, Floats, Floats, Floats]]] = {True: [], False: []}
    decode: list[tuple[Floats, Floats, Floats, Floats]] = []
    for table in tables:
        device = load_device(table.device)
        own = device.gpu is not None and (str(device.gpu.calibration), table.kernel) in product_fits()
        times = product_seconds(device, table.kernel, table.m, table.n, table.k)[0]
        goals = {"mean error": 0.10, "coverage": 0.80} if own else {"mean error": 0.25, "coverage": 0.80}
        rows += judge(
            "products" if own else "other device", f"{table.device} {table.kernel}", times, table.seconds, goals
        )
        pooled[own].append((*times, table.seconds))
        small = (table.m <= _DECODE_ROWS) & (table.n >= _DECODE_SIDE) & (table.k >= _DECODE_SIDE)
        if own and small.any():
            decode.append((times[0][small], times[1][small], times[2][small], table.seconds[small]))
    for own, parts in pooled.items():
        if parts:
            value, low, high, seconds = (np.concatenate(part) for part in zip(*parts, strict=True))
            shipped = own and not given
            coverage = (0.87, 0.93) if shipped else 0.80
            limits: dict[str, Goal] = {"mean error": 0.065, "coverage": coverage, "median high/low": 1.5} if own else \
                {"mean error": 0.25, "coverage": 0.80, "median high/low": 3.0}  # fmt: skip
            rows += judge("products" if own else "other device", "all", (value, low, high), seconds, limits)
    if decode:
        value, low, high, seconds = (np.concatenate(part) for part in zip(*decode, strict=True))
        rows += judge("products", "all, decode regime", (value, low, high), seconds, {})
    return rows if given else [*rows, *_left_out_devices()]


def _left_out_devices() -> list[Row]:
    """Predict each calibrated device as if it had not been measured."""
    parts = []
    for (name, kernel), table in load_gemm().held_out.items():
        times = product_seconds(load_device(name), kernel, table[:, 0], table[:, 1], table[:, 2], exclude=name)[0]
        parts.append((*times, table[:, 3]))
    value, low, high, seconds = (np.concatenate(part) for part in zip(*parts, strict=True))
    goals: dict[str, float | None] = {"mean error": 0.25, "coverage": 0.80, "median high/low": 3.0}
    return judge("products", "each device left out", (value, low, high), seconds, goals)


def validate_attention() -> list[Row]:
    """Judge decode attention on head layouts that took no part in the fit."""
    calibration, rows = load_attention(), []
    for (name, _), table in calibration.held_out.items():
        memory_s, compute_s = cache_times(load_device(name), table[:, :-1])
        times = calibration.attention[name].seconds(table[:, :-1], memory_s, compute_s)
        rows += judge("attention", name, times, table[:, -1], {"mean error": 0.12, "coverage": 0.80})
    return rows


def _speedup(device: str, inputs: Floats, outputs: Floats, batch: float, clock_ratio: float, launch_s: float) -> float:
    """Speedup of an int4 group-128 kernel over fp16, both at the data-sheet roofline, summed over matrices."""
    target, m = load_device(device), np.full(len(inputs), batch)
    times = []
    for kernel in ("fp16", "int4_wo"):
        memory_s, compute_s = data_sheet_times(target, kernel, m, outputs, inputs)
        times.append(np.maximum(memory_s, compute_s / clock_ratio))
    return float(times[0].sum() / (times[1] + launch_s).sum())


def fit_marlin_launch(device: str, without: str | None = None) -> float:
    """Return the launch constant of MARLIN's kernel that fits its layer table best, `without` one model; in seconds."""
    table = published().marlin
    candidates = np.arange(0.0, 20e-6, 0.25e-6)
    losses = np.zeros(len(candidates))
    for model in table.model:
        if model.name != without:
            sides = np.array(model.layers, np.float64)
            speedups = [
                _speedup(device, sides[:, 0], sides[:, 1], table.layer_batch, 1.0, launch) for launch in candidates
            ]
            losses += np.abs(np.array(speedups) / getattr(model, device) - 1.0)
    return float(candidates[int(losses.argmin())])


def validate_marlin() -> list[Row]:
    """Judge the roofline on MARLIN's ideal curve, and a launch constant on its layer table, leaving one model out."""
    table, rows = published().marlin, []
    sides = np.array([[table.inputs, table.outputs]], np.float64)
    for name, curve, ratio in (
        ("ideal, boost clock", table.ideal_boost, 1.0),
        ("ideal, base clock", table.ideal_base, table.base_clock_ratio.value),
    ):
        predicted = np.array([_speedup("a10", sides[:, 0], sides[:, 1], batch, ratio, 0.0) for batch in table.batch])
        error = float(relative_errors(predicted, np.array(curve)).max())
        rows.append(Row(part="marlin", name=f"a10 {name}", metric="largest error", value=error, goal=0.005,
                        samples=len(curve)))  # fmt: skip
    for device, goal in (("a10", 0.05), ("rtx3090", 0.06), ("a100", 0.05)):
        errors = []
        for model in table.model:
            launch = fit_marlin_launch(device, without=model.name)
            layers = np.array(model.layers, np.float64)
            predicted_one = _speedup(device, layers[:, 0], layers[:, 1], table.layer_batch, 1.0, launch)
            errors.append(abs(predicted_one / getattr(model, device) - 1.0))
        rows.append(Row(part="marlin", name=f"{device} layer table, one model left out", metric="mean error",
                        value=float(np.mean(errors)), goal=goal, samples=len(errors)))  # fmt: skip
    return rows


def flightllm_plans() -> dict[str, LayerPlan]:
    """Plans of FlightLLM's public LLaMA2-7B case: the built-in recipe 'flightllm' (4 bits, query and key 11:16, A8)."""
    plans = {}
    for layer in load_workload("llama2-7b").weight_layers():
        sparse = "q_proj" in layer.name or "k_proj" in layer.name
        weights = get_format("int8sym" if layer.name == "lm_head" else "int4sym")
        spec = TensorSpec.of(*layer.weight_shape, weights, NM(11, 16) if sparse else Dense())
        plans[layer.name] = LayerPlan(spec=spec, activation="int8")
    return plans


def _decode_s(item: Configuration, context: int | None = None) -> float:
    phase = Phase(kind="decode", context=item.context if context is None else context)
    options = Options(calibration=item)
    return estimate(
        load_workload(item.workload), flightllm_plans(), load_device(item.device), phase, options
    ).latency_s.value


def fit_memory_efficiency(item: Configuration) -> float:
    """Return the share of the channels' bandwidth at which the estimate meets the configuration's measured step."""
    low, high = 0.1, 1.0
    for _ in range(40):
        middle = (low + high) / 2.0
        slower = _decode_s(replace(item, efficiency=Quantity(value=middle, source="fit"))) > item.measured_s.value
        low, high = (middle, high) if slower else (low, middle)
    return (low + high) / 2.0


def validate_flightllm() -> list[Row]:
    """Compare the fitted configuration with its own point, and show a prediction at another context."""
    rows = []
    for item in assumptions().configuration:
        where = f"{item.name} on {item.device}, context"
        error = abs(_decode_s(item) / item.measured_s.value - 1.0)
        rows.append(Row(part="fpga", name=f"{where} {item.context} (fitted)", metric="error", value=error, goal=0.01,
                        samples=1, note="its own calibration point"))  # fmt: skip
        rows.append(Row(part="fpga", name=f"{where} {_PREDICTED_CONTEXT} (predicted)", metric="seconds",
                        value=_decode_s(item, _PREDICTED_CONTEXT), goal=None, samples=0,
                        note="no measurement of it took part; `sparsefab estimate` gives any other"))  # fmt: skip
    return rows


def validate_simulator() -> list[Row]:
    """Compare with FlightLLM's simulation of a VHK158, on chains with as many multipliers as each of its modes has.

    Its unexplained correction factor enters as a factor of the clock and of the channels; nothing is fitted. Shown, not
    judged: what is compared with is a simulation, and its time grows three times faster with the context.
    """
    published_run = published().flightllm_simulator
    device, model = load_device(published_run.device), load_workload(published_run.workload)
    factor, rows = published_run.correction_factor, []
    points: tuple[tuple[Literal["decode", "prefill"], int, int, tuple[tuple[int, float], ...]], ...] = (
        ("decode", published_run.decode_macs_per_cycle, 1, published_run.decode_s),
        ("prefill", published_run.prefill_macs_per_cycle, 2, published_run.prefill_s),
    )
    for kind, macs, lanes, table in points:
        arch = AcceleratorArch(
            cores=1,
            chains_per_core=macs // lanes // _CHAIN_DSPS,
            chain=ChainArch(dsps=_CHAIN_DSPS, matrix_vector=False),  # its decode does one row a multiplier
            clock_hz=published_run.clock_hz * factor,
            hbm_channels=int(published_run.channel_share * factor * device.memory.channels),
        )
        for context, seconds in table:
            phase = Phase(kind=kind, context=context)
            cost = estimate(model, flightllm_plans(), device, phase, Options(arch=arch))
            error = abs(cost.latency_s.value / seconds - 1.0)
            rows.append(Row(part="fpga", name=f"FlightLLM's simulator, {device.name}, {kind} {context}", metric="error",
                            value=error, goal=None, samples=1,
                            note=f"simulated elsewhere; correction_factor {factor:g}"))  # fmt: skip
    return rows


def validate_fpga() -> list[Row]:
    """Judge cycles and resources against our own Verilog, and the fitted board configuration."""
    return [*validate_rtl(), *validate_flightllm(), *validate_simulator()]


#: Parts of the validation page that need no measurement of the user's.
PARTS = {
    "products": validate_products, "attention": validate_attention, "marlin": validate_marlin,
    "torch": validate_torch, "power": validate_power, "fpga": validate_fpga, "cpu": validate_recordings,
}  # fmt: skip


def validate(part: str | None = None, measured: Path | None = None, host: MeasuredCpu | None = None) -> list[Row]:
    """Return the rows of one part, or of all; `measured` judges the products on a user's table, or a user's
    anchor file on what its fit has not seen, instead.

    `host` is what was measured on this machine, which the part 'cpu' judges beside the shipped recordings.

    Raises
    ------
    ValueError              If there is no such part.
    ConfigError             If the measured table cannot be used; names the column or the device.
    """
    if part is not None and part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, speed, not {part!r}")
    if measured is not None and measured.suffix == ".json":
        return validate_anchors(load_user_anchors(measured))
    if measured is not None:
        return validate_products(read_products(measured))
    rows = [row for name, judge in PARTS.items() if part in (None, name) for row in judge()]
    return rows + (validate_cpu(host) if part in (None, "cpu") else [])
