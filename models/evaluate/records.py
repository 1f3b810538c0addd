"""Records of evaluations kept on disk, so that a longer evaluation goes on where a shorter one ended."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsefab.models.evaluate.evaluation import Progress, Records
from sparsefab.models.evaluate.tasks import Execute, Task
from sparsefab.storage import make_folder, write_atomic

__all__ = ["RecordCache", "code_version", "records_key"]

STEP = 4  # samples of a text between two writes


def code_version() -> str:
    """Hash of the source that decides what an evaluation gives: another version finds no old records.

    That is the formats and all of models: a changed importer or tokenizer changes a result as a changed product does.
    """
    models = Path(__file__).resolve().parents[1]
    root = models.parent
    formats = root / "sparsefab" / "formats"
    if not formats.is_dir():  # installed: the parts lie inside the package
        formats = root / "formats"
    digest = hashlib.sha256()
    for path in sorted([*formats.rglob("*.py"), *models.rglob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def records_key(model_sha256: str, what: str, task: Task, version: str) -> str:
    """Key of the records of one model under one recipe text (or 'baseline') on one task's data."""
    protocol = task.protocol
    text = json.dumps([model_sha256, what, version, protocol.data_sha256, protocol.context])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class RecordCache:
    """Records by content key in a folder; None as folder keeps nothing.

    A task's samples are run in order, so a file holds the records of the first n samples.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def records(self, key: str, task: Task, execute: Execute, progress: Progress | None = None) -> Records:
        """Return the records of all samples of a task, running only those that are not kept yet.

        Raises
        ------
        StorageError                If the records cannot be written; what was written before is kept.
        """
        total = task.samples
        found = self._read(key)
        done = found[:total] if found is not None else None
        while done is None or len(done) < total:
            start = 0 if done is None else len(done)
            stop = total if self.folder is None else min(start + max(STEP, total // 16), total)
            report = None if progress is None else _Offset(progress, start, total)
            fresh = task.part(start, stop).records(execute, report)
            done = fresh if done is None else np.concatenate([done, fresh])
            self._write(key, done)
        if progress is not None:
            progress(total, total)
        return done

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{key}.npy"

    def _read(self, key: str) -> NDArray[np.float64] | None:
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            found = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None  # damaged: run again
        return found if found.ndim == 2 and found.dtype == np.float64 else None

    def _write(self, key: str, records: Records) -> None:
        path = self._path(key)
        if path is None:
            return
        buffer = io.BytesIO()
        np.save(buffer, records, allow_pickle=False)
        make_folder(path.parent)
        write_atomic(path, buffer.getvalue())


class _Offset:
    """Progress of a part, told as progress of the whole."""

    def __init__(self, progress: Progress, start: int, total: int) -> None:
        self._progress, self._start, self._total = progress, start, total

    def __call__(self, done: int, total: int) -> None:
        self._progress(self._start + done, self._total)
