"""Import of safetensors checkpoints of the LLaMA and BERT families, described by the config.json next to them."""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.families.bert import BertConfig, build_bert
from sparsefab.models.families.llama import LlamaConfig, build_llama
from sparsefab.models.model import Model

__all__ = ["SafetensorsFile", "import_safetensors"]

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}


class SafetensorsFile(Mapping[str, NDArray[np.generic]]):
    """The tensors of one file, mapped into memory and read when asked for; bfloat16 arrives as float32.

    Layout: uint64 length of the header, the header as JSON (name -> dtype, shape, data_offsets), the data.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                prefix = file.read(8)
                length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
                header = json.loads(file.read(length)) if 0 < length < 100_000_000 else None
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: not a readable safetensors file ({error}); fetch it again") from error
        if not isinstance(header, dict):
            raise ModelError(f"{path}: not a safetensors file, or truncated; fetch it again")
        self.path = path
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        self._header = {name: self._entry(name, entry) for name, entry in header.items()}
        self._start = 8 + length
        size = path.stat().st_size - self._start
        needed = max((entry.end for entry in self._header.values()), default=0)
        if size < needed:
            raise ModelError(f"{path}: truncated, {needed - size} bytes are missing; fetch it again")
        self._data = np.memmap(path, np.uint8, "r") if needed else np.empty(0, np.uint8)

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        entry = self._header[name]
        if entry.dtype not in _DTYPES:
            raise ModelError(f"{self.path}: tensor {name!r} has element type {entry.dtype}, which is not supported")
        dtype = np.dtype(_DTYPES[entry.dtype])
        if entry.end - entry.start != prod(entry.shape) * dtype.itemsize:
            raise ModelError(f"{self.path}: tensor {name!r} has other bytes than its shape; fetch it again")
        array = np.asarray(self._data[self._start + entry.start : self._start + entry.end]).view(dtype)
        if entry.dtype == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return array.reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._header)

    def __len__(self) -> int:
        return len(self._header)

    def _entry(self, name: str, entry: Any) -> "_Entry":
        try:
            start, end = (int(offset) for offset in entry["data_offsets"])
            shape = tuple(int(length) for length in entry["shape"])
            if not 0 <= start <= end or min((*shape, 0)) < 0:
                raise ValueError("negative length")
            return _Entry(dtype=str(entry["dtype"]), shape=shape, start=start, end=end)
        except (KeyError, ValueError, TypeError) as error:
            raise ModelError(f"{self.path}: the header is damaged at tensor {name!r}; fetch it again") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """What the header says of one tensor; the bytes count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class _Shards(Mapping[str, NDArray[np.generic]]):
    """The tensors of a checkpoint that an index file spreads over several files."""

    def __init__(self, index: Path) -> None:
        places: dict[str, str] = read_json(index).get("weight_map", {})
        files = {name: SafetensorsFile(index.parent / name) for name in sorted(set(places.values()))}
        self._files = {tensor: files[name] for tensor, name in places.items()}

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        return self._files[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def import_safetensors(path: Path) -> Model:
    """Import a checkpoint.

    Parameters
    ----------
    path : Path      The *.safetensors file, or its index (*.safetensors.index.json); config.json lies beside it.

    Raises
    ------
    ModelError       If the file is damaged, config.json is missing, or the architecture is not supported.
    """
    tensors = _Shards(path) if path.suffix == ".json" else SafetensorsFile(path)
    place = path.parent / "config.json"
    if not place.is_file():
        raise ModelError(f"{path}: needs {place.name} beside it, which names the architecture and its sizes")
    config = read_json(place)
    kind = config.get("model_type")
    metadata = {"format": "safetensors", "source": path.name}
    name = str(config.get("_name_or_path") or path.parent.name or path.stem).rsplit("/", 1)[-1]
    if kind == "llama":
        return build_llama(name, LlamaConfig.from_json(config), tensors, metadata)
    if kind == "bert":
        return build_bert(name, BertConfig.from_json(config), tensors, metadata)
    raise ModelError(
        f"{place}: model_type {kind!r} is not supported, only 'llama' and 'bert'; "
        "other architectures can come in as ONNX"
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: must hold a JSON object")
    return value
