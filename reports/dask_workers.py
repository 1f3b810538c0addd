"""Workers on a Dask cluster: the scheduler's own retries, the driver's patience, and a clear end when it vanishes.

The cluster's workers must see the folders of the run under the same paths: they read the model and write the store.
"""

import contextlib
import logging
import queue
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

from sparsefab.errors import MissingToolError, SparseFabError
from sparsefab.reports.workers import WorkerLost

__all__ = ["DaskWorkers", "SchedulerLost"]

log = logging.getLogger(__name__)

Task = TypeVar("Task")
Result = TypeVar("Result")

_PATIENCE_S = 10.0  # a scheduler that has not answered for so long is gone
_POLL_S = 1.0


class SchedulerLost(SparseFabError):
    """The Dask scheduler cannot be reached, or stopped answering."""


class DaskWorkers:
    """Run tasks on the workers of a Dask scheduler.

    A task whose worker dies is run again elsewhere by the scheduler, a few times; then it is given up as `WorkerLost`.

    Parameters
    ----------
    address : str                As `tcp://host:8786`.

    Raises
    ------
    SchedulerLost                If nothing answers there.
    MissingToolError             If Dask is not installed.
    """

    def __init__(self, address: str, patience_s: float = _PATIENCE_S) -> None:
        try:
            import distributed
        except ImportError as error:
            raise MissingToolError("--scheduler needs Dask; install sparsefab[dask]") from error
        if "://" not in address:
            raise SchedulerLost(f"the address of a Dask scheduler is like tcp://host:8786, not {address!r}")
        self.address, self._patience_s = address, patience_s
        try:
            # reconnecting would not bring back what the scheduler knew
            self._client: Any = distributed.Client(address, timeout=patience_s, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise SchedulerLost(
                f"no Dask scheduler answers at {address}: {error or type(error).__name__}; start one with "
                "`dask scheduler`, or leave out --scheduler"
            ) from error
        if not self._client.scheduler_info(n_workers=-1)["workers"]:
            log.warning("the Dask scheduler at %s has no workers yet; waiting for one", address)

    def run(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result | BaseException]]:
        """As `Workers.run`; raises SchedulerLost when the scheduler vanishes: what was stored stays.

        Dask blames a worker's death on every task that was given to it, also on those that only waited there: a task
        whose workers died is tried again alone, when the others are done.
        """
        suspects = []
        with contextlib.closing(self._collect(function, tasks)) as results:
            for task, result in results:
                if isinstance(result, WorkerLost):
                    suspects.append(task)
                else:
                    yield task, result
        for task in suspects:
            yield from self._collect(function, [task])

    def _collect(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Generator[tuple[Task, Result | BaseException], None, None]:
        """Results in the order in which they come; WorkerLost for a task whose workers died."""
        from distributed import CancelledError, KilledWorker

        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        futures = {self._client.submit(function, task, pure=False): task for task in tasks}
        for future in futures:
            future.add_done_callback(done.put)
        try:
            while futures:
                future = self._next(done, len(futures))
                task = futures[future]
                try:
                    result = future.result(timeout=self._patience_s)
                except KilledWorker as error:
                    result = WorkerLost(f"its worker died again and again: {str(error).splitlines()[0]}")
                except CancelledError as error:
                    raise self._lost(len(futures)) from error
                except TimeoutError as error:
                    self._check(len(futures))
                    if future.status != "error":  # the worker died that held the result: it is computed again
                        future.add_done_callback(done.put)
                        continue
                    result = error
                except Exception as error:  # what the task itself raised, or the connection
                    self._check(len(futures))
                    result = error
                del futures[future]
                yield task, result
        finally:
            for future in futures:
                future.release()

    def close(self) -> None:
        """Leave the cluster, which goes on without us."""
        self._client.close(timeout=_POLL_S)

    def _next(self, done: "queue.SimpleQueue[Any]", waiting: int) -> Any:
        """The next future that is done; looks every second whether the scheduler is still there."""
        while True:
            try:
                return done.get(timeout=_POLL_S)
            except queue.Empty:
                self._check(waiting)

    def _check(self, waiting: int) -> None:
        """Raise if the connection is gone."""
        if self._client.status != "running":
            raise self._lost(waiting)

    def _lost(self, waiting: int) -> SchedulerLost:
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # its tracebacks say no more than this:
        return SchedulerLost(
            f"the Dask scheduler at {self.address} has gone, with {waiting} evaluations not finished; what was "
            "finished is stored: start a scheduler and run the same command again"
        )
