"""This machine as a target: peaks by the kernels' own probe, and kernels timed over shapes, as models read them."""

import hashlib
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from sparsefab.kernels_cpu.caches import cache_sizes
from sparsefab.kernels_cpu.features import Level, best_level
from sparsefab.kernels_cpu.gemv import LaneWeights, MatrixVector
from sparsefab.kernels_cpu.panels import aligned_empty, interleaved, panels_of
from sparsefab.kernels_cpu.probe import MachinePeaks, measure
from sparsefab.kernels_cpu.spmm import BlockWeights, Product, Reals
from sparsefab.targets import CpuPeaks, KernelSample, MeasuredCpu

__all__ = ["machine_key", "measure_host", "time_kernels"]

TimedKernel = Literal["dense_int8", "block_4x1", "dequantize_int8"]
_TIMED: tuple[TimedKernel, ...] = ("dense_int8", "block_4x1", "dequantize_int8")
_SIDES = (256, 384, 576, 768, 1024, 1536, 2048, 3072, 4096)
_LARGEST = 4096 * 2048  # weights of a timed matrix
_TOKENS = (1, 2, 4, 8, 16, 24, 32, 64, 100, 128, 256)
_FEW_TOKENS = (1, 2, 3, 4, 6, 8, 12, 16)  # the 4-bit kernel is the decode side's
_GROUP = 128
_COUNTS = 5  # of these, drawn for each matrix
_TURNS = 9
_TURN_S = 120e-6
_QUIET = 0.25  # quantile of the turns that is kept: other work on the machine only ever adds time


def machine_key() -> str:
    """Name this machine and its software: a file measured on another is not read."""
    import llvmlite
    import numba

    versions = (numba.__version__, llvmlite.__version__)
    facts = (_cpu_model(), str(os.cpu_count()), platform.machine(), best_level().value, *versions)
    return hashlib.sha256("|".join(facts).encode()).hexdigest()[:12]


def measure_host(date: str, seconds: float = 2.0, *, level: Level | None = None) -> MeasuredCpu:
    """Measure the peaks of one thread and of all; takes some seconds and as much again to compile the first time.

    level : Level | None        Of the kernels that will be timed; None is the best that runs here.
    """
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
        isa=peaks.level if level is None else level.value,
        cores=peaks.threads,
        memory_bytes=_memory_bytes(),
        peaks=rows,
        last_level_cache_bytes=max(cache_sizes().values(), default=None),
    )


def time_kernels(
    seconds: float = 20.0,
    *,
    seed: int = 0,
    level: Level | None = None,
    clock: Callable[[], float] = time.thread_time,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[KernelSample, ...]:
    """Time the int8 kernels of one thread over random shapes, densities and token counts; weights are hot.

    Parameters
    ----------
    seconds : float             Wall time to spend, about; compiling comes on top. The plan is the same for every
                                budget, a small one measures fewer matrices of it.
    level : Level | None        Of the int8 products; None is the best that runs here.
    clock : callable() -> float             CPU time of the calling thread in seconds.
    progress : callable(done, total) | None     Called after each matrix with tenths of a second.
    """
    if not seconds > 0:
        raise ValueError(f"seconds must be positive, not {seconds}")
    random = np.random.default_rng(seed)
    for kernel in _TIMED:  # compile every width before the budget runs
        _time_matrix(kernel, 256, 256, 0.5, random, level, clock, turns=1)
    samples: list[KernelSample] = []
    begin, spent = time.perf_counter(), 0.0
    while spent < seconds:
        for kernel in _TIMED:
            rows, columns = (int(side) for side in random.choice(_SIDES, 2))
            if rows * columns > _LARGEST:
                rows = _LARGEST // columns
            density = float(random.choice([0.1, 0.15, 0.2, 0.3, 0.4, 0.5])) if kernel == "block_4x1" else 1.0
            samples += _time_matrix(kernel, rows, columns, density, random, level, clock)
        spent = time.perf_counter() - begin
        if progress is not None:
            progress(min(int(10 * spent), int(10 * seconds)), int(10 * seconds))
    return tuple(samples)


def _time_matrix(
    kernel: TimedKernel,
    rows: int,
    columns: int,
    density: float,
    random: np.random.Generator,
    level: Level | None,
    clock: Callable[[], float],
    turns: int = _TURNS,
) -> list[KernelSample]:
    """Time one matrix on some token counts, which take turns; a figure is the lower quartile of its turns."""
    calls, stored = _calls(kernel, rows, columns, density, random, level, every=turns == 1)
    table = []
    for _ in range(turns):
        turn = []
        for call in calls.values():
            call()
            begin, count, spent = clock(), 0, 0.0
            while spent < _TURN_S:
                call()
                count += 1
                spent = clock() - begin
            turn.append(spent / count)
        table.append(turn)
    quartiles = np.quantile(np.array(table), _QUIET, axis=0)
    return [
        KernelSample(
            kernel=kernel, rows=rows, columns=columns, tokens=tokens, density=stored, threads=1, seconds=float(part)
        )
        for tokens, part in zip(calls, quartiles, strict=True)
    ]


def _drawn(counts: tuple[int, ...], random: np.random.Generator, every: bool) -> list[int]:
    return list(counts) if every else sorted(int(count) for count in random.choice(counts, _COUNTS, replace=False))


def _calls(
    kernel: TimedKernel,
    rows: int,
    columns: int,
    density: float,
    random: np.random.Generator,
    level: Level | None,
    every: bool,
) -> tuple[dict[int, Callable[[], object]], float]:
    """Return what to time for each token count, and the density as drawn; activations are in panels already."""
    scales = np.full(rows, 1e-3, np.float32)
    if kernel == "dequantize_int8":
        blocks, groups = -(-rows // 16), -(-columns // _GROUP)
        values = aligned_empty((blocks, groups, _GROUP // 32, 256), np.uint8)
        values[:] = random.integers(0, 256, values.shape)
        multipliers = random.integers(1, 64, (blocks, groups, 16)).astype(np.uint8)
        reach = 127 * 8 * 64 * columns
        weights = LaneWeights(
            rows=rows, columns=columns, group_size=_GROUP, bits=4, values=values, multipliers=multipliers,
            zeros=np.array([[[8]]], np.uint8), reach=reach, narrow=True,
        )  # fmt: skip
        vector = MatrixVector(weights, row_scales=scales)
        codes = random.integers(-127, 128, (max(_FEW_TOKENS), columns)).astype(np.int8)
        return {tokens: partial(vector.run, codes[:tokens]) for tokens in _drawn(_FEW_TOKENS, random, every)}, 1.0
    matrix = random.integers(1, 128, (rows, columns), np.int8)
    stored = 1.0
    if kernel == "block_4x1":
        kept = random.random((-(-rows // 4), columns)) < density
        mask = np.repeat(kept, 4, axis=0)[:rows]
        matrix, stored = np.where(mask, matrix, np.int8(0)), max(float(mask.mean()), 1 / mask.size)
    block = BlockWeights.from_columns(matrix) if kernel == "block_4x1" else BlockWeights.from_matrix(matrix)
    product = Product(block, Reals(row_scales=scales), zero_point=128, level=level)
    codes = random.integers(-127, 128, (max(_TOKENS), columns)).astype(np.int8)
    calls: dict[int, Callable[[], object]] = {}
    for tokens in _drawn(_TOKENS, random, every):
        panels = panels_of(codes[:tokens], width=product.width(tokens))
        panels = interleaved(panels) if block.aligned else panels
        calls[tokens] = partial(product.run, panels, out=product.run(panels))
    return calls, stored


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
