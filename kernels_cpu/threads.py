"""Kernels spread over threads: panels first, then runs of row groups, so that no two threads write one line.

A task is one panel and one run of groups.  Threads are Numba's, OpenMP's team where there is one (some microseconds a
region, far more with the work queue); a product of a few microseconds is faster on one thread.  Each thread takes the
next task when it is done with one: a processor that something else slows down, or stops, gets fewer of them.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from sparsefab.kernels_cpu.kernel import kernel
from sparsefab.kernels_cpu.lowering import pointer

__all__ = ["available_threads", "check_threads", "run_blocks", "run_threaded"]


def available_threads() -> int:
    """Return the most threads that a product may use in this process."""
    return int(numba.config.NUMBA_NUM_THREADS)


def check_threads(threads: int) -> None:
    """Raise a ValueError unless this process may run `threads` threads."""
    if not 1 <= threads <= available_threads():
        raise ValueError(f"threads must be 1 to {available_threads()}, not {threads}")


def run_threaded(
    serial: Any,
    threads: int,
    layer: Any,
    activations: Any,
    out: Any,
    token_scales: Any,
    groups: int,
    *,
    by_panel: bool,
    unit: int = 1,
) -> None:
    """Call a serial kernel for all tasks, whole panels if `by_panel`, on threads that `check_threads` passed.

    A kernel's `task` is the number of the thread, below `threads`.

    unit : int                   Groups that a kernel does together and that are not parted. More than one also asks for
                                 as few tasks as there are threads: such a kernel prepares something for each.
    """
    chunks = 1 if by_panel else _chunks(threads, len(activations), -(-groups // unit), 1 if unit > 1 else 4)
    claimed = np.zeros(1, np.int64)
    with _Team(threads):
        _threaded(serial)(threads, claimed, layer, activations, out, token_scales, groups, chunks, unit)


def run_blocks(serial: Any, threads: int, blocks: int, arguments: tuple[Any, ...]) -> None:
    """Call `serial(*arguments, first, last)` for runs of blocks on `threads` threads."""
    with _Team(threads):
        _threaded_blocks(serial)(threads, np.zeros(1, np.int64), arguments, blocks, min(blocks, 8 * threads))


class _Team:
    """So many of Numba's threads, and as many as before afterwards; asking is cheaper than setting."""

    def __init__(self, threads: int) -> None:
        self._threads, self._before = threads, numba.get_num_threads()

    def __enter__(self) -> None:
        if self._before != self._threads:
            numba.set_num_threads(self._threads)

    def __exit__(self, *error: object) -> None:
        if self._before != self._threads:
            numba.set_num_threads(self._before)


def _chunks(threads: int, panels: int, units: int, each: int) -> int:
    """Return the runs of units in a panel: one where there are panels enough for threads to even out."""
    return 1 if threads == 1 or panels >= 8 * threads else min(units, each * threads)


@intrinsic
def _claim(typing_context: Any, address: Any) -> Any:
    """`_claim(address)`: add one to an int64 that all threads see, and return what it was."""

    def emit(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        kind = ir.IntType(64)
        return builder.atomic_rmw("add", pointer(builder, arguments[0], kind), kind(1), "monotonic")

    return types.intp(types.intp), emit


@functools.cache
def _threaded(serial: Any) -> Any:
    def threaded(threads, claimed, layers, activations, out, token_scales, groups, chunks, unit):
        units = (groups + unit - 1) // unit
        for unsigned in prange(threads):
            thread = np.int64(unsigned)
            task = _claim(claimed.ctypes.data)
            while task < len(activations) * chunks:
                panel, chunk = task // chunks, task % chunks
                first, last = unit * (units * chunk // chunks), min(groups, unit * (units * (chunk + 1) // chunks))
                serial(layers, activations, out, token_scales, thread, panel, panel + 1, first, last)
                task = _claim(claimed.ctypes.data)

    return kernel(threaded, parallel=True)


@functools.cache
def _threaded_blocks(serial: Any) -> Any:
    def threaded(threads, claimed, arguments, blocks, chunks):
        for _ in prange(threads):
            task = _claim(claimed.ctypes.data)
            while task < chunks:
                first, last = blocks * task // chunks, blocks * (task + 1) // chunks
                serial(*arguments, first, last)
                task = _claim(claimed.ctypes.data)

    return kernel(threaded, parallel=True)
