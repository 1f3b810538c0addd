"""Turn tables of measured GPU kernels into what ships: parameters, anchors, bounds, and held-out rows.

    python -m sparsefab.cost_models.calibrate gemm gpu_gemm_measured.parquet --date 2026-11-22
    python -m sparsefab.cost_models.calibrate attention gpu_decode_attention_measured.parquet --date 2026-11-22

A product table has columns gpu, dtype, m, n, k, latency_ms, source; a decode-attention table batch_size, isl, step,
num_heads, num_key_value_heads, head_dim, window_size, kv_cache_dtype, latency (ms), gpu, source. One (n, k), or one
(heads, key/value heads, head size), in eight takes no part in the fit and ships as the held-out set. Needs
pandas and SciPy.
"""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sparsefab.cost_models.anchors import ATTENTION_FILE, GEMM_FILE, Calibration, read_calibration
from sparsefab.cost_models.attention import ATTENTION_REGIMES, attention_coordinates, attention_regime, cache_times
from sparsefab.cost_models.fitting import Fitted, fit_rows, folds_of
from sparsefab.cost_models.gemm import REGIMES, Curve, classify, coordinates
from sparsefab.cost_models.measured_tables import DEVICES, KERNELS, read_products
from sparsefab.cost_models.power_fit import fit_power, power_samples
from sparsefab.cost_models.roofline import data_sheet_times
from sparsefab.errors import ConfigError
from sparsefab.targets import load_device

__all__ = ["attention_columns", "fit_products", "main", "write_measured"]

log = logging.getLogger(__name__)

HELD_OUT_ONE_IN, HELD_OUT_ROWS, ATTENTION_HELD_OUT_ROWS, ATTENTION_ANCHORS = 8, 160, 400, 500
#: Of one device and kernel, below which nothing is fitted.
LEAST_PRODUCTS, LEAST_SIDES = 48, 16

_SIDES = {"gemm": "m, n, k", "attention": "batch, context, window, heads, kv heads, head size, bytes a value"}
_COLUMNS = {
    part: f"anchors: {names}, log residual; held_out: {names}, seconds; its groups are in no fit"
    for part, names in _SIDES.items()
}


def _entry(device: str, kernel: str, rows: pd.DataFrame, fit: Fitted, regimes: Sequence[str]) -> dict[str, object]:
    log.info(
        "%s %s: out-of-fold error %.3f, coverage %.3f, high/low %.2f",
        device,
        kernel,
        fit.mean_error,
        fit.coverage,
        fit.median_spread,
    )
    curve = fit.curve
    return {
        "device": device,
        "kernel": kernel,
        "measured": str(rows["source"].iloc[0]),
        "curve": {
            name: float(f"{getattr(curve, name):.5g}")
            for name in ("launch_s", "memory_efficiency", "compute_efficiency", "exponent")
        },
        "scales": [round(float(value), 4) for value in fit.residual.scales],
        "amplitude": round(fit.residual.amplitude, 5),
        "noise": round(fit.residual.noise, 5),
        "bounds": dict(zip(regimes, (list(pair) for pair in fit.bounds), strict=True)),
        "out_of_fold": {
            "mean_error": round(fit.mean_error, 4),
            "coverage": round(fit.coverage, 4),
            "median_spread": round(fit.median_spread, 4),
        },
    }


def _held_out(kept: NDArray[np.bool_], count: int) -> NDArray[np.intp]:
    """Rows of the held-out set that ship: at most `count`, drawn evenly."""
    return np.sort(np.random.default_rng(3).permutation(np.flatnonzero(kept))[:count])


def _gemm_pair(rows: pd.DataFrame, device: str, kernel: str) -> dict[str, object]:
    m, n, k = (rows[name].to_numpy(np.float64) for name in "mnk")
    seconds = rows["latency_ms"].to_numpy(np.float64) * 1e-3
    memory_s, compute_s = data_sheet_times(load_device(device), kernel, m, n, k)
    kept = folds_of(np.stack([n, k], axis=1), HELD_OUT_ONE_IN, seed=7) == 0
    use = np.flatnonzero(~kept)

    def regime(curve: Curve) -> NDArray[np.intp]:
        return classify(m[use], n[use], k[use], curve, memory_s[use], compute_s[use])

    fit = fit_rows(
        coordinates(m[use], n[use], k[use]),
        memory_s[use],
        compute_s[use],
        seconds[use],
        np.stack([n, k], axis=1)[use],
        len(REGIMES),
        regime,
    )
    at = use[fit.anchor_rows]
    anchors = [
        [int(m[i]), int(n[i]), int(k[i]), round(float(value), 4)]
        for i, value in zip(at, fit.residual.values, strict=True)
    ]
    held_out = [[int(m[i]), int(n[i]), int(k[i]), float(f"{seconds[i]:.5g}")] for i in _held_out(kept, HELD_OUT_ROWS)]
    return {**_entry(device, kernel, rows, fit, REGIMES), "anchors": anchors, "held_out": held_out}


