"""The built-in workloads by name, and a user's own by file."""

from functools import lru_cache
from pathlib import Path

from sparsefab import config
from sparsefab.errors import ModelError
from sparsefab.registry import Registry
from sparsefab.workload import Workload
from sparsefab.workloads.shapes import ModelShape, expand

__all__ = ["WORKLOADS", "load_workload", "workload_names"]

_HERE = Path(__file__).resolve().parent
_NAMES = (
    "llama2-7b",
    "llama2-13b",
    "llama2-70b",
    "opt-6.7b",
    "mistral-7b",
    "mixtral-8x7b",
    "smollm2-135m",
    "bert-base",
    "bert-large",
    "vit-b16",
    "resnet-50",
)

WORKLOADS: Registry[Path] = Registry(
    kind="workload",
    builtins={name: _HERE / f"{name}.toml" for name in _NAMES},
    group="sparsefab.workloads",
    expected=Path,
    error=ModelError,
)


def load_workload(name: str | Path) -> Workload:
    """Return a workload by name, or from a TOML file if `name` ends with .toml.

    Raises
    ------
    ModelError              If there is none of that name; the message offers near ones.
    ConfigError             If the file does not match the schema; the message names the key.
    """
    text = str(name)
    path = Path(text) if text.endswith(".toml") else WORKLOADS.get(text.lower())
    return _read(path, path.stat().st_mtime_ns if path.is_file() else 0)


def workload_names() -> tuple[str, ...]:
    """Names of all workloads, plug-ins included."""
    return WORKLOADS.names()


@lru_cache(maxsize=32)
def _read(path: Path, modified_ns: int) -> Workload:
    """Read a file once a version; `modified_ns` is part of the cache key."""
    return expand(config.load(path, ModelShape))
