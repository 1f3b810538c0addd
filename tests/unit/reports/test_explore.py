"""Exploration: results, resuming, refinement, and what goes wrong."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparsefab.errors import StorageError, TargetError
from sparsefab.reports.explore import explore
from sparsefab.reports.pareto import standings
from sparsefab.reports.points import Case, Cost, Evaluation, Point
from sparsefab.reports.schema import decode_points, encode_points
from sparsefab.reports.store import Store
from tests.unit.reports import toy

ROOT = Path(__file__).parents[3]
EVALUATIONS = 34  # 204 points


def run(store: Path, count: int = 8, **change: object) -> list[Point]:
    arguments: dict[str, object] = {"evaluate": toy.accuracy, "cost": toy.cost, "cases": toy.make_cases()} | change
    return explore(toy.make_jobs(count), store=Store(store), **arguments)  # type: ignore[arg-type]


def expected(count: int) -> list[Point]:
    """The same points without processes or a store."""
    points = []
    for job in toy.make_jobs(count):
        evaluation = Evaluation(job=job, accuracy=toy.accuracy(job))
        points += [Point.of(evaluation, case, toy.cost(evaluation, case)) for case in toy.make_cases()]
    return points


def test_every_recipe_is_priced_for_every_case_in_order(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    points = run(tmp_path, progress=lambda *step: seen.append(step))
    assert points == expected(8)
    assert ("evaluate", 8, 8) in seen
    assert ("price", 8, 8) in seen


def test_a_second_run_evaluates_nothing_and_finds_the_same(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = run(tmp_path / "store", evaluate=toy.LoggedEvaluation(log))
    assert len(noted(tmp_path, "begun")) == 8
    second = run(tmp_path / "store", evaluate=toy.LoggedEvaluation(log))
    assert len(noted(tmp_path, "begun")) == 8
    assert second == first
    assert encode_points(second) == encode_points(run(tmp_path / "other store"))


def test_a_recipe_given_twice_is_evaluated_once(tmp_path: Path) -> None:
    jobs = [*toy.make_jobs(2), *toy.make_jobs(2)]
    points = explore(jobs, toy.accuracy, toy.make_cases(), toy.cost, Store(tmp_path), workers=1)
    assert points == expected(2)


def test_failures_and_deaths_are_recorded_and_the_sweep_goes_on(tmp_path: Path) -> None:
    points = run(tmp_path, count=7, evaluate=toy.TroubledEvaluation(tmp_path))
    reasons = {
        toy.fields(job)[0]: {
            point.reason for point in points if point.recipe == job.recipe and point.status == "failed"
        }
        for job in toy.make_jobs(7)
    }
    assert reasons[3] == {"recipe int3 matches no layer; name one of: a, b"}
    assert reasons[4] == {"ZeroDivisionError: division by zero"}
    assert reasons[6] == {"WorkerLost: the worker process died twice on this task (killed, or out of memory)"}
    assert [bits for bits, found in reasons.items() if not found] == [2, 5, 7, 8]
    assert [point for point in points if point.status != "failed"] == [
        point for point in expected(7) if not point.recipe.startswith(("int3", "int4", "int6"))
    ]


def test_what_failed_is_tried_again_by_the_next_run(tmp_path: Path) -> None:
    run(tmp_path, count=7, evaluate=toy.TroubledEvaluation(tmp_path))
    assert run(tmp_path, count=7) == expected(7)
    assert {point.status for point in Store(tmp_path).points()} == {"ok", "absent"}


def failing_cost(evaluation: Evaluation, case: Case) -> Cost:
    if case.device == "fpga":
        raise TargetError("u280 has 9,024 DSPs, the design needs 12,000; use fewer chains")
    return toy.cost(evaluation, case)


def test_a_cost_that_fails_is_recorded_and_keeps_the_accuracy(tmp_path: Path) -> None:
    points = run(tmp_path, cost=failing_cost)
    failed = [point for point in points if point.status == "failed"]
    assert {point.device for point in failed} == {"fpga"}
    assert {point.reason for point in failed} == {"u280 has 9,024 DSPs, the design needs 12,000; use fewer chains"}
    assert all(point.accuracy is not None and point.latency_s is None for point in failed)
    assert run(tmp_path) == expected(8)


def test_the_front_is_evaluated_again_and_replaces_the_first_points(tmp_path: Path) -> None:
    log = tmp_path / "log"
    screened = expected(14)
    best = {standing.point.recipe for standing in standings(screened) if standing.on_front}
    points = run(tmp_path / "store", count=14, evaluate=toy.LoggedEvaluation(log), refine=toy.refine)
    assert {point.recipe for point in points if point.fidelity == "full"} == best
    assert len(points) == len(screened)
    assert len(noted(tmp_path, "begun")) == 14 + len(best)
    assert {standing.point.fidelity for standing in standings(points) if standing.on_front} == {"full"}


def full_disk(evaluation: Evaluation, case: Case) -> Cost:
    raise StorageError("cannot write x: No space left on device; free space there")


def test_a_full_disk_stops_the_sweep_and_keeps_what_is_finished(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No space left"):
        run(tmp_path, cost=full_disk)
    assert len(Store(tmp_path).evaluations()) == 8


def start(folder: Path, pause_s: float, *scheduler: str) -> subprocess.Popen[str]:
    paths = [str(folder / "store"), str(folder / "log")]
    command = [sys.executable, "-m", "tests.unit.reports.drive", *paths, str(EVALUATIONS), str(pause_s), *scheduler]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def stored(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "store" / "evaluations").glob("*.parquet")}


def noted(folder: Path, what: str) -> list[str]:
    """Keys of the jobs that were 'begun' or 'done', from the toy evaluation's own notes."""
    log = folder / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.removeprefix(f"{what} ") for line in lines if line.startswith(what) and line != what]


