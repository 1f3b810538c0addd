"""A Dask cluster of this machine: results, deaths of workers and drivers, and a scheduler that vanishes."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from sparsefab.reports.dask_workers import DaskWorkers, SchedulerLost
from sparsefab.reports.explore import explore
from sparsefab.reports.store import Store
from sparsefab.reports.workers import WorkerLost
from tests.unit.reports import toy
from tests.unit.reports.test_explore import expected, finish, kill_at_random, noted, start, stored

distributed = pytest.importorskip("distributed", reason="no Dask; install sparsefab[dask] to test it")


@pytest.fixture
def cluster() -> Iterator["distributed.LocalCluster"]:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as made:
        yield made


def test_results_errors_and_deaths_on_a_cluster(cluster: "distributed.LocalCluster", tmp_path: Path) -> None:
    workers = DaskWorkers(cluster.scheduler_address)
    points = explore(
        toy.make_jobs(7),
        toy.TroubledEvaluation(tmp_path),
        toy.make_cases(),
        toy.cost,
        Store(tmp_path),
        workers=workers,
    )
    reasons = {toy.fields(toy.make_jobs(7)[index // 6])[0]: point.reason for index, point in enumerate(points)
               if point.status == "failed"}  # fmt: skip
    assert reasons.pop(6).startswith(WorkerLost.__name__)
    assert reasons == {3: "recipe int3 matches no layer; name one of: a, b", 4: "ZeroDivisionError: division by zero"}
    again = explore(toy.make_jobs(7), toy.accuracy, toy.make_cases(), toy.cost, Store(tmp_path), workers=workers)
    assert again == expected(7)
    workers.close()


class HalfFuture:
    """A future as Dask's; its result is lost with its worker once, then it is computed again."""

    def __init__(self, results: list[object]) -> None:
        self.results, self.status = results, "pending"

    def add_done_callback(self, call: Callable[["HalfFuture"], None]) -> None:
        call(self)

    def result(self, timeout: float) -> object:
        result = self.results.pop(0)
        self.status = "pending" if self.results else "error" if isinstance(result, Exception) else "finished"
        if isinstance(result, Exception):
            raise result
        return result

    def release(self) -> None: ...


@pytest.mark.parametrize("last", ["done", TimeoutError("the task's own")])
def test_a_result_that_was_lost_with_its_worker_is_waited_for(last: object) -> None:
    workers = DaskWorkers.__new__(DaskWorkers)
    future = HalfFuture([TimeoutError(), TimeoutError(), last])
    workers.address, workers._patience_s = "tcp://nowhere:1", 1.0
    workers._client = SimpleNamespace(status="running", submit=lambda *_, **__: future)
    assert list(workers.run(str, ["task"])) == [("task", last)]
    assert not future.results


def test_killed_workers_and_drivers_lose_and_repeat_no_point(
    cluster: "distributed.LocalCluster", tmp_path: Path
) -> None:
    kill_at_random(tmp_path, random.Random(3), 3, cluster.scheduler_address)
    finish(tmp_path, cluster.scheduler_address)


def test_a_scheduler_that_vanishes_is_named_and_nothing_finished_is_lost(tmp_path: Path) -> None:
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        driver = start(tmp_path, 0.05, cluster.scheduler_address)
        while len(stored(tmp_path)) < 5:
            assert driver.poll() is None, driver.communicate()
            time.sleep(0.01)
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 1
    assert "the Dask scheduler at tcp://" in output
    assert "has gone" in output
    assert "run the same command again" in output
    kept = stored(tmp_path)
    assert len(kept) >= 5
    begun = len(noted(tmp_path, "begun"))
    finish(tmp_path)  # on processes: the store does not care
    assert kept.isdisjoint(noted(tmp_path, "begun")[begun:])


def test_an_address_without_a_scheduler_is_an_error() -> None:
    with pytest.raises(SchedulerLost, match=r"no Dask scheduler answers at tcp://127.0.0.1:1"):
        DaskWorkers("tcp://127.0.0.1:1", patience_s=0.5)
    with pytest.raises(SchedulerLost, match="like tcp://host:8786, not 'nonsense'"):
        DaskWorkers("nonsense")
