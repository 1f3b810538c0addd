"""A user's table of measured GPU products: Parquet or CSV with columns gpu, dtype, m, n, k, latency_ms."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsefab.cost_models.gemm import Floats
from sparsefab.cost_models.roofline import kernel_named
from sparsefab.errors import ConfigError, SparseFabError
from sparsefab.targets import load_device

__all__ = ["DEVICES", "KERNELS", "ProductTable", "read_products"]

#: Names of devices and dtypes in public tables, in this project's terms; own names are taken as they are.
DEVICES = {
    "a100_sxm": "a100", "h100_sxm": "h100", "h200_sxm": "h200", "b200_sxm": "b200", "gb200_sxm": "gb200",
}  # fmt: skip
KERNELS = {"bfloat16": "fp16", "float16": "fp16"}

_COLUMNS = ("gpu", "dtype", "m", "n", "k", "latency_ms")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProductTable:
    """Measured products [m, k] x [k, n] of one device and kernel family; float64[shapes]."""

    device: str
    kernel: str
    m: Floats
    n: Floats
    k: Floats
    seconds: Floats


def read_products(path: Path) -> list[ProductTable]:
    """Read a table, one entry a (device, kernel family).

    Raises
    ------
    ConfigError             If the file cannot be read, lacks a column, holds a bad number or an unknown name.
    """
    import pandas as pd  # only this reader and the calibration need it

    try:
        table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a table: {error}") from error
    missing = [name for name in _COLUMNS if name not in table.columns]
    if missing:
        raise ConfigError(f"{path}: missing column {missing[0]!r}; needed: {', '.join(_COLUMNS)}")
    result = []
    for (gpu, dtype), rows in table.groupby(["gpu", "dtype"]):
        device, kernel = DEVICES.get(str(gpu), str(gpu)), KERNELS.get(str(dtype), str(dtype))
        try:
            load_device(device)
            kernel_named(kernel)
        except (SparseFabError, ValueError) as error:
            raise ConfigError(f"{path}: gpu {gpu!r}, dtype {dtype!r}: {error}") from error
        try:
            m, n, k, latency_ms = (rows[name].to_numpy(np.float64) for name in _COLUMNS[2:])
        except ValueError as error:
            raise ConfigError(f"{path}: gpu {gpu!r}, dtype {dtype!r}: not a number: {error}") from error
        for name, values in zip(_COLUMNS[2:], (m, n, k, latency_ms), strict=True):
            if not (np.isfinite(values).all() and (values > 0).all()):
                raise ConfigError(f"{path}: column {name!r}: values must be positive and finite")
        result.append(ProductTable(device=device, kernel=kernel, m=m, n=n, k=k, seconds=latency_ms * 1e-3))
    return result
