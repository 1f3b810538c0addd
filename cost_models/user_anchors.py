"""A user's own measured GPU products for estimates: an anchor file as it ships, or a table that is fitted first."""

from functools import lru_cache
from pathlib import Path

from sparsefab.cost_models.anchors import Calibration, read_calibration
from sparsefab.errors import ConfigError

__all__ = ["load_user_anchors"]


def load_user_anchors(path: str | Path) -> Calibration:
    """Read an anchor file (.json, as `sparsefab bench gpu` writes) or a table (.csv, .parquet), fitting the latter.

    Raises
    ------
    ConfigError             If the file cannot be used, or holds too few products to be fitted; says what is missing.
    """
    path = Path(path)
    return _read(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=4)
def _read(path: Path, modified_ns: int) -> Calibration:
    if path.suffix == ".json":
        return read_calibration(path)
    try:
        from sparsefab.cost_models.calibrate import fit_products
    except ImportError as error:
        raise ConfigError(
            f"{path}: fitting a table needs SciPy (pip install scipy), or give the fitted .json"
        ) from error
    return fit_products(path)
