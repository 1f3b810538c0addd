"""The pool: order, errors, deaths."""

import multiprocessing
import os
import signal

import pytest

from sparsefab.reports.workers import WorkerLost, run_all
from tests.unit.reports import toy


def invert(number: int) -> float:
    """1 / number; a negative number kills the worker."""
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1 / number


def test_results_and_errors_come_with_their_tasks() -> None:
    results = dict(run_all(invert, [1, 2, 0, 4], 2))
    assert isinstance(results.pop(0), ZeroDivisionError)
    assert results == {1: 1.0, 2: 0.5, 4: 0.25}
    assert multiprocessing.active_children() == []


def test_only_the_task_that_kills_its_worker_is_given_up() -> None:
    results = dict(run_all(invert, [1, 2, -1, 4, 5], 2))
    assert isinstance(results.pop(-1), WorkerLost)
    assert results == {1: 1.0, 2: 0.5, 4: 0.25, 5: 0.2}
    assert multiprocessing.active_children() == []


def test_a_caller_that_stops_early_leaves_no_process() -> None:
    results = run_all(invert, [1, 2, 4, 5], 2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


def test_numeric_libraries_in_a_worker_have_one_thread_and_the_driver_keeps_its_own() -> None:
    before = dict(os.environ)
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"]
    assert dict(run_all(toy.thread_limits, names, 2)) == dict.fromkeys(names, "1")
    assert dict(os.environ) == before


def test_an_interrupt_of_the_terminal_does_not_reach_a_worker() -> None:
    assert dict(run_all(toy.blocks, [signal.SIGINT], 1)) == {signal.SIGINT: True}
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_no_tasks_and_no_workers() -> None:
    assert list(run_all(invert, [], 2)) == []
    with pytest.raises(ValueError, match="workers must be positive"):
        list(run_all(invert, [1], 0))
