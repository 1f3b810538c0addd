"""GGUF files: metadata and tensors, read with the quantization types of the gguf package.

    'GGUF', uint32 version, uint64 tensors, uint64 entries
    entries   string key, uint32 type, value          string: uint64 length, UTF-8
    tensors   string name, uint32 axes, uint64 lengths[axes] (fastest first), uint32 type, uint64 offset
    data      at the next multiple of general.alignment (32 if absent)

Source: ggml's documentation of GGUF, versions 2 and 3. The package's own reader needs seconds for the strings of a
vocabulary; this one needs a tenth of that.
"""

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize
from numpy.typing import NDArray

from sparsefab.errors import ModelError

__all__ = ["GgufFile", "GgufTensor"]

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTensor:
    """A tensor as stored.

    shape : slowest axis first.    data : uint8[bytes], mapped into memory.
    """

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    data: NDArray[np.uint8]

    def dequantize(self) -> NDArray[np.float32]:
        """Return the values as float32."""
        rows = self.data.reshape(prod(self.shape[:-1]), -1)
        return np.asarray(dequantize(rows, self.kind), np.float32).reshape(self.shape)


class GgufFile:
    """The metadata and tensors of one file.

    tensors : GgufTensor by name.

    Raises
    ------
    ModelError     If the file is no GGUF file of version 2 or 3, is truncated, or holds an unknown type.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._bytes = np.asarray(np.memmap(path, np.uint8, "r"))
            self._cursor = _Cursor(self._bytes)
            tensors, entries = self._cursor.header()
            self._fields = dict(self._cursor.entry() for _ in range(entries))
            infos = [self._cursor.tensor() for _ in range(tensors)]
        except (OSError, ValueError, KeyError, IndexError, OverflowError, MemoryError, struct.error) as error:
            raise ModelError(f"{path}: not a GGUF file, or truncated ({error}); fetch it again") from error
        alignment = int(self._fields.get("general.alignment", 32))
        start = -(-self._cursor.place // alignment) * alignment
        self.tensors = {name: self._tensor(name, shape, kind, start + offset) for name, shape, kind, offset in infos}

    def field(self, key: str, default: Any = None) -> Any:
        """The value of a metadata key; an error names a key that is missing and has no default."""
        if key in self._fields:
            return self._fields[key]
        if default is None:
            raise ModelError(f"{self.path}: the metadata lacks {key}")
        return default

    def quantization(self) -> str:
        """The quantization types of the tensors, the one with most weights first."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors.values():
            sizes[tensor.kind.name] = sizes.get(tensor.kind.name, 0) + prod(tensor.shape)
        return ", ".join(sorted(sizes, key=lambda kind: -sizes[kind]))

    def _tensor(self, name: str, shape: tuple[int, ...], kind: int, start: int) -> GgufTensor:
        try:
            type_ = GGMLQuantizationType(kind)
        except ValueError:
            raise ModelError(f"{self.path}: tensor {name!r} has the unknown quantization type {kind}") from None
        block, block_bytes = GGML_QUANT_SIZES[type_]
        end = start + prod(shape) // block * block_bytes
        if end > len(self._bytes):
            missing = end - len(self._bytes)
            raise ModelError(f"{self.path}: not a whole GGUF file, {name!r} lacks {missing} bytes; fetch it again")
        return GgufTensor(shape=shape, kind=type_, data=self._bytes[start:end])


class _Cursor:
    """Reads one value after another."""

    def __init__(self, content: NDArray[np.uint8]) -> None:
        self._view = content.data
        self.place = 0

    def header(self) -> tuple[int, int]:
        """Check magic and version; return the numbers of tensors and of metadata entries."""
        if bytes(self._take(4)) != b"GGUF":
            raise ValueError("no GGUF magic")
        version = self._scalar("<I")
        if version not in (2, 3):
            raise ValueError(f"version {version}")
        return self._scalar("<Q"), self._scalar("<Q")

    def entry(self) -> tuple[str, Any]:
        """Read a key and its value."""
        return self._string(), self._value(self._scalar("<I"))

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Read a tensor's name, shape, type and offset."""
        name = self._string()
        lengths = [self._scalar("<Q") for _ in range(self._scalar("<I"))]
        return name, tuple(lengths[::-1]), self._scalar("<I"), self._scalar("<Q")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._scalar(_SCALARS[kind])
        kind, count = self._scalar("<I"), self._scalar("<Q")
        if kind in _SCALARS:
            dtype = np.dtype(_SCALARS[kind])
            return np.frombuffer(self._take(count * dtype.itemsize), dtype).tolist()
        return [self._value(kind) for _ in range(count)]

    def _string(self) -> str:
        return str(self._take(self._scalar("<Q")), "utf-8")

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from(code, self._view, self.place)
        self.place += struct.calcsize(code)
        return value

    def _take(self, count: int) -> memoryview:
        part = self._view[self.place : self.place + count]
        if len(part) != count:
            raise ValueError("it ends within the metadata")
        self.place += count
        return part
