"""Data-sheet times of GPU matrix products: the speed of light that every calibration is relative to."""

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import TargetError
from sparsefab.targets import Device, Kernel, load_kernels

__all__ = ["FORMAT_BYTES", "OUTPUT_BYTES", "data_sheet_times", "kernel_named", "speed_of_light"]

Floats = NDArray[np.float64]

OUTPUT_BYTES = 2.0  # results leave as fp16 or bf16, whatever went in
#: Bytes of an activation in a kernel's own format.
FORMAT_BYTES = {
    "fp16": 2.0, "int8": 1.0, "e4m3": 1.0, "int4": 0.5, "e2m1": 0.5625, "mxfp4": 0.53125, "mxfp8_e4m3": 1.03125,
}  # fmt: skip


def kernel_named(name: str) -> Kernel:
    """Return a kernel family of the capability table."""
    for kernel in load_kernels():
        if kernel.name == name:
            return kernel
    raise ValueError(f"kernel must name a family of the capability table, not {name!r}")


def data_sheet_times(
    device: Device, kernel: str, m: Floats, n: Floats, k: Floats, weight_bytes: Floats | None = None
) -> tuple[Floats, Floats]:
    """Return (memory_s, compute_s) of products [m, k] x [k, n] at data-sheet bandwidth and peak.

    Parameters
    ----------
    m, n, k : float64[...]
    weight_bytes : float64[...] | None      None: n * k weights at the family's own `stored_bits`.

    Raises
    ------
    TargetError                             If the device gives no peak for the kernel's arithmetic.
    """
    family = kernel_named(kernel)
    if device.gpu is None or family.math not in device.gpu.peak_op_per_s:
        raise TargetError(f"{device.name}: no peak for {family.math} arithmetic, which kernel {kernel} needs")
    weights = n * k * family.stored_bits / 8.0 if weight_bytes is None else weight_bytes
    moved = m * k * FORMAT_BYTES[family.activations[0]] + weights + m * n * OUTPUT_BYTES
    doubled = 2.0 if family.pattern == "2:4" else 1.0
    peak = device.gpu.peak_op_per_s[family.math].value * doubled
    return moved / device.memory.bandwidth_bytes_per_s.value, 2.0 * m * n * k / peak


def speed_of_light(
    device: Device, kernel: str, m: Floats, n: Floats, k: Floats, weight_bytes: Floats | None = None
) -> Floats:
    """Return max(memory, compute) plus the device's launch constant of this kernel, if its file gives one."""
    memory_s, compute_s = data_sheet_times(device, kernel, m, n, k, weight_bytes)
    assert device.gpu is not None  # data_sheet_times has checked it
    launch = device.gpu.launch_s.get(kernel)
    return np.maximum(memory_s, compute_s) + (0.0 if launch is None else launch.value)
