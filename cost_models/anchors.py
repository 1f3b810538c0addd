"""The calibration files that ship: curves, residuals at anchors, bounds, and held-out shapes no fit has seen."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sparsefab.cost_models.attention import AttentionFit, attention_coordinates
from sparsefab.cost_models.gemm import Curve, Floats, GemmFit, Residual, coordinates
from sparsefab.errors import ConfigError

__all__ = [
    "ATTENTION_FILE",
    "GEMM_FILE",
    "TORCH_FILES",
    "Calibration",
    "MeteredPower",
    "load_attention",
    "load_gemm",
    "load_torch",
    "product_fits",
    "read_calibration",
]

_DATA = Path(__file__).resolve().parent / "data"
GEMM_FILE = _DATA / "gpu_gemm.json"
ATTENTION_FILE = _DATA / "gpu_attention.json"
#: Written by `sparsefab bench gpu`, as they are.
TORCH_FILES = (_DATA / "torch_h100.json", _DATA / "torch_h200.json")

_GEMM_COLUMNS, _ATTENTION_COLUMNS = 3, 7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeteredPower:
    """A board's power as its meter read it under load: the terms fitted to it, in watts.

    samples : float64[loads, 3]     Use of bandwidth, use of peak, watts.
    mean_error : float              On loads left out one at a time.
    """

    device: str
    static_w: float
    memory_w: float
    compute_w: float
    mean_error: float
    samples: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """A calibration file by (device, kernel family); attention has the one family 'attention'.

    held_out : float64[rows, columns + 1]       The table's columns, then measured seconds.
    """

    source: str
    licence: str
    date: str
    gemm: dict[tuple[str, str], GemmFit]
    attention: dict[str, AttentionFit]
    held_out: dict[tuple[str, str], Floats]
    power: MeteredPower | None = None

    @property
    def citation(self) -> str:
        """Source, licence and date in one line."""
        return f"{self.source} ({self.licence}), fitted {self.date}"


@lru_cache(maxsize=4)
def load_gemm(path: Path = GEMM_FILE) -> Calibration:
    """Read the products' calibration; ConfigError names a file that cannot be used and why."""
    return read_calibration(path)


@lru_cache(maxsize=4)
def load_attention(path: Path = ATTENTION_FILE) -> Calibration:
    """Read decode attention's calibration; ConfigError names a file that cannot be used and why."""
    return read_calibration(path)


@lru_cache(maxsize=1)
def load_torch() -> tuple[Calibration, ...]:
    """Read the own measurements of torch's kernels, one file a board."""
    return tuple(read_calibration(path) for path in TORCH_FILES)


@lru_cache(maxsize=1)
def product_fits() -> dict[tuple[str, str], GemmFit]:
    """Return the fits of products that estimates are made from: TensorRT-LLM's kernels, torch's where it has none."""
    return {key: fit for own in load_torch() for key, fit in own.gemm.items()} | load_gemm().gemm


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file: fits of products and of decode attention, and of the board's power if it was metered.

    Raises
    ------
    ConfigError             If the file cannot be used; says why.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        gemm: dict[tuple[str, str], GemmFit] = {}
        attention: dict[str, AttentionFit] = {}
        held_out = {}
        for pair in table["pairs"]:
            key = (str(pair["device"]), str(pair["kernel"]))
            columns = _ATTENTION_COLUMNS if key[1] == "attention" else _GEMM_COLUMNS
            anchors = np.asarray(pair["anchors"], np.float64)
            shapes, curve, residual = anchors[:, :columns], Curve(**pair["curve"]), anchors[:, columns]
            bounds = {name: (float(low), float(high)) for name, (low, high) in pair["bounds"].items()}
            if columns == _GEMM_COLUMNS:
                points = coordinates(shapes[:, 0], shapes[:, 1], shapes[:, 2])
                gemm[key] = GemmFit(
                    device=key[0], kernel=key[1], curve=curve, residual=_residual(points, residual, pair), bounds=bounds
                )
            else:
                points = attention_coordinates(shapes)
                attention[key[0]] = AttentionFit(
                    device=key[0], curve=curve, residual=_residual(points, residual, pair), bounds=bounds
                )
            held_out[key] = np.asarray(pair["held_out"], np.float64).reshape(-1, columns + 1)
        power = table.get("power")
        return Calibration(
            source=str(table["source"]),
            licence=str(table["licence"]),
            date=str(table["date"]),
            gemm=gemm,
            attention=attention,
            held_out=held_out,
            power=None if power is None else _power(power),
        )
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, IndexError, np.linalg.LinAlgError) as error:
        raise ConfigError(f"{path}: not a calibration file: {type(error).__name__}: {error}") from error


def _power(table: dict[str, Any]) -> MeteredPower:
    terms = {name: float(table[name]) for name in ("static_w", "memory_w", "compute_w", "mean_error")}
    samples = np.asarray(table["samples"], np.float64).reshape(-1, 3)
    return MeteredPower(device=str(table["device"]), samples=samples, **terms)


def _residual(points: Floats, values: Floats, pair: dict[str, Any]) -> Residual:
    scales = np.asarray(pair["scales"], np.float64)
    return Residual.at(points, values, scales, float(pair["amplitude"]), float(pair["noise"]))
