"""Kernels spread over threads: panels first, then runs of row groups, so that no two threads write one line.

A task is one panel and one run of groups.  Threads are Numba's, OpenMP's team where there is one (some microseconds a
region, far more with the work queue); a product of a few microseconds is faster on one thread.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

import numba
from numba import prange

from sparsefab.kernels_cpu.kernel import kernel

__all__ = ["available_threads", "check_threads", "run_blocks", "run_threaded"]


def available_threads() -> int:
    """Return the most threads that a product may use in this process."""
    return int(numba.config.NUMBA_NUM_THREADS)


def check_threads(threads: int) -> None:
    """Raise a ValueError unless this process may run `threads` threads."""
    if not 1 <= threads <= available_threads():
        raise ValueError(f"threads must be 1 to {available_threads()}, not {threads}")


def tasks(threads: int, panels: int, groups: int) -> int:
    """Return into how many tasks a product is cut."""
    return panels * _chunks(threads, panels, groups)


def run_threaded(
    serial: Any, threads: int, layer: Any, activations: Any, out: Any, token_scales: Any, groups: int, *, by_panel: bool
) -> None:
    """Call a serial kernel for all tasks, whole panels if `by_panel`, on threads that `check_threads` passed."""
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        chunks = 1 if by_panel else _chunks(threads, len(activations), groups)
        _threaded(serial)(layer, activations, out, token_scales, groups, chunks)
    finally:
        numba.set_num_threads(before)


def run_blocks(serial: Any, threads: int, blocks: int, arguments: tuple[Any, ...]) -> None:
    """Call `serial(*arguments, first, last)` for runs of blocks on `threads` threads."""
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        _threaded_blocks(serial)(arguments, blocks, min(blocks, 8 * threads))
    finally:
        numba.set_num_threads(before)


def _chunks(threads: int, panels: int, groups: int) -> int:
    """Return the runs of groups in a panel: one where panels alone keep all threads at work."""
    return 1 if threads == 1 or panels % threads == 0 or panels >= 8 * threads else min(groups, 4 * threads)


@functools.cache
def _threaded(serial: Any) -> Any:
    def threaded(layers, activations, out, token_scales, groups, chunks):
        for task in prange(len(activations) * chunks):
            panel, chunk = task // chunks, task % chunks
            first, last = groups * chunk // chunks, groups * (chunk + 1) // chunks
            serial(layers, activations, out, token_scales, task, panel, panel + 1, first, last)

    return kernel(threaded, parallel=True)


@functools.cache
def _threaded_blocks(serial: Any) -> Any:
    def threaded(arguments, blocks, chunks):
        for task in prange(chunks):
            first, last = blocks * task // chunks, blocks * (task + 1) // chunks
            serial(*arguments, first, last)

    return kernel(threaded, parallel=True)
