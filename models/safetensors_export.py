"""Compressed layers as safetensors, for other tools to read and for this one to read back.

    LAYER.codes         int8 or int16 [out, in]     Integers, or bit patterns of a minifloat; 0 where masked out
    LAYER.scales        float32 [out]
    LAYER.multipliers   uint16 [out, groups]        Only with group scales
    LAYER.zero_points   int16 [out, groups]         Only if asymmetric
    LAYER.block_scales  uint8 [out, blocks]         Only of block formats (MX: E8M0, NVFP4: E4M3)
    LAYER.outliers      int16 [n]                   Only if there are any; in units of the row's scale
    LAYER.outlier_places int32 [n]                  in * row + input of each
    LAYER.mask          uint8 [out, ceil(in / 8)]   Only if sparse; bit i of byte j: is weight 8 j + i stored?
    LAYER.bias          float32 [out]               LAYER.weight float32 [out, in]: a layer that is not compressed

The header's metadata holds, under 'layers', a JSON object: layer -> format, pattern, group_size. A weight is
scale * (multiplier * (value(code) - zero_point) + outlier). In block formats it is value(code) * block scale, for NVFP4
times `scales`; for MX these only repeat each row's largest block scale.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from sparsefab.errors import ModelError
from sparsefab.formats import QuantTensor, get_format, parse_pattern
from sparsefab.models.model import Model
from sparsefab.models.safetensors_import import SafetensorsFile
from sparsefab.storage import write_atomic

__all__ = ["export_safetensors", "read_tensors"]

_VERSION = "sparsefab-1"


def export_safetensors(model: Model, path: Path, tensors: Mapping[str, QuantTensor]) -> None:
    """Write the model's weight layers, compressed where `tensors` has them.

    Raises
    ------
    ModelError       If a tensor names no layer.
    StorageError     If the file cannot be written.
    """
    unknown = sorted(set(tensors) - set(model.weights))
    if unknown:
        raise ModelError(f"model {model.name!r} has no weight layer {unknown[0]!r}")
    parts: dict[str, NDArray[np.generic]] = {}
    layers: dict[str, dict[str, str | int]] = {}
    for name, weight in model.weights.items():
        bias = model.bias(name)
        if bias is not None:
            parts[f"{name}.bias"] = np.ascontiguousarray(bias)
        if name not in tensors:
            parts[f"{name}.weight"] = np.ascontiguousarray(weight)
            continue
        tensor = tensors[name]
        parts.update((f"{name}.{part}", array) for part, array in _parts(tensor).items())
        layers[name] = {"format": tensor.format.name, "pattern": tensor.pattern.name, "group_size": tensor.group_size}
    metadata = {"format": _VERSION, "model": model.name, "layers": json.dumps(layers)}
    write_atomic(path, save(parts, metadata))


def read_tensors(path: Path) -> dict[str, QuantTensor]:
    """Read back the compressed layers of a file that `export_safetensors` wrote.

    Raises
    ------
    ModelError       If the file is damaged or was written by something else.
    """
    file = SafetensorsFile(path)
    if file.metadata.get("format") != _VERSION:
        raise ModelError(f"{path}: holds no compressed layers of this tool; write it with `sparsefab compress -o`")
    tensors = {}
    for name, entry in json.loads(file.metadata["layers"]).items():
        codes = np.asarray(file[f"{name}.codes"], np.int16)
        mask = None
        if f"{name}.mask" in file:
            packed = np.asarray(file[f"{name}.mask"], np.uint8)
            mask = np.unpackbits(packed, axis=1, count=codes.shape[1], bitorder="little").astype(np.bool_)
        multipliers, zero_points, block_scales = (
            file.get(f"{name}.{part}") for part in ("multipliers", "zero_points", "block_scales")
        )
        outliers = None
        if f"{name}.outliers" in file:
            outliers = np.zeros(codes.shape, np.int16)
            outliers.reshape(-1)[np.asarray(file[f"{name}.outlier_places"])] = file[f"{name}.outliers"]
        tensors[name] = QuantTensor(
            codes=codes,
            format=get_format(entry["format"]),
            row_scales=np.asarray(file[f"{name}.scales"], np.float32),
            group_size=int(entry["group_size"]),
            group_multipliers=None if multipliers is None else np.asarray(multipliers, np.uint16),
            zero_points=None if zero_points is None else np.asarray(zero_points, np.int16),
            block_scales=None if block_scales is None else np.asarray(block_scales, np.uint8),
            pattern=parse_pattern(entry["pattern"]),
            mask=mask,
            outliers=outliers,
        )
    return tensors


def _parts(tensor: QuantTensor) -> dict[str, NDArray[np.generic]]:
    codes = tensor.codes if tensor.mask is None else np.where(tensor.mask, tensor.codes, 0).astype(np.int16)
    narrow = codes.astype(np.int8)
    parts: dict[str, NDArray[np.generic]] = {
        "codes": narrow if np.array_equal(narrow, codes) else codes,
        "scales": tensor.row_scales,
    }
    if tensor.group_multipliers is not None:
        parts["multipliers"] = tensor.group_multipliers
    if tensor.zero_points is not None:
        parts["zero_points"] = tensor.zero_points
    if tensor.block_scales is not None:
        parts["block_scales"] = tensor.block_scales
    if tensor.outliers is not None:
        places = np.flatnonzero(tensor.outliers)
        parts["outliers"], parts["outlier_places"] = tensor.outliers.reshape(-1)[places], places.astype(np.int32)
    if tensor.mask is not None:
        parts["mask"] = np.packbits(tensor.mask, axis=1, bitorder="little")
    return parts
