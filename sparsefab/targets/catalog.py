"""The built-in devices by name, plug-in devices by entry point, and a user's own by file."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sparsefab import config
from sparsefab.errors import TargetError
from sparsefab.registry import Registry
from sparsefab.targets.device import Device, Kernel, check_sources

__all__ = ["GPU_KERNELS", "TARGETS", "load_device", "load_kernels"]

_HERE = Path(__file__).resolve().parent
_GPUS = ("a10", "a6000", "rtx3090", "v100s", "a100", "l4", "l40s", "h100", "h200", "b200", "gb200")
_FPGAS = ("u280", "u50", "u55c", "u200", "u250", "v80", "vhk158")
_CPUS = ("xeon_8375c", "xeon_8488c", "xeon_8592plus", "epyc_9654")

GPU_KERNELS = _HERE / "gpu" / "kernels.toml"

#: Device files by name. A plug-in's entry point is the path of its TOML file.
TARGETS: Registry[Path] = Registry(
    kind="target",
    builtins={
        name: _HERE / folder / f"{name}.toml"
        for folder, names in (("fpga", _FPGAS), ("gpu", _GPUS), ("cpu", _CPUS))
        for name in names
    },
    group="sparsefab.targets",
    expected=Path,
    error=TargetError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _KernelFile:
    sources: dict[str, str]
    kernel: tuple[Kernel, ...]

    def __post_init__(self) -> None:
        check_sources(self.kernel, self.sources)


def load_device(name: str | Path) -> Device:
    """Return a device by name, or read it from a TOML file if `name` ends with .toml.

    Raises
    ------
    TargetError             If there is no such device; the message offers near names.
    ConfigError             If the file does not match the schema; the message names the key.
    """
    text = str(name)
    path = Path(text) if text.endswith(".toml") else TARGETS.get(text.lower().replace("-", "_"))
    device = _read(path, path.stat().st_mtime_ns if path.is_file() else 0)
    if device.gpu is not None:
        known = {kernel.name for kernel in load_kernels()}
        for kernel in device.gpu.kernels:
            if kernel not in known:
                raise TargetError(
                    f"{path}: gpu.kernels: unknown kernel family {kernel!r}; known: {', '.join(sorted(known))}"
                )
    return device


@lru_cache(maxsize=64)
def _read(path: Path, modified_ns: int) -> Device:
    """Read a file once a version; `modified_ns` is part of the cache key."""
    return config.load(path, Device)


@lru_cache(maxsize=1)
def load_kernels() -> tuple[Kernel, ...]:
    """Return the GPU kernel families that exist, in order of preference."""
    return config.load(GPU_KERNELS, _KernelFile).kernel
