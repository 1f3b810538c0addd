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
from typing import Generic, TypeVar

__all__ = ["WorkerLost", "run_all"]

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


def run_all(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[tuple[Task, Result | BaseException]]:
    """Call `function` on every task in worker processes and yield each result, or what it raised, as it comes.

    When a worker dies, the tasks that were running are suspects: each is run once more, alone, so that only the one
    that kills its worker again is given up, as `WorkerLost`. When the caller stops early or is interrupted, running
    workers are killed and waiting tasks dropped.

    Parameters
    ----------
    function                     Importable by name, or an instance of an importable class.
    tasks                        Anything that can be pickled.
    workers : int                Processes at most.
    """
    if workers < 1:
        raise ValueError(f"workers must be positive, not {workers}")
    waiting, suspects = deque(tasks), deque[Task]()
    pool = _Pool(function, min(workers, len(tasks)))
    try:
        while waiting or suspects or pool.running:
            if suspects and not pool.running:
                pool.submit(suspects.popleft(), alone=True)
            while waiting and not suspects and not pool.alone and len(pool.running) < pool.size:
                pool.submit(waiting.popleft(), alone=False)
            alone = pool.alone
            lost: list[Task] = []
            for task, result in pool.collect():
                if isinstance(result, BrokenProcessPool):
                    lost.append(task)
                else:
                    yield task, result
            if lost and alone:
                pool.restart()
                yield lost[0], WorkerLost("the worker process died twice on this task (killed, or out of memory)")
            elif lost:
                log.warning("a worker process died; %d running tasks are tried again, one at a time", len(lost))
                suspects.extend(lost)
                pool.restart()
    except BaseException:  # an interrupt, or a caller that stops early: end the workers, then go on with that
        pool.kill()
        raise
    pool.close()


class _Pool(Generic[Task, Result]):
    """A process pool that knows what is running in it."""

    def __init__(self, function: Callable[[Task], Result], size: int) -> None:
        self.size = size
        self.running: dict[Future[Result], Task] = {}
        self.alone = False
        self._function = function
        self._start()

    def _start(self) -> None:
        self._context = _Context()
        self._executor = ProcessPoolExecutor(max(1, self.size), mp_context=self._context, initializer=_watch_driver)

    def submit(self, task: Task, *, alone: bool) -> None:
        try:
            future = self._executor.submit(self._function, task)
        except BrokenProcessPool as error:  # a worker died while none was awaited
            future = Future()
            future.set_exception(error)
        self.running[future] = task
        self.alone = alone

    def collect(self) -> list[tuple[Task, Result | BaseException]]:
        """Wait for something to finish; after a loss, everything that was running has."""
        done, _ = wait(self.running, return_when=FIRST_COMPLETED)
        if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
            done, _ = wait(self.running)
        finished: list[tuple[Task, Result | BaseException]] = []
        for future in done:
            error = future.exception()
            finished.append((self.running.pop(future), future.result() if error is None else error))
        self.alone = self.alone and bool(self.running)
        return finished

    def restart(self) -> None:
        self.kill()
        self._start()

    def kill(self) -> None:
        for process in self._context.started:
            if process.is_alive():
                process.kill()
        self.close()

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


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
