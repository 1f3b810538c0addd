"""Operators that move, pick, shape or make values without computing on them."""

import numpy as np

from sparsefab.models.operators.attributes import (
    Array,
    Attributes,
    Inputs,
    Operator,
    axes_of,
    integer,
    integers,
    optional,
    required,
    text,
)
from sparsefab.models.operators.elementwise import CAST_TYPES

__all__ = ["MOVEMENT"]

_PAD_MODES = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def _concat(inputs: Inputs, attributes: Attributes) -> Array:
    return np.concatenate([required(inputs, index) for index in range(len(inputs))], integer(attributes, "axis", 0))


def _constant(inputs: Inputs, attributes: Attributes) -> Array:
    for key, dtype in (
        ("value", None),
        ("value_float", "float32"),
        ("value_floats", "float32"),
        ("value_int", "int64"),
        ("value_ints", "int64"),
    ):
        if key in attributes:
            return np.asarray(attributes[key], dtype)
    raise ValueError("only numeric constants are supported")


def _constant_of_shape(inputs: Inputs, attributes: Attributes) -> Array:
    shape = tuple(int(length) for length in required(inputs, 0))
    fill = np.asarray(attributes.get("value", np.zeros(1, np.float32))).reshape(-1)
    return np.full(shape, fill[0], fill.dtype)


def _depth_to_space(inputs: Inputs, attributes: Attributes) -> Array:
    x, block = required(inputs, 0), integer(attributes, "blocksize", 1)
    batch, channels, height, width = x.shape
    depth = channels // (block * block)
    if text(attributes, "mode", "DCR") == "DCR":
        x = x.reshape(batch, block, block, depth, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape(batch, depth, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, depth, height * block, width * block)


def _expand(inputs: Inputs, attributes: Attributes) -> Array:
    x, shape = required(inputs, 0), tuple(int(length) for length in required(inputs, 1))
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, shape))


def _eye_like(inputs: Inputs, attributes: Attributes) -> Array:
    x = required(inputs, 0)
    dtype = CAST_TYPES[integer(attributes, "dtype", 0)] if "dtype" in attributes else x.dtype
    return np.eye(x.shape[0], x.shape[1], integer(attributes, "k", 0), dtype=dtype)


