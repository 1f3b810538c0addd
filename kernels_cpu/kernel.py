"""The two decorators that kernels are compiled with, and a disk cache that sees edits in every module of this folder.

Numba keys its cache by the kernel's own file: code inlined from another module stays stale after an edit there.  Here
the key holds a digest of all sources of the folder, so a cached kernel always is the one that the sources describe.
"""

import contextlib
import functools
import hashlib
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import config
from numba.core.caching import FunctionCache

__all__ = ["kernel", "piece", "sources_digest"]

_FLAGS: dict[str, Any] = {"nogil": True, "boundscheck": False, "error_model": "numpy", "fastmath": False}


@functools.cache
def sources_digest() -> str:
    """Return a SHA-256 over the names and bytes of this folder's modules, in order of name."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


class _SourceCache(FunctionCache):
    """Numba's function cache, keyed also by the sources and by the pieces that a kernel was assembled from."""

    def _index_key(self, signature: Any, codegen: Any) -> tuple[Any, ...]:
        return (signature, codegen.magic_tuple(), sources_digest(), _identity(self._py_func))

    def _save_overload(self, signature: Any, data: Any) -> None:
        # Numba picks a file's number in the index, then writes the file: two processes at once could take one number
        # for two kernels of a factory, and the later reader would run the wrong one.
        self._impl.locator.ensure_cache_path()
        with _locked(Path(config.CACHE_DIR or self._cache_path) / "sparsefab-kernels.lock"):
            super()._save_overload(signature, data)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes, where the system has one for files."""
    try:
        fcntl: Any = importlib.import_module("fcntl")
    except ImportError:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file gives the lock back


def kernel(function: Callable[..., Any], *, parallel: bool = False) -> Any:
    """Compile `function` as an entry point: no GIL, no bounds checks, no fast-math, cached on disk.

    A kernel made by a factory function is told apart from its siblings by the names of what it closes over, in the
    cache and in the linker's eyes. Numba tells functions of one name and type apart by their number in a process, and
    one out of the cache keeps the number that it had in another: a kernel could run in its sibling's place.
    """
    function.__qualname__ += "_" + hashlib.sha256(_identity(function).encode()).hexdigest()[:16]
    dispatcher = njit(parallel=parallel, **_FLAGS)(function)
    with contextlib.suppress(RuntimeError):  # no place that can be written: compile in every process
        dispatcher._cache = _SourceCache(function)
    return dispatcher


def piece(function: Callable[..., Any]) -> Any:
    """Compile `function` as a part of kernels: always inlined, so that vectors stay in registers."""
    return njit(forceinline=True, **_FLAGS)(function)


def _identity(value: Any) -> str:
    """Name a closed-over value alike in every process: functions by name and by what they close over in turn."""
    definition = getattr(value, "_defn", None)
    if definition is not None:  # an intrinsic
        return f"{definition.__module__}.{definition.__qualname__}"
    function = getattr(value, "py_func", value)
    if not hasattr(function, "__qualname__"):
        return repr(value)
    inner = ", ".join(_identity(cell.cell_contents) for cell in function.__closure__ or ())
    return f"{function.__module__}.{function.__qualname__}({inner})"
