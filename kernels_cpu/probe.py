"""Measured limits of this machine: what the fractions of peak in every kernel table are divided by.

    peaks = measure()
    peaks.dot_macs_per_s          products u8 x s8 a second, one thread, registers only
    peaks.read_bytes_per_s        memory reads far beyond the last cache

Single-thread figures are medians of thread CPU time, which other work on the machine disturbs little; figures for
several threads are wall time.  Nothing is carried over from another day: measure beside what is compared.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np

from sparsefab.kernels_cpu.features import Level, best_level, effective_features, runs
from sparsefab.kernels_cpu.half import native_halves
from sparsefab.kernels_cpu.intrinsics import dot, fma, load, multiply_add_bytes, multiply_add_words, splat, store, view
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.panels import aligned_zeros
from sparsefab.kernels_cpu.threads import run_blocks
from sparsefab.kernels_cpu.tiles import configure, release, tile_dot
from sparsefab.kernels_cpu.vector import f16x32, f32x8, f32x16, i8x32, i8x64, i16x16, i32x8, i32x16

__all__ = [
    "FusedChain",
    "MachinePeaks",
    "dot_chain",
    "dot_chains",
    "dot_peak",
    "fused_chain",
    "measure",
    "reader",
    "usable_threads",
]

_STEPS = 20_000  # of 12 independent instructions: some 30 microseconds
_DOTS = (Level.AVX512_AMX, Level.AVX512_VNNI, Level.AVX_VNNI)  # levels that have vpdpbusd
_TILE_MACS = 16 * 16 * 64
_L1_BYTES, _L2_BYTES = 24 << 10, 512 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class MachinePeaks:
    """What one machine can do at most, as measured in this process.

    A field is None where the machine lacks the instruction that it measures.
    """

    processor: str
    level: str
    threads: int
    clock_hz: float
    dot_macs_per_s: float | None
    dot_macs_per_s_all_threads: float | None
    dot_macs_per_cycle: float | None
    tile_macs_per_s: float | None
    float_macs_per_s: float | None
    l1_bytes_per_s: float
    l2_bytes_per_s: float
    read_bytes_per_s: float
    read_bytes_per_s_all_threads: float
    versions: dict[str, str]


def measure(*, seconds: float = 1.0, threads: int | None = None, memory_bytes: int = 256 << 20) -> MachinePeaks:
    """Measure the limits that kernels and the CPU cost model are held against.

    Parameters
    ----------
    seconds : float              Time to spend, about; compiling comes on top at the first call.
    threads : int | None         Threads for the figures of several threads; None takes all that this process may use.
    memory_bytes : int           Size of the buffer that counts as memory; larger than the last cache.

    Raises
    ------
    ValueError                   If an argument is out of range.
    """
    if not seconds > 0:
        raise ValueError(f"seconds must be positive, not {seconds}")
    if memory_bytes < 1 << 20:
        raise ValueError(f"memory_bytes must be at least 1 MiB, not {memory_bytes}")
    threads = usable_threads() if threads is None else threads
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    share = seconds / 10
    level, scratch = best_level(), [aligned_zeros((12 * 64,), np.uint8) for _ in range(threads)]
    clock = 16 * _STEPS / _median_s(lambda: _multiply_chain(_STEPS, 3), share)
    dots = dots_all = floats = None
    if level in _DOTS:
        wide = level is not Level.AVX_VNNI
        dot_chain, products = _dots(wide), _STEPS * 12 * (64 if wide else 32)
        dots = products / _median_s(lambda: dot_chain(_STEPS, scratch[0]), share)
        dots_all = products * _calls_per_s(lambda i: dot_chain(_STEPS, scratch[i]), threads, share)
    tiles = None
    if level is Level.AVX512_AMX:
        tiles = _STEPS * 4 * _TILE_MACS / _median_s(lambda: _tile_chain(_STEPS), share)
    if runs(Level.AVX2) and "fma" in effective_features():
        wide = runs(Level.AVX512)
        float_chain, products = _floats(wide), _STEPS * 12 * (16 if wide else 8)
        floats = products / _median_s(lambda: float_chain(_STEPS, scratch[0]), share)
    read = _reader()
    memory = aligned_zeros((memory_bytes // 64 * 8,), np.uint64)
    memory.fill(1)  # untouched pages would all be one page of zeros, in cache
    lines = memory.size // 8 // threads
    parts = [memory[8 * lines * i : 8 * lines * (i + 1)] for i in range(threads)]
    return MachinePeaks(
        processor=_processor(),
        level=level.value,
        threads=threads,
        clock_hz=clock,
        dot_macs_per_s=dots,
        dot_macs_per_s_all_threads=dots_all,
        dot_macs_per_cycle=None if dots is None else dots / clock,
        tile_macs_per_s=tiles,
        float_macs_per_s=floats,
        l1_bytes_per_s=_read_rate(read, memory[: _L1_BYTES // 8], scratch[0], share),
        l2_bytes_per_s=_read_rate(read, memory[: _L2_BYTES // 8], scratch[0], share),
        read_bytes_per_s=_read_rate(read, memory, scratch[0], share),
        read_bytes_per_s_all_threads=parts[0].nbytes
        * _calls_per_s(lambda i: read(parts[i], 1, scratch[i]), threads, share),
        versions={
            "python": platform.python_version(),
            "numpy": np.__version__,
            "numba": numba.__version__,
            "llvmlite": llvmlite.__version__,
        },
    )


def dot_chain() -> tuple[Callable[[], None], int] | None:
    """Return a call that does nothing but dot products, and how many products u8 x s8 it makes.

    With VNNI that is vpdpbusd; with AVX2 or AVX512 alone vpmaddubsw and vpmaddwd on 256 bits, the addition left out: it
    takes no multiplier. None without any of these.
    """
    level = best_level()
    if level is Level.PORTABLE:
        return None
    wide, scratch = level in _DOTS and level is not Level.AVX_VNNI, aligned_zeros((12 * 64,), np.uint8)
    chain = _dots(wide) if level in _DOTS else _chain_of(_pair_step, i32x8, i8x32)
    return (lambda: chain(_STEPS, scratch)), _STEPS * 12 * (64 if wide else 32)


def dot_chains(threads: int) -> tuple[Callable[[], None], Callable[[], None]] | None:
    """Return two calls: as many dot products as `threads` of `dot_chain` by ten, in this thread, and on all of them.

    Threads are those of the products and share the work as those do; a call takes long, some 0.3 ms, beside starting
    them. None where there is no `dot_chain`.
    """
    level = best_level()
    if level is Level.PORTABLE:
        return None
    spread = _spread(level in _DOTS and level is not Level.AVX_VNNI, level in _DOTS)
    blocks, steps = 8 * threads, 10 * _STEPS // 8
    scratch = aligned_zeros((blocks, 12 * 64), np.uint8)
    return (
        lambda: spread(scratch, steps, 0, blocks),
        lambda: run_blocks(spread, threads, blocks, (scratch, steps)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedChain:
    """A call that does nothing but fused steps of `steps`, 'binary16' or 'binary32', and how many it makes."""

    call: Callable[[], None]
    macs: int
    steps: str


def fused_chain() -> FusedChain | None:
    """Return a chain of fused steps: of binary16 with AVX512-FP16, else of binary32; None without AVX2 and FMA."""
    scratch = aligned_zeros((12 * 64,), np.uint8)
    if native_halves():
        chain = _halves()
        return FusedChain(call=lambda: chain(_STEPS, scratch), macs=_STEPS * 12 * 32, steps="binary16")
    if not (runs(Level.AVX2) and "fma" in effective_features()):
        return None
    wide = runs(Level.AVX512)
    floats = _floats(wide)
    return FusedChain(call=lambda: floats(_STEPS, scratch), macs=_STEPS * 12 * (16 if wide else 8), steps="binary32")


def dot_peak() -> float | None:
    """Return the products a second of `dot_chain`, one thread."""
    chain = dot_chain()
    return None if chain is None else chain[1] / _median_s(chain[0], 0.1)


def reader() -> Callable[[Any], None]:
    """Return a call that reads every byte of a uint64 array that starts on a 64-byte boundary, once."""
    read, sink = _reader(), aligned_zeros((64,), np.uint8)
    return lambda array: read(array, 1, sink)


def usable_threads() -> int:
    """Return how many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _median_s(call: Callable[[], Any], seconds: float) -> float:
    """Median thread CPU time of one call; warmed up, at least nine calls."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 9 or time.perf_counter() < end:
        begin = time.thread_time_ns()
        call()
        times.append(time.thread_time_ns() - begin)
    return max(statistics.median(times), 1.0) * 1e-9


def _calls_per_s(call: Callable[[int], Any], threads: int, seconds: float) -> float:
    """Calls a second, wall time, of `threads` threads at work together; call(i) runs in thread i."""
    call(0)
    begin = time.perf_counter()
    call(0)
    repeats = max(1, int(seconds / 3 / max(time.perf_counter() - begin, 1e-7)))

    def work(index: int) -> None:
        for _ in range(repeats):
            call(index)

    rates: list[float] = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(3):
            begin = time.perf_counter()
            list(pool.map(work, range(threads)))
            rates.append(threads * repeats / (time.perf_counter() - begin))
    return statistics.median(rates)


def _read_rate(read: Any, buffer: Any, sink: Any, seconds: float) -> float:
    repeats = max(1, (4 << 20) // buffer.nbytes)
    return float(buffer.nbytes * repeats / _median_s(lambda: read(buffer, repeats, sink), seconds))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("model name")]
    return names[0] if names else platform.machine()


# --- what is timed ----------------------------------------------------------------------------------------------------
@kernel
def _multiply_chain(steps, factor):
    """Run four dependent multiply-and-xor pairs a step: 3 + 1 cycles each on every 64-bit core of note."""
    x = factor
    for _ in range(steps):
        x = (x * factor) ^ factor
        x = (x * factor) ^ factor
        x = (x * factor) ^ factor
        x = (x * factor) ^ factor
    return x


@kernel
def _read_512(buffer, repeats, sink):
    """Read whole 512-byte blocks `repeats` times, eight lines at a time."""
    base, size = buffer.ctypes.data, buffer.nbytes // 512 * 512
    a = b = c = d = load(i32x16, base)
    for _ in range(repeats):
        for at in range(base, base + size, 512):
            a, b = a ^ load(i32x16, at), b ^ load(i32x16, at + 64)
            c, d = c ^ load(i32x16, at + 128), d ^ load(i32x16, at + 192)
            a, b = a ^ load(i32x16, at + 256), b ^ load(i32x16, at + 320)
            c, d = c ^ load(i32x16, at + 384), d ^ load(i32x16, at + 448)
    store(sink.ctypes.data, (a ^ b) ^ (c ^ d))


def _reader() -> Any:
    return _read_512 if runs(Level.AVX512) else _read_256 if runs(Level.AVX2) else _read_portable


@kernel
def _read_256(buffer, repeats, sink):
    """Read whole 512-byte blocks `repeats` times, four lines at a time."""
    base, size = buffer.ctypes.data, buffer.nbytes // 512 * 512
    a = b = c = d = load(i32x8, base)
    for _ in range(repeats):
        for at in range(base, base + size, 256):
            a, b = a ^ load(i32x8, at), b ^ load(i32x8, at + 32)
            c, d = c ^ load(i32x8, at + 64), d ^ load(i32x8, at + 96)
            a, b = a ^ load(i32x8, at + 128), b ^ load(i32x8, at + 160)
            c, d = c ^ load(i32x8, at + 192), d ^ load(i32x8, at + 224)
    store(sink.ctypes.data, (a ^ b) ^ (c ^ d))


@kernel
def _read_portable(buffer, repeats, sink):
    total = np.uint64(0)
    for _ in range(repeats):
        for i in range(buffer.size):
            total ^= buffer[i]
    sink[0] = total & np.uint64(255)


@kernel
def _tile_chain(steps):
    """Multiply four pairs of tiles a step, the least that hides the latency."""
    configure()
    for _ in range(steps):
        tile_dot(0, 4, 6)
        tile_dot(1, 4, 7)
        tile_dot(2, 5, 6)
        tile_dot(3, 5, 7)
    release()


def _chain_of(step: Any, accumulator: Any, operand: Any) -> Any:
    """Assemble a kernel of twelve independent accumulators, the least that hides the latency; no memory inside."""

    @kernel
    def chain(steps, scratch):
        at = scratch.ctypes.data
        u = load(operand, at)
        a0, a1, a2 = load(accumulator, at), load(accumulator, at + 64), load(accumulator, at + 128)
        a3, a4, a5 = load(accumulator, at + 192), load(accumulator, at + 256), load(accumulator, at + 320)
        a6, a7, a8 = load(accumulator, at + 384), load(accumulator, at + 448), load(accumulator, at + 512)
        a9, aa, ab = load(accumulator, at + 576), load(accumulator, at + 640), load(accumulator, at + 704)
        for _ in range(steps):
            a0, a1, a2, a3 = step(a0, u), step(a1, u), step(a2, u), step(a3, u)
            a4, a5, a6, a7 = step(a4, u), step(a5, u), step(a6, u), step(a7, u)
            a8, a9, aa, ab = step(a8, u), step(a9, u), step(aa, u), step(ab, u)
        store(at, (a0 + a1) + (a2 + a3) + ((a4 + a5) + (a6 + a7)) + ((a8 + a9) + (aa + ab)))

    return chain


@piece
def _dot_step(a, u):
    return dot(a, u, u)


@piece
def _pair_step(a, u):
    return multiply_add_words(multiply_add_bytes(view(i8x32, a), u), splat(i16x16, 1))


@piece
def _float_step(a, u):
    return fma(u, u, a)


@functools.cache
def _dots(wide: bool) -> Any:
    return _chain_of(_dot_step, i32x16, i8x64) if wide else _chain_of(_dot_step, i32x8, i8x32)


@functools.cache
def _spread(wide: bool, whole: bool) -> Any:
    """A kernel that runs the chain of `dot_chain` for each of some blocks; whole: it is one instruction a step."""
    chain = _dots(wide) if whole else _chain_of(_pair_step, i32x8, i8x32)

    def spread(scratch, steps, first, last):
        for block in range(first, last):
            chain(steps, scratch[block])

    return kernel(spread)


@functools.cache
def _floats(wide: bool) -> Any:
    return _chain_of(_float_step, f32x16, f32x16) if wide else _chain_of(_float_step, f32x8, f32x8)


@functools.cache
def _halves() -> Any:
    return _chain_of(_float_step, f16x32, f16x32)