def _flatten(inputs: Inputs, attributes: Attributes) -> Array:
    x, axis = required(inputs, 0), integer(attributes, "axis", 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def _gather(inputs: Inputs, attributes: Attributes) -> Array:
    x, indices = required(inputs, 0), required(inputs, 1)
    axis = integer(attributes, "axis", 0)
    length = x.shape[axis]
    if indices.size and (indices.min() < -length or indices.max() >= length):
        raise ValueError(f"an index lies outside the {length} rows of the table")
    return np.take(x, indices, axis)


def _gather_elements(inputs: Inputs, attributes: Attributes) -> Array:
    axis = integer(attributes, "axis", 0)
    x, indices = required(inputs, 0), required(inputs, 1)
    return np.take_along_axis(x, np.where(indices < 0, indices + x.shape[axis], indices), axis)


def _gather_nd(inputs: Inputs, attributes: Attributes) -> Array:
    x, indices = required(inputs, 0), required(inputs, 1)
    batch = integer(attributes, "batch_dims", 0)
    index = tuple(np.moveaxis(indices, -1, 0))
    grids = np.ogrid[tuple(slice(0, length) for length in x.shape[:batch])] if batch else []
    spare = indices.ndim - 1 - batch
    return np.asarray(x[tuple(grid.reshape(grid.shape + (1,) * spare) for grid in grids) + index])


def _one_hot(inputs: Inputs, attributes: Attributes) -> Array:
    indices, depth, values = required(inputs, 0), int(required(inputs, 1).reshape(-1)[0]), required(inputs, 2)
    axis = integer(attributes, "axis", -1)
    axis += indices.ndim + 1 if axis < 0 else 0
    hot = np.expand_dims(np.mod(indices.astype(np.int64), depth), axis) == np.arange(depth).reshape(
        (-1,) + (1,) * (indices.ndim - axis)
    )
    valid = np.expand_dims((indices >= -depth) & (indices < depth), axis)
    return np.where(hot & valid, values[1], values[0])


def _pad(inputs: Inputs, attributes: Attributes) -> Array:
    x = required(inputs, 0)
    pads = [int(value) for value in required(inputs, 1)]
    axes = axes_of(inputs, attributes, 3)
    widths = [(0, 0)] * x.ndim
    count = len(pads) // 2
    for index, axis in enumerate(range(x.ndim) if axes is None else axes):
        widths[axis] = (pads[index], pads[count + index])
    cut = tuple(slice(max(0, -before), x.shape[axis] - max(0, -after)) for axis, (before, after) in enumerate(widths))
    x, grown = x[cut], [(max(0, before), max(0, after)) for before, after in widths]
    mode = text(attributes, "mode", "constant")
    if mode == "constant":
        fill = optional(inputs, 2)
        return np.pad(x, grown, constant_values=0 if fill is None or not fill.size else fill.reshape(-1)[0])
    if mode not in _PAD_MODES:
        raise ValueError(f"attribute mode {mode!r} is not supported")
    return np.pad(x, grown, mode=mode)  # type: ignore[call-overload]  # one of _PAD_MODES, checked above


def _range(inputs: Inputs, attributes: Attributes) -> Array:
    start, limit, delta = (required(inputs, index).reshape(-1)[0] for index in range(3))
    return np.arange(start, limit, delta, dtype=required(inputs, 0).dtype)


def _reshape(inputs: Inputs, attributes: Attributes) -> Array:
    x, shape = required(inputs, 0), [int(length) for length in required(inputs, 1)]
    if not integer(attributes, "allowzero", 0):
        shape = [x.shape[axis] if length == 0 else length for axis, length in enumerate(shape)]
    return x.reshape(shape)


def _scatter_elements(inputs: Inputs, attributes: Attributes) -> Array:
    if text(attributes, "reduction", "none") != "none":
        raise ValueError("attribute reduction is not supported")
    axis = integer(attributes, "axis", 0)
    x, indices = required(inputs, 0).copy(), required(inputs, 1)
    np.put_along_axis(x, np.where(indices < 0, indices + x.shape[axis], indices), required(inputs, 2), axis)
    return x


def _scatter_nd(inputs: Inputs, attributes: Attributes) -> Array:
    if text(attributes, "reduction", "none") != "none":
        raise ValueError("attribute reduction is not supported")
    x = required(inputs, 0).copy()
    x[tuple(np.moveaxis(required(inputs, 1), -1, 0))] = required(inputs, 2)
    return x


def _shape(inputs: Inputs, attributes: Attributes) -> Array:
    shape = required(inputs, 0).shape
    end = integer(attributes, "end", len(shape))
    return np.asarray(shape[integer(attributes, "start", 0) : end], np.int64)


def _size(inputs: Inputs, attributes: Attributes) -> Array:
    return np.asarray(required(inputs, 0).size, np.int64)


def _slice(inputs: Inputs, attributes: Attributes) -> Array:
    x = required(inputs, 0)
    starts, ends = (required(inputs, index).tolist() for index in (1, 2))
    axes, steps = axes_of(inputs, attributes, 3), optional(inputs, 4)
    window = [slice(None)] * x.ndim
    strides = [1] * len(starts) if steps is None else steps.tolist()
    for axis, start, end, step in zip(axes or range(len(starts)), starts, ends, strides, strict=False):
        length = x.shape[axis]
        if step > 0:
            window[axis] = slice(start, end, step)
        else:  # an end before the first element means "up to and including it", which a slice writes as None
            window[axis] = slice(min(start, length - 1), end if end >= -length else None, step)
    return x[tuple(window)]


def _space_to_depth(inputs: Inputs, attributes: Attributes) -> Array:
    x, block = required(inputs, 0), integer(attributes, "blocksize", 1)
    batch, channels, height, width = x.shape
    order = (0, 3, 5, 1, 2, 4) if text(attributes, "mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    x = x.reshape(batch, channels, height // block, block, width // block, block).transpose(order)
    return x.reshape(batch, channels * block * block, height // block, width // block)


def _split(inputs: Inputs, attributes: Attributes) -> tuple[Array, ...]:
    x, axis, sizes = required(inputs, 0), integer(attributes, "axis", 0), optional(inputs, 1)
    if sizes is None:
        count = integer(attributes, "num_outputs", 0)
        part = -(-x.shape[axis] // count)
        points = [part * index for index in range(1, count)]
    else:
        points = np.cumsum(sizes)[:-1].tolist()
    return tuple(np.split(x, points, axis))


def _squeeze(inputs: Inputs, attributes: Attributes) -> Array:
    return np.squeeze(required(inputs, 0), axes_of(inputs, attributes))


def _tile(inputs: Inputs, attributes: Attributes) -> Array:
    return np.tile(required(inputs, 0), required(inputs, 1))


def _transpose(inputs: Inputs, attributes: Attributes) -> Array:
    x = required(inputs, 0)
    return x.transpose(integers(attributes, "perm", range(x.ndim)[::-1]))


def _trilu(inputs: Inputs, attributes: Attributes) -> Array:
    diagonal = optional(inputs, 1)
    offset = 0 if diagonal is None else int(diagonal.reshape(-1)[0])
    return (np.triu if integer(attributes, "upper", 1) else np.tril)(required(inputs, 0), offset)


def _unsqueeze(inputs: Inputs, attributes: Attributes) -> Array:
    axes = axes_of(inputs, attributes)
    return np.expand_dims(required(inputs, 0), () if axes is None else axes)


def _non_zero(inputs: Inputs, attributes: Attributes) -> Array:
    return np.asarray(np.nonzero(required(inputs, 0)), np.int64)


MOVEMENT: dict[str, Operator] = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
