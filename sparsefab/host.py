"""This machine as a target: measured once by the kernels' own probe, in the schema that cost models read."""

import hashlib
import os
import platform
from pathlib import Path

from sparsefab.kernels_cpu.probe import MachinePeaks, measure
from sparsefab.targets import CpuPeaks, MeasuredCpu

__all__ = ["machine_key", "measure_host"]


def machine_key() -> str:
    """Name this machine and its software: a file measured on another is not read."""
    import llvmlite
    import numba

    facts = (_cpu_model(), str(os.cpu_count()), platform.machine(), numba.__version__, llvmlite.__version__)
    return hashlib.sha256("|".join(facts).encode()).hexdigest()[:12]


def measure_host(date: str, seconds: float = 2.0) -> MeasuredCpu:
    """Measure the peaks of one thread and of all; takes some seconds and as much again to compile the first time."""
    peaks = measure(seconds=seconds)
    dot, dot_all = peaks.dot_macs_per_s, peaks.dot_macs_per_s_all_threads
    flops = peaks.float_macs_per_s or peaks.clock_hz
    single = CpuPeaks(
        threads=1, int8_op_per_s=2 * (dot or flops), fp32_op_per_s=2 * flops, memory_bytes_per_s=peaks.read_bytes_per_s
    )
    if peaks.threads == 1:
        rows: tuple[CpuPeaks, ...] = (single,)
    else:
        # all threads together do no less than one: a lower figure says that the machine was busy
        gain = max(dot_all / dot, 1.0) if dot and dot_all else float(peaks.threads)
        rows = (
            single,
            CpuPeaks(
                threads=peaks.threads,
                int8_op_per_s=2 * (dot or flops) * gain,
                fp32_op_per_s=2 * flops * gain,
                memory_bytes_per_s=max(peaks.read_bytes_per_s_all_threads, peaks.read_bytes_per_s),
            ),
        )
    return MeasuredCpu(
        name=_title(peaks),
        date=date,
        isa=peaks.level,
        cores=peaks.threads,
        memory_bytes=_memory_bytes(),
        peaks=rows,
        last_level_cache_bytes=_last_level_cache_bytes(),
    )


def _title(peaks: MachinePeaks) -> str:
    return f"{_cpu_model()}, {peaks.threads} threads, {peaks.clock_hz / 1e9:.2f} GHz"


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _last_level_cache_bytes() -> int | None:
    """The largest cache that the kernel lists, None when it lists none."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        sizes.append(int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20}[text[-1]] if text[-1] in "KM" else int(text))
    return max(sizes, default=None)
