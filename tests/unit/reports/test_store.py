"""The store: what is in it is whole, whatever happened around it."""

import logging
import os
import socket
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparsefab.errors import StorageError
from sparsefab.reports.points import Evaluation, Job, Point
from sparsefab.reports.store import Store
from sparsefab.storage import write_atomic
from tests.unit.reports import toy


def evaluated(job: Job) -> Evaluation:
    return Evaluation(job=job, accuracy=toy.accuracy(job))


def test_an_evaluation_is_found_by_content(tmp_path: Path) -> None:
    job = toy.make_job(4, 0.5)
    Store(tmp_path).put_evaluation(evaluated(job))
    again = Store(tmp_path)
    assert again.evaluation(job) == evaluated(job)
    assert again.evaluation(toy.make_job(5, 0.5)) is None
    assert again.evaluations() == [evaluated(job)]


def test_each_point_is_there_once_and_what_succeeded_did_not_fail(tmp_path: Path) -> None:
    store, job, cases = Store(tmp_path), toy.make_job(4, 0.5), toy.make_cases()
    points = [Point.of(evaluated(job), case, toy.cost(evaluated(job), case)) for case in cases]
    failed = [replace(point, status="failed", reason="no disk") for point in points]
    for batch in (failed, points, failed[:2], points[:2], []):
        store.put_points(batch)
    assert store.points() == sorted(points, key=lambda point: point.key)


def test_damaged_files_and_other_versions_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, job = Store(tmp_path), toy.make_job(4, 0.5)
    store.put_evaluation(evaluated(job))
    (file,) = (tmp_path / "evaluations").iterdir()
    table = pq.ParquetFile(file).read().replace_schema_metadata({"sparsefab.schema": "0"})
    pq.write_table(table, file)
    with caplog.at_level(logging.WARNING):
        assert store.evaluation(job) is None
    assert "schema version 0, this release reads 2" in caplog.text
    file.write_bytes(file.read_bytes()[:100])
    assert store.evaluation(job) is None
    pq.write_table(pa.table({"x": [1]}), file)
    assert store.evaluations() == []
    store.put_evaluation(evaluated(job))
    assert store.evaluation(job) == evaluated(job)


def test_leftovers_of_dead_processes_go_and_those_of_live_ones_stay(tmp_path: Path) -> None:
    folder = Store(tmp_path).folder / "evaluations"
    host = socket.gethostname().replace(".", "-")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = folder / f".abc.parquet.{host}.{ended.pid}.0123abcd.tmp"
    live = folder / f".abc.parquet.{host}.{os.getpid()}.0123abcd.tmp"
    elsewhere = folder / f".abc.parquet.other-host.{ended.pid}.0123abcd.tmp"
    foreign = folder / ".something.tmp"
    for path in (dead, live, elsewhere, foreign):
        path.write_bytes(b"half")
    store = Store(tmp_path)
    assert sorted(folder.iterdir()) == sorted([live, elsewhere, foreign])
    assert store.evaluations() == []


def test_a_full_disk_names_the_path_and_leaves_the_old_file(tmp_path: Path) -> None:
    """A limit on the size of files, in a process of its own, stands for the full disk."""
    path = tmp_path / "points.parquet"
    path.write_bytes(b"old")
    program = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from sparsefab.errors import StorageError
        from sparsefab.storage import write_atomic
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_atomic(Path(sys.argv[1]), bytes(100_000))
        except StorageError as error:
            print(error)
    """)
    result = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert str(path) in result.stdout
    assert "File too large" in result.stdout
    assert "free space" in result.stdout
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write .*file"):
        Store(tmp_path / "file" / "store")
    with pytest.raises(StorageError, match=r"cannot write .*absent"):
        write_atomic(tmp_path / "absent" / "points.csv", b"")
