"""The schema of measurements made on this machine and read by the cost models.

The benchmark verbs write these files, `cost_models` reads them; neither imports the other.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparsefab import config
from sparsefab.targets.device import CpuSpec, Device, Memory, Power, Quantity

__all__ = ["CpuPeaks", "KernelSample", "MeasuredCpu", "load_cpu_measurements", "measured_device"]


def _check_positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{owner}: {name} must be positive, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuPeaks:
    """Peaks of a CPU with `threads` threads, medians of a micro-benchmark.

    Parameters
    ----------
    int8_op_per_s : float               u8 x s8 products into int32, a multiply-add counting two.
    fp32_op_per_s : float               Fused multiply-adds, counting two.
    memory_bytes_per_s : float          Reading from DRAM.
    """

    threads: int
    int8_op_per_s: float
    fp32_op_per_s: float
    memory_bytes_per_s: float

    def __post_init__(self) -> None:
        _check_positive(
            "peaks",
            threads=self.threads,
            int8_op_per_s=self.int8_op_per_s,
            fp32_op_per_s=self.fp32_op_per_s,
            memory_bytes_per_s=self.memory_bytes_per_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSample:
    """One timed kernel: weights [rows, columns] of which `density` is multiplied, times `tokens` activations."""

    kernel: Literal["dense_int8", "block_4x1", "dequantize_int8", "fp32"]
    rows: int
    columns: int
    tokens: int
    density: float
    threads: int
    seconds: float

    def __post_init__(self) -> None:
        _check_positive(
            "kernel sample",
            rows=self.rows,
            columns=self.columns,
            tokens=self.tokens,
            density=self.density,
            threads=self.threads,
            seconds=self.seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCpu:
    """What was measured on one machine; `date` as YYYY-MM-DD."""

    name: str
    date: str
    isa: str
    cores: int
    memory_bytes: int
    peaks: tuple[CpuPeaks, ...]
    last_level_cache_bytes: int | None = None
    kernels: tuple[KernelSample, ...] = ()

    def __post_init__(self) -> None:
        _check_positive(self.name, cores=self.cores, memory_bytes=self.memory_bytes)
        if not self.peaks:
            raise ValueError(f"{self.name}: at least one [[peaks]] table is needed")


def load_cpu_measurements(path: str | Path) -> MeasuredCpu:
    """Read a measurement file; ConfigError names a key that is wrong."""
    return config.load(path, MeasuredCpu)


def measured_device(measured: MeasuredCpu) -> Device:
    """Return the machine that was measured as a target: its peaks, and an assumed power of 4 to 12 W a core."""
    peaks = max(measured.peaks, key=lambda item: item.threads)
    watts = 6.0 * measured.cores
    return Device(
        name="cpu",
        title=measured.name,
        kind="cpu",
        sources={
            "measured": f"measured on {measured.name}, {measured.date}",
            "assumed": "assumed: 6 W a core (350 W for 64 cores), no power meter was read",
        },
        memory=Memory(
            capacity_bytes=Quantity(value=float(measured.memory_bytes), source="measured"),
            bandwidth_bytes_per_s=Quantity(value=peaks.memory_bytes_per_s, source="measured"),
        ),
        power=Power(limit_w=Quantity(value=watts, source="assumed", low=watts * 2 / 3, high=watts * 2)),
        cpu=CpuSpec(
            isa=measured.isa,
            cores=measured.cores,
            clock_hz=Quantity(value=1.0, source="measured"),
            int8_op_per_cycle_per_core=Quantity(value=peaks.int8_op_per_s / measured.cores, source="measured"),
            fp32_op_per_cycle_per_core=Quantity(value=peaks.fp32_op_per_s / measured.cores, source="measured"),
        ),
    )
