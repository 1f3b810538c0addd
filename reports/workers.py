"""A pool of worker processes that survives the loss of one, leaves none behind, and keeps to one thread each.

Workers are spawned, not forked: a fork of a process with BLAS or OpenMP threads can hang. So what is sent to them must
be importable: functions and classes at the top of a module. A worker ends itself when its driver is gone, so a killed
run leaves no orphans. An interrupt reaches the driver only, which then ends its workers.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, Protocol, TypeVar

__all__ = ["ProcessWorkers", "WorkerLost", "Workers", "run_all"]

log = logging.getLogger(__name__)

Task = TypeVar("Task")
Result = TypeVar("Result")

_THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


class WorkerLost(RuntimeError):
    """The process that ran a task died twice, the second time with no other task beside it."""


class Workers(Protocol):
    """What runs tasks elsewhere: processes of this machine, or a cluster."""

    def run(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result | BaseException]]:
        """Call `function` on every task and yield each with its result, or what it raised, as it comes."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


class ProcessWorkers:
    """Spawned processes, started when first needed and kept until `close`.

    When a worker dies, the tasks that were running are suspects: each is run once more, alone, so that only the one
    that kills its worker again is given up, as `WorkerLost`. When the caller stops early or is interrupted, running
    workers are killed and waiting tasks dropped.

    Parameters
    ----------
    count : int                  Processes at most.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"workers must be positive, not {count}")
        self._pool = _Pool(count)

    def run(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result | BaseException]]:
        """As `Workers.run`; `function` is importable by name, or an instance of an importable class."""
        waiting, suspects = deque(tasks), deque[Task]()
        pool = self._pool
        try:
            while waiting or suspects or pool.running:
                if suspects and not pool.running:
                    pool.submit(function, suspects.popleft(), alone=True)
                while waiting and not suspects and not pool.alone and len(pool.running) < pool.size:
                    pool.submit(function, waiting.popleft(), alone=False)
                alone = pool.alone
                lost: list[Task] = []
                for task, result in pool.collect():
                    if isinstance(result, BrokenProcessPool):
                        lost.append(task)
                    else:
                        yield task, result
                if lost and alone:
                    pool.kill()
                    yield lost[0], WorkerLost("the worker process died twice on this task (killed, or out of memory)")
                elif lost:
                    log.warning("a worker process died; %d running tasks are tried again, one at a time", len(lost))
                    suspects.extend(lost)
                    pool.kill()
        except BaseException:  # an interrupt, or a caller that stops early: end the workers, then go on with that
            pool.kill()
            raise

    def close(self) -> None:
        """End the processes when they are idle."""
        self._pool.close()


def run_all(
    function: Callable[[Task], Result], tasks: Sequence[Task], count: int
) -> Iterator[tuple[Task, Result | BaseException]]:
    """Run tasks in `count` processes that end with the last of them."""
    workers = ProcessWorkers(count)
    try:
        yield from workers.run(function, tasks)
    finally:
        workers.close()


class _Pool:
    """A process pool that knows what is running in it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.running: dict[Future[Any], Any] = {}
        self.alone = False
        self._context = _Context()
        self._executor: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[[Any], Any], task: Any, *, alone: bool) -> None:
        if self._executor is None:
            self._context = _Context()
            self._executor = ProcessPoolExecutor(self.size, mp_context=self._context, initializer=_watch_driver)
        try:
            future = self._executor.submit(function, task)
        except BrokenProcessPool as error:  # a worker died while none was awaited
            future = Future()
            future.set_exception(error)
        self.running[future] = task
        self.alone = alone

    def collect(self) -> list[tuple[Any, Any]]:
        """Wait for something to finish; after a loss, everything that was running has."""
        done, _ = wait(self.running, return_when=FIRST_COMPLETED)
        if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
            done, _ = wait(self.running)
        finished: list[tuple[Any, Any]] = []
        for future in done:
            error = future.exception()
            finished.append((self.running.pop(future), future.result() if error is None else error))
        self.alone = self.alone and bool(self.running)
        return finished

    def kill(self) -> None:
        for process in self._context.started:
            if process.is_alive():
                process.kill()
        self.close()
        self.running.clear()

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None


class _Worker(SpawnProcess):
    """A process whose numeric libraries start with one thread, and that an interrupt of the terminal does not reach."""

    def start(self) -> None:
        with _single_threaded(), _interrupt_blocked():
            super().start()


class _Context(SpawnContext):
    """The spawn context, remembering the processes it made, so that they can be ended."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[_Worker] = []

    def Process(self, *args: object, **kwargs: object) -> _Worker:  # type: ignore[override]  # a class attribute there
        process = _Worker(*args, **kwargs)  # type: ignore[arg-type]
        self.started.append(process)
        return process


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Numeric libraries read their thread count from the environment when first imported: give children a one."""
    before = {name: os.environ.get(name) for name in _THREAD_LIMITS}
    os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Children inherit the blocked signal; one that comes meanwhile is delivered to the driver afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch_driver() -> None:
    """In a worker: end at once when the driver is gone."""
    driver = multiprocessing.parent_process()
    if driver is None:
        return
    sentinel = driver.sentinel

    def end_with_driver() -> None:
        wait_for([sentinel])
        os._exit(1)

    threading.Thread(target=end_with_driver, name="driver-watch", daemon=True).start()
