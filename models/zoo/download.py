"""Download pinned package files through pip, whole and verified or not at all."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sparsefab.errors import MissingToolError, SparseFabError, StorageError
from sparsefab.models.zoo.catalog import Package

__all__ = ["Download", "FetchError", "bring", "file_sha256", "pip_download"]

Download = Callable[[Package, Path, Callable[[int], None]], None]

_POLL_S = 0.2


class FetchError(SparseFabError):
    """A download that failed or is not the pinned file."""


def bring(package: Package, downloads: Path, on_bytes: Callable[[int], None], download: Download) -> Path:
    """Return a package's verified file, downloading it if it is not there.

    Parameters
    ----------
    downloads : Path        Folder of finished downloads; a file there with the pinned sha256 is taken as it is.
    on_bytes : callable     Called with the bytes done.
    download : callable     Puts the package's file into a folder.

    Raises
    ------
    FetchError              If the download fails or is not the pinned file; nothing of it stays.
    """
    target = downloads / package.file
    if target.is_file():
        if file_sha256(target) == package.sha256:
            return target
        target.unlink()
    partial = downloads / f"{package.file}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        download(package, partial, on_bytes)
        found = partial / package.file
        if not found.is_file():
            brought = ", ".join(path.name for path in sorted(partial.glob("*.whl"))) or "nothing"
            raise FetchError(
                f"{package.requirement}: expected {package.file}, pip brought {brought}; the index serves another "
                f"build: put the pinned file into {downloads} and fetch again"
            )
        digest = file_sha256(found)
        if digest != package.sha256:
            raise FetchError(
                f"{package.file}: sha256 is {digest[:16]}..., pinned is {package.sha256[:16]}...; the file was "
                "removed, fetch again, and check the package index if it repeats"
            )
        found.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def pip_download(package: Package, folder: Path, on_bytes: Callable[[int], None]) -> None:
    """Download one package's file into a folder with this Python's pip, whatever index it is set to.

    Raises
    ------
    MissingToolError    If this Python has no pip.
    StorageError        If the disk is full.
    FetchError          If pip fails otherwise; the message holds its last error line.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", "--dest", str(folder)]
    if package.python and package.platform:
        command += ["--python-version", package.python, "--platform", package.platform]
        command += ["--implementation", "cp", "--abi", "cp" + package.python.replace(".", "")]
    log_path = folder / "pip.log"
    # pip collects the file under TMPDIR first: keep that on the cache's disk, where it can be counted and removed.
    environment = os.environ | {"TMPDIR": str(folder)}
    with log_path.open("wb") as log:
        child = subprocess.Popen(
            [*command, package.requirement], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
        try:
            while child.poll() is None:
                try:
                    child.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    on_bytes(min(_bytes_under(folder), package.size_bytes))
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
    if child.returncode:
        raise _pip_error(package, log_path.read_text(encoding="utf-8", errors="replace"))


def file_sha256(path: Path) -> str:
    """Hash a file, as lower-case hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _pip_error(package: Package, log: str) -> SparseFabError:
    """Turn pip's output into one line with a remedy."""
    if "No module named pip" in log:
        return MissingToolError("this Python has no pip, which downloads models; run: python -m ensurepip")
    if "No space left on device" in log:
        return StorageError(f"no room to download {package.requirement}; make room or choose another cache directory")
    lines = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    reason = lines[-1] if lines else (log.strip().splitlines() or ["no message"])[-1]
    return FetchError(
        f"pip could not download {package.requirement} ({reason}); check the network and pip's index settings, "
        "then fetch again: finished downloads are kept"
    )


def _bytes_under(folder: Path) -> int:
    """Sum the sizes of the files below a folder; files may vanish meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.path.getsize(os.path.join(parent, name))
            except FileNotFoundError:
                continue
    return total
