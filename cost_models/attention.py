"""Decode attention on a GPU: reading the key/value cache once a step.

The same form as products (gemm.py): data-sheet times, four parameters, a residual over anchors, bounds a regime.
The residual's axes follow what decides the kernel: work items (sequences times key/value heads), queries a key/value
head and whether they are a power of two or one, head size, cache format, and a sliding window if there is one.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sparsefab.cost_models.gemm import Curve, Floats, Residual
from sparsefab.errors import TargetError
from sparsefab.targets import Device

__all__ = ["ATTENTION_REGIMES", "AttentionFit", "attention_coordinates", "attention_regime", "cache_times"]

#: 'launch': the constant is over half of the time; 'memory': the cache is.
ATTENTION_REGIMES = ("launch", "memory")

_QUERY_TILE = 16  # queries of one key/value head that a tensor-core tile holds

# columns of an attention table
BATCH, CONTEXT, WINDOW, HEADS, KV_HEADS, HEAD_SIZE, VALUE_BYTES = range(7)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttentionFit:
    """Curve, residual and bounds of one device; see GemmFit."""

    device: str
    curve: Curve
    residual: Residual
    bounds: dict[str, tuple[float, float]]

    def seconds(self, table: Floats, memory_s: Floats, compute_s: Floats) -> tuple[Floats, Floats, Floats]:
        """Return (value, low, high) in seconds for rows of an attention table, float64[rows] each."""
        base = np.log(self.curve.seconds(memory_s, compute_s))
        shift, deviation = _residual_at(self.residual, table)
        factors = np.array([self.bounds[name] for name in ATTENTION_REGIMES])[attention_regime(self.curve, memory_s)]
        middle = base + shift
        return (
            np.exp(middle),
            np.exp(middle + np.minimum(factors[:, 0], 0.0) * deviation),
            np.exp(middle + np.maximum(factors[:, 1], 0.0) * deviation),
        )


def _residual_at(residual: Residual, table: Floats) -> tuple[Floats, Floats]:
    """Evaluate a residual; a model's one head layout comes back in every point of a sweep and is remembered."""
    if len(table) > 1:
        return residual.predict(attention_coordinates(table))
    shift, deviation = _residual_of_row(residual, *table[0].tolist())
    return np.array([shift]), np.array([deviation])


@lru_cache(maxsize=1 << 14)
def _residual_of_row(residual: Residual, *row: float) -> tuple[float, float]:
    shift, deviation = residual.predict(attention_coordinates(np.array([row])))
    return float(shift[0]), float(deviation[0])


def _seen(table: Floats) -> Floats:
    """Cached tokens that a step reads: the window, where there is one."""
    window = table[:, WINDOW]
    return np.where(window > 0, np.minimum(table[:, CONTEXT], window), table[:, CONTEXT])


def cache_times(device: Device, table: Floats) -> tuple[Floats, Floats]:
    """Return data-sheet (memory_s, compute_s) of decode attention.

    table : float64[rows, 7]        batch, context, window (0: none), heads, kv heads, head size, bytes a cached value.
    """
    if device.gpu is None:
        raise TargetError(f"{device.name} is not a GPU")
    values = 2.0 * table[:, BATCH] * _seen(table) * table[:, KV_HEADS] * table[:, HEAD_SIZE]
    flop = 4.0 * table[:, BATCH] * _seen(table) * table[:, HEADS] * table[:, HEAD_SIZE]
    moved = values * table[:, VALUE_BYTES]
    return moved / device.memory.bandwidth_bytes_per_s.value, flop / device.gpu.peak_op_per_s["fp16"].value


def attention_regime(curve: Curve, memory_s: Floats) -> NDArray[np.intp]:
    """Return the index into ATTENTION_REGIMES of each row."""
    return np.where(curve.launch_s > memory_s / curve.memory_efficiency, 0, 1).astype(np.intp)


def attention_coordinates(table: Floats) -> Floats:
    """Return the residual's axes, float64[rows, 14]."""
    shared = table[:, HEADS] / table[:, KV_HEADS]
    octave = np.log2(shared)
    size = table[:, HEAD_SIZE]
    axes = [
        np.log2(table[:, BATCH]),
        np.log2(_seen(table)),
        np.log2(table[:, CONTEXT]),
        np.log2(table[:, HEADS]),
        octave,
        np.log2(table[:, BATCH] * table[:, KV_HEADS]),
        (table[:, VALUE_BYTES] < 2.0).astype(np.float64),
        np.ceil(shared / _QUERY_TILE),
        (table[:, WINDOW] > 0).astype(np.float64),
        (shared == 1).astype(np.float64),
        (octave == np.round(octave)).astype(np.float64),
        (size == 64).astype(np.float64),
        (size == 192).astype(np.float64),
        (size == 256).astype(np.float64),
    ]
    return np.stack(axes, axis=1)