def wait_until_gone(session: int) -> None:
    """Wait until no process of a killed driver's session is left; its workers end themselves."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    os.killpg(session, signal.SIGKILL)
    raise AssertionError(f"processes of session {session} outlived their driver")


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_loses_and_repeats_no_finished_point(tmp_path: Path, seed: int) -> None:
    """Workers and drivers are killed at random moments of a sweep of 204 points."""
    kill_at_random(tmp_path, random.Random(seed), rounds=3)
    finish(tmp_path)


def kill_at_random(folder: Path, chance: random.Random, rounds: int, *scheduler: str) -> None:
    for _ in range(rounds):
        before, already_begun = stored(folder), len(noted(folder, "begun"))
        driver = start(folder, 0.05, *scheduler)
        begun = already_begun
        for victim in ("worker", "driver"):
            begun += chance.randint(1, 4)
            while len(noted(folder, "begun")) < begun:
                assert driver.poll() is None, driver.communicate()
                time.sleep(0.005)
            time.sleep(chance.uniform(0.0, 0.1))
            if victim == "worker":
                with contextlib.suppress(ProcessLookupError):  # it was idle and ended
                    os.kill(int(noted(folder, "pid")[-1]), signal.SIGKILL)
        driver.kill()
        driver.wait()
        wait_until_gone(driver.pid)
        driver.communicate()
        assert before <= stored(folder)
        assert before.isdisjoint(noted(folder, "begun")[already_begun:])
    assert rounds <= len(stored(folder)) < EVALUATIONS


def finish(folder: Path, *scheduler: str) -> None:
    """Run to the end: every point is there, once, and none that was finished was evaluated again."""
    finished, already_begun = stored(folder), len(noted(folder, "begun"))
    last = start(folder, 0.0, *scheduler)
    output, errors = last.communicate(timeout=60)
    assert last.returncode == 0, errors
    assert finished.isdisjoint(noted(folder, "begun")[already_begun:])
    points = Store(folder / "store").points()
    assert output.strip() == str(len(points)) == "204"
    assert points == sorted(expected(EVALUATIONS), key=lambda point: point.key)
    assert decode_points(encode_points(points), "points") == points


def test_an_interrupt_stops_cleanly_and_keeps_what_is_finished(tmp_path: Path) -> None:
    driver = start(tmp_path, pause_s=0.2)
    while len(stored(tmp_path)) < 2:
        assert driver.poll() is None
        time.sleep(0.01)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the driver and its workers
    output, errors = driver.communicate(timeout=20)
    assert (driver.returncode, output, errors) == (130, "", "")
    wait_until_gone(driver.pid)
    kept = stored(tmp_path)
    assert 2 <= len(kept) < EVALUATIONS
    assert len(Store(tmp_path / "store").evaluations()) == len(kept)
    assert not list((tmp_path / "store").rglob(".*"))
