"""Tensors from a PyTorch checkpoint (.pth, .pt), without PyTorch and without running what the file says.

A checkpoint is a pickle, and a pickle may call any function. This reader knows tensors, their storages and ordered
dictionaries, and refuses everything else. Both containers are read:

    zip archive (since PyTorch 1.6)   NAME/data.pkl, NAME/data/KEY
    legacy                            five pickles (magic number, version, system, object, storage keys), then for each
                                      key in that order: int64 count, the elements
"""

import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError

__all__ = ["read_torch_tensors"]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True, slots=True)
class _Storage:
    """A stretch of elements that tensors look into."""

    kind: str
    key: str


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor: where it lies in its storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Refused(Exception):
    """The pickle asks for something that is no tensor."""


class _Unpickler(pickle.Unpickler):
    """Builds views instead of tensors and calls nothing but the functions below."""

    def find_class(self, module: str, name: str) -> Any:
        """Resolve the few names that a file of tensors holds."""
        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        if module == "torch" and name in _STORAGES:
            return name
        if (module, name) not in allowed:
            raise _Refused(f"{module}.{name}")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Resolve a reference to a storage: ('storage', kind, key, device, count, ...)."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or pid[1] not in _STORAGES:
            raise _Refused(f"reference {pid!r}"[:80])
        return _Storage(str(pid[1]), str(pid[2]))


def read_torch_tensors(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read the named tensors of a checkpoint, also from below a key such as 'state_dict'.

    Returns
    -------
    arrays by name     bfloat16 as float32, everything else as stored.

    Raises
    ------
    ModelError         If the file is damaged, or holds anything but tensors.
    """
    try:
        content, data = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
        views = dict(_named_views(content, ""))
        if not views:
            raise ModelError(f"{path}: holds no named tensors; save model.state_dict()")
        return {name: _array(view, data[view.storage.key]) for name, view in views.items()}
    except _Refused as error:
        raise ModelError(f"{path}: holds {error}, not only tensors; save model.state_dict()") from None
    except (
        OSError,
        pickle.UnpicklingError,
        EOFError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        ArithmeticError,
        MemoryError,
        NotImplementedError,
        zipfile.BadZipFile,
        struct.error,
    ) as error:
        raise ModelError(f"{path}: not a PyTorch checkpoint, or truncated ({error}); fetch it again") from error


def _read_zip(path: Path) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        index = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if index is None:
            raise ModelError(f"{path}: a zip archive without data.pkl is no PyTorch checkpoint")
        prefix = index.removesuffix("data.pkl") + "data/"
        with archive.open(index) as file:
            content = _Unpickler(file).load()
        return content, {
            name.removeprefix(prefix): archive.read(name) for name in archive.namelist() if name.startswith(prefix)
        }


def _read_legacy(path: Path) -> tuple[Any, dict[str, bytes]]:
    with path.open("rb") as file:
        if _Unpickler(file).load() != _LEGACY_MAGIC or _Unpickler(file).load() != _LEGACY_VERSION:
            raise ModelError(f"{path}: not a PyTorch checkpoint")
        _Unpickler(file).load()
        kinds: dict[str, str] = {}

        class Recorder(_Unpickler):
            """Remembers the element type of each storage, which tells how many bytes follow."""

            def persistent_load(self, pid: Any) -> Any:
                storage = super().persistent_load(pid)
                kinds[storage.key] = storage.kind
                return storage

        content = Recorder(file).load()
        keys = _Unpickler(file).load()
        return content, {str(key): _read_storage(file, np.dtype(_STORAGES[kinds[str(key)]]).itemsize) for key in keys}


def _read_storage(file: IO[bytes], item_bytes: int) -> bytes:
    (count,) = struct.unpack("<q", file.read(8))
    data = file.read(count * item_bytes)
    if len(data) != count * item_bytes:
        raise EOFError("the last tensors are missing")
    return data


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *rest: object
) -> _View:
    return _View(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(view: _View, *rest: object) -> _View:
    return view


def _named_views(content: Any, prefix: str) -> list[tuple[str, _View]]:
    if isinstance(content, _View):
        return [(prefix, content)]
    if not isinstance(content, Mapping):
        return []
    found = []
    for key, value in content.items():
        nested = isinstance(value, Mapping)
        found += _named_views(value, prefix if nested else f"{prefix}{key}")
    return found


def _array(view: _View, data: bytes) -> NDArray[np.generic]:
    elements = np.frombuffer(data, _STORAGES[view.storage.kind])
    last = view.offset + sum((length - 1) * stride for length, stride in zip(view.shape, view.strides, strict=True))
    if min((*view.shape, 1)) > 0 and (view.offset < 0 or min((*view.strides, 0)) < 0 or last >= len(elements)):
        raise ValueError("a tensor reaches beyond its storage")
    strides = tuple(stride * elements.itemsize for stride in view.strides)
    array = np.lib.stride_tricks.as_strided(elements[view.offset :], view.shape, strides, writeable=False)
    if view.storage.kind == "BFloat16Storage":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(array).reshape(view.shape)
