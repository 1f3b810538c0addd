"""The store of an exploration: every finished evaluation in a file of its own, named by its content key.

    STORE/evaluations/KEY.parquet     one evaluation; KEY = hash(model, recipe, data slice, evaluator, fidelity, seed)
    STORE/points/KEY.parquet          points that were priced together; KEY = hash(their keys)

Files appear whole or not at all, so any number of processes share a store without locks, and a run that is killed has
lost only what it had not finished. What cannot be read (another version, a damaged file) is passed over with a log
line and evaluated anew.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sparsefab.errors import StorageError
from sparsefab.reports.points import Evaluation, Job, Point, content_key
from sparsefab.reports.schema import (
    SchemaError,
    decode_evaluations,
    decode_points,
    encode_evaluations,
    encode_points,
)
from sparsefab.storage import clear_leftovers, make_folder, write_atomic

__all__ = ["Store"]

log = logging.getLogger(__name__)

Item = TypeVar("Item")


class Store:
    """Evaluations and points by content key, in a folder that processes share.

    Parameters
    ----------
    folder : Path                Created when absent. Temporary files of dead processes of this host are removed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._evaluations = folder / "evaluations"
        self._points = folder / "points"
        for part in (self._evaluations, self._points):
            make_folder(part)
            removed = clear_leftovers(part)
            if removed:
                log.info("%s: removed %d unfinished files of a run that ended early", part, removed)

    def evaluation(self, job: Job) -> Evaluation | None:
        """The stored evaluation of a job, or None."""
        found = _read(self._evaluations / f"{job.key}.parquet", decode_evaluations)
        return found[0] if found else None

    def put_evaluation(self, evaluation: Evaluation) -> None:
        """Keep an evaluation; raises StorageError, and then the store is as it was."""
        write_atomic(self._evaluations / f"{evaluation.job.key}.parquet", encode_evaluations([evaluation]))

    def evaluations(self) -> list[Evaluation]:
        """Every readable evaluation, by key."""
        return _read_all(self._evaluations, decode_evaluations)

    def put_points(self, points: Sequence[Point]) -> None:
        """Keep points in one file; raises StorageError, and then the store is as it was."""
        if points:
            name = content_key(points=[point.key for point in points])
            write_atomic(self._points / f"{name}.parquet", encode_points(points))

    def points(self) -> list[Point]:
        """Every readable point, each key once, by key; one that failed in one run and not in another did not fail."""
        found = sorted(_read_all(self._points, decode_points), key=lambda point: point.status != "failed")
        unique = {point.key: point for point in found}
        return [unique[key] for key in sorted(unique)]


def _read(path: Path, decode: Callable[[bytes, str], list[Item]]) -> list[Item]:
    try:
        return _decoded(path, decode)
    except SchemaError as error:
        log.warning("passing over a cached result: %s", error)
        return []


def _read_all(folder: Path, decode: Callable[[bytes, str], list[Item]]) -> list[Item]:
    found: list[Item] = []
    passed: list[SchemaError] = []
    for path in sorted(folder.glob("*.parquet")):
        try:
            found += _decoded(path, decode)
        except SchemaError as error:
            passed.append(error)
    if passed:  # one line for a whole cache of another version
        log.warning("passing over %d cached files in %s, the first: %s", len(passed), folder, passed[0])
    return found


def _decoded(path: Path, decode: Callable[[bytes, str], list[Item]]) -> list[Item]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}; mend it, or choose another folder") from error
    return decode(content, str(path))