def attention_columns(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Return float64[rows, 7]: batch, context, window, heads, key/value heads, head size, bytes a cached value."""
    cached = rows["kv_cache_dtype"].map({"bfloat16": 2.0, "fp8": 1.0}).to_numpy(np.float64)
    context = (rows["isl"] + rows["step"]).to_numpy(np.float64)
    names = ["window_size", "num_heads", "num_key_value_heads", "head_dim"]
    rest = [rows[name].to_numpy(np.float64) for name in names]
    return np.stack([rows["batch_size"].to_numpy(np.float64), context, *rest, cached], axis=1)


def _attention_device(rows: pd.DataFrame, device: str) -> dict[str, object]:
    table, seconds = attention_columns(rows), rows["latency"].to_numpy(np.float64) * 1e-3
    memory_s, compute_s = cache_times(load_device(device), table)
    groups = table[:, 3:6]
    kept = folds_of(groups, HELD_OUT_ONE_IN, seed=7) == 0
    use = np.flatnonzero(~kept)

    def regime(curve: Curve) -> NDArray[np.intp]:
        return attention_regime(curve, memory_s[use])

    fit = fit_rows(
        attention_coordinates(table[use]),
        memory_s[use],
        compute_s[use],
        seconds[use],
        groups[use],
        len(ATTENTION_REGIMES),
        regime,
        anchors=ATTENTION_ANCHORS,
    )

    def line(index: int, value: float) -> list[float]:
        return [*(int(entry) for entry in table[index]), value]

    at = use[fit.anchor_rows]
    anchors = [line(i, round(float(value), 4)) for i, value in zip(at, fit.residual.values, strict=True)]
    held_out = [line(i, float(f"{seconds[i]:.5g}")) for i in _held_out(kept, ATTENTION_HELD_OUT_ROWS)]
    return {**_entry(device, "attention", rows, fit, ATTENTION_REGIMES), "anchors": anchors, "held_out": held_out}


def write_measured(
    path: Path,
    products: pd.DataFrame,
    attention: pd.DataFrame | None = None,
    power: Sequence[dict[str, object]] = (),
    *,
    source: str,
    licence: str,
    date: str,
) -> None:
    """Fit what was measured on one machine and write the anchor file, in the form that ships.

    Parameters
    ----------
    products : DataFrame            Columns gpu, dtype, m, n, k, latency_ms, source.
    attention : DataFrame | None    A decode-attention table; None or empty: the file has none.
    power : rows                    As `measure_power` gives them.

    Raises
    ------
    ConfigError                     If a pair of device and kernel has fewer than LEAST_PRODUCTS rows or LEAST_SIDES
                                    (n, k).
    """
    pairs = []
    for key, rows in products.groupby(["gpu", "dtype"]):
        gpu, dtype = (str(part) for part in key)
        sides = len(rows[["n", "k"]].drop_duplicates())
        if len(rows) < LEAST_PRODUCTS or sides < LEAST_SIDES:
            raise ConfigError(
                f"{gpu} {dtype}: {len(rows)} products of {sides} (n, k) are too few to fit; "
                f"{LEAST_PRODUCTS} of {LEAST_SIDES} are needed"
            )
        pairs.append(_gemm_pair(rows.reset_index(drop=True), DEVICES.get(gpu, gpu), KERNELS.get(dtype, dtype)))
    if attention is not None and len(attention):
        for name, rows in attention.groupby("gpu"):
            pairs.append(_attention_device(rows.reset_index(drop=True), DEVICES.get(str(name), str(name))))
    head: dict[str, object] = {"source": source, "licence": licence, "date": date, "columns": _COLUMNS}
    if power:
        device = load_device(str(power[0]["gpu"]))
        fit = fit_power(power_samples(power, device), device.power.limit_w.value)
        head["power"] = {
            "device": device.name,
            "static_w": round(fit.static_w, 1),
            "memory_w": round(fit.memory_w, 1),
            "compute_w": round(fit.compute_w, 1),
            "mean_error": round(fit.mean_error, 4),
            "samples": np.round(fit.samples, 4).tolist(),
        }
    _write(path, head, pairs)


def fit_products(path: Path) -> Calibration:
    """Fit a user's table of products; see `measured_tables.read_products` for its form.

    Raises
    ------
    ConfigError                 If the table cannot be used, or holds too few products.
    """
    rows = [
        pd.DataFrame({"gpu": table.device, "dtype": table.kernel, "m": table.m, "n": table.n, "k": table.k,
                      "latency_ms": table.seconds * 1e3, "source": path.name})
        for table in read_products(path)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        fitted = Path(folder) / "fitted.json"
        write_measured(fitted, pd.concat(rows), source=str(path), licence="the user's own", date="not dated")
        return read_calibration(fitted)


def _write(path: Path, head: Mapping[str, object], pairs: Sequence[dict[str, object]]) -> None:
    lines = [json.dumps(pair, separators=(",", ":")) for pair in pairs]
    path.write_text(json.dumps(head)[:-1] + ', "pairs": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit a table and write its calibration file."""
    parser = argparse.ArgumentParser(prog="calibrate", description="Fit the GPU models to measured kernels.")
    parser.add_argument("part", choices=["gemm", "attention"])
    parser.add_argument("table", type=Path, help="Parquet file of measured kernels")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--source", default="ai-dynamo/aiconfigurator@095f58a, tables of TensorRT-LLM kernels")
    parser.add_argument("--licence", default="Apache-2.0")
    parser.add_argument("--date", required=True, help="of the fit, YYYY-MM-DD")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    table = pd.read_parquet(options.table)
    keys = ["gpu", "dtype"] if options.part == "gemm" else ["gpu"]
    fit: Callable[..., dict[str, object]] = _gemm_pair if options.part == "gemm" else _attention_device
    pairs = []
    for key, rows in table.groupby(keys):
        gpu, *dtype = (str(part) for part in key)
        pairs.append(
            fit(rows.reset_index(drop=True), DEVICES.get(gpu, gpu), *(KERNELS.get(name, name) for name in dtype))
        )
    head = {
        "source": options.source,
        "licence": options.licence,
        "date": options.date,
        "columns": {options.part: _COLUMNS[options.part]},
    }
    _write(options.output or (GEMM_FILE if options.part == "gemm" else ATTENTION_FILE), head, pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
