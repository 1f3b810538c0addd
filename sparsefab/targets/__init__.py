"""Devices: one TOML file each, a source beside every number; and the schema of measurement files."""

from sparsefab.targets.catalog import GPU_KERNELS, TARGETS, load_device, load_kernels
from sparsefab.targets.device import (
    CpuSpec,
    Device,
    FpgaSpec,
    GpuSpec,
    Kernel,
    Memory,
    Power,
    Price,
    Quantity,
    Region,
    check_sources,
)
from sparsefab.targets.measured import CpuPeaks, KernelSample, MeasuredCpu, load_cpu_measurements, measured_device

__all__ = [
    "GPU_KERNELS",
    "TARGETS",
    "CpuPeaks",
    "CpuSpec",
    "Device",
    "FpgaSpec",
    "GpuSpec",
    "Kernel",
    "KernelSample",
    "MeasuredCpu",
    "Memory",
    "Power",
    "Price",
    "Quantity",
    "Region",
    "check_sources",
    "load_cpu_measurements",
    "load_device",
    "load_kernels",
    "measured_device",
]
