"""What other measurements say of the shipped models: torch's kernels on two boards of our own use, and power meters.

Rows of the validation page; see `validate.Row`.
"""

import numpy as np

from sparsefab.cost_models.anchors import load_gemm, load_torch
from sparsefab.cost_models.assumptions import assumptions
from sparsefab.cost_models.attention import cache_times
from sparsefab.cost_models.energy import power
from sparsefab.cost_models.gemm import Floats
from sparsefab.cost_models.gpu import product_seconds
from sparsefab.cost_models.published import published
from sparsefab.cost_models.validate_rows import Row, judge
from sparsefab.targets import load_device

__all__ = ["validate_power", "validate_torch"]

Times = tuple[Floats, Floats, Floats, Floats]


def validate_torch() -> list[Row]:
    """Judge the fits to torch's kernels on (n, k) left out, the shipped fits of another library on the same products,
    and decode attention carried from one board to the other.
    """
    fitted: dict[str, list[Times]] = {}
    crossed: dict[str, list[Times]] = {}
    for own in load_torch():
        for (name, kernel), table in own.held_out.items():
            if kernel == "attention":
                continue
            into = crossed if (name, kernel) in load_gemm().gemm else fitted
            times = product_seconds(load_device(name), kernel, table[:, 0], table[:, 1], table[:, 2])[0]
            into.setdefault(kernel, []).append((*times, table[:, 3]))
    rows: list[Row] = []
    for kernel, parts in sorted(fitted.items()):
        rows += _joined(f"h100, h200 {kernel}", parts, {"mean error": 0.10, "coverage": 0.80})
    for kernel, parts in sorted(crossed.items()):
        note = (
            "that table has 9.5 us more a product: most likely it quantizes the activations" if kernel == "fp8" else ""
        )
        rows += _joined(f"h100, h200 {kernel}, fitted to TensorRT-LLM", parts, {}, note)
    return rows + _carried_attention()


def _joined(name: str, parts: list[Times], goals: dict[str, float | None], note: str = "") -> list[Row]:
    value, low, high, seconds = (np.concatenate(part) for part in zip(*parts, strict=True))
    return judge("torch", name, (value, low, high), seconds, goals, note)


def _carried_attention() -> list[Row]:
    """Each board's decode attention from the other's fit, at its own bandwidth, with the bounds of a transfer."""
    spread, parts = assumptions().gpu.transfer_spread.value, []
    fits = {name: fit for own in load_torch() for name, fit in own.attention.items()}
    for own in load_torch():
        for name in own.attention:
            table = own.held_out[name, "attention"]
            memory_s, compute_s = cache_times(load_device(name), table[:, :-1])
            others = [fit.seconds(table[:, :-1], memory_s, compute_s)[0] for key, fit in fits.items() if key != name]
            value = np.exp(np.mean(np.log(others), axis=0))
            parts.append((value, value / spread, value * spread, table[:, -1]))
    goals: dict[str, float | None] = {"mean error": 0.25, "coverage": 0.80}
    return _joined("decode attention, one board from the other", parts, goals)


def validate_power() -> list[Row]:
    """Judge board power: published board averages of memory-bound products, and meters read under sustained load."""
    rows = []
    for point in published().board_power.point:
        device = load_device(point.device)
        use = point.watts / (point.pj_per_bit * 1e-12 * 8.0) / device.memory.bandwidth_bytes_per_s.value
        error = abs(power(device, use, 0.0)[0].value / point.watts - 1.0)
        rows.append(Row(part="power", name=f"{point.device}, memory-bound products", metric="error", value=error,
                        goal=0.30, samples=1))  # fmt: skip
    for own in load_torch():
        if own.power is None:
            continue
        loads = own.power.samples[own.power.samples[:, :2].any(axis=1)]
        figures = [power(load_device(own.power.device), memory, compute)[0] for memory, compute, _ in loads.tolist()]
        value, low, high = (np.array([getattr(figure, end) for figure in figures]) for end in ("value", "low", "high"))
        note = "fitted to these loads" if own.power.device == "h100" else "terms of board averages elsewhere"
        rows += judge("power", f"{own.power.device}, metered under sustained products", (value, low, high), loads[:, 2],
                      {"mean error": 0.30}, note)  # fmt: skip
    return rows
