"""Files that are there whole or not at all.

A file is written under a temporary name beside its place, forced to the disk, and renamed. The temporary name tells
which process on which host was writing, so that the next run can clear away what a killed one left.
"""

import contextlib
import os
import re
import secrets
import socket
from pathlib import Path

from sparsefab.errors import StorageError

__all__ = ["clear_leftovers", "default_cache_dir", "make_folder", "write_atomic"]

_TEMPORARY = re.compile(r"\..+\.(?P<host>[^.]+)\.(?P<pid>\d+)\.[0-9a-f]{8}\.tmp")


def default_cache_dir() -> Path:
    """The user's cache folder, by the XDG rule: models, records and measurements."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparsefab"


def make_folder(folder: Path) -> None:
    """Create a folder and its parents.

    Raises
    ------
    StorageError                 If the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _storage_error(folder, error) from error


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that no reader and no crash ever sees half of it; an existing one is replaced.

    Raises
    ------
    StorageError                 If it cannot be written (full disk, permissions); nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with open(temporary, "xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:  # an interruption must leave nothing either
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise _storage_error(path, error) from error


def clear_leftovers(folder: Path) -> int:
    """Remove the temporary files of processes of this host that no longer run; return how many there were."""
    removed = 0
    for path in folder.glob(".*.tmp"):
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or match["host"] != _host() or _runs(int(match["pid"])):
            continue
        with contextlib.suppress(OSError):
            path.unlink()
            removed += 1
    return removed


def _host() -> str:
    return socket.gethostname().replace(".", "-")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable; some file systems cannot, and then the rename is all there is."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _storage_error(path: Path, error: OSError) -> StorageError:
    reason = error.strerror or type(error).__name__
    return StorageError(f"cannot write {path}: {reason}; free space or fix permissions there, or choose another folder")
