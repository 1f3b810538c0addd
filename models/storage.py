"""Files that are whole or not there: written beside their place, then moved into it."""

import os
from pathlib import Path

from sparsefab.errors import StorageError

__all__ = ["write_file"]


def write_file(path: Path, content: bytes) -> None:
    """Write a file in one step; whatever was there stays until the new one is complete.

    Raises
    ------
    StorageError     If it cannot be written: a full disk, a missing folder, no permission.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            partial.write_bytes(content)
            os.replace(partial, path)
        except BaseException:  # an interruption must not leave half a file either
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error
