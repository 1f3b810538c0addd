"""The calibration files that ship: curves, residuals at anchors, bounds, and held-out shapes no fit has seen."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from sparsefab.cost_models.gemm import Curve, Floats, GemmFit, Residual, coordinates
from sparsefab.errors import ConfigError

__all__ = ["GEMM_FILE", "Calibration", "HeldOut", "load_calibration"]

GEMM_FILE = Path(__file__).resolve().parent / "data" / "gpu_gemm.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """Measured shapes whose (n, k) took no part in the fit: float64[shapes] each."""

    m: Floats
    n: Floats
    k: Floats
    seconds: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """A calibration file: fits and held-out shapes by (device key, kernel family)."""

    source: str
    licence: str
    date: str
    fits: dict[tuple[str, str], GemmFit]
    held_out: dict[tuple[str, str], HeldOut]


@lru_cache(maxsize=4)
def load_calibration(path: Path = GEMM_FILE) -> Calibration:
    """Read a calibration file written by `calibrate`.

    Raises
    ------
    ConfigError             If the file is missing, is no JSON, or lacks a part; the message names it.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        fits, held_out = {}, {}
        for pair in table["pairs"]:
            key = (str(pair["device"]), str(pair["kernel"]))
            shapes = np.asarray(pair["anchors"], np.float64)
            check = np.asarray(pair["held_out"], np.float64)
            fits[key] = GemmFit(
                device=key[0],
                kernel=key[1],
                curve=Curve(**pair["curve"]),
                residual=Residual.at(
                    coordinates(shapes[:, 0], shapes[:, 1], shapes[:, 2]),
                    shapes[:, 3],
                    np.asarray(pair["scales"], np.float64),
                    float(pair["amplitude"]),
                    float(pair["noise"]),
                ),
                bounds={name: (float(low), float(high)) for name, (low, high) in pair["bounds"].items()},
            )
            held_out[key] = HeldOut(m=check[:, 0], n=check[:, 1], k=check[:, 2], seconds=check[:, 3])
        return Calibration(
            source=table["source"], licence=table["licence"], date=table["date"], fits=fits, held_out=held_out
        )
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(f"{path}: not a calibration file: {type(error).__name__}: {error}") from error
