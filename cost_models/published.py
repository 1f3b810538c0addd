"""Figures that the models are held to: published ones, and counts of our own Verilog (data/*.toml)."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sparsefab import config
from sparsefab.targets import Quantity

__all__ = ["Marlin", "MarlinModel", "Published", "RtlCounts", "SparseMarlin", "published", "rtl_counts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MarlinModel:
    """A model of MARLIN's layer table: [inputs, outputs] of its matrices, and the measured speedup a device."""

    name: str
    layers: tuple[tuple[int, int], ...]
    a10: float
    rtx3090: float
    a100: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Marlin:
    """MARLIN's ideal curve over batch sizes on an A10, at both clocks, and its layer table at batch `layer_batch`."""

    source: str
    bits_per_weight: float
    batch: tuple[int, ...]
    inputs: int
    outputs: int
    ideal_boost: tuple[float, ...]
    ideal_base: tuple[float, ...]
    base_clock_ratio: Quantity
    layer_batch: int
    model: tuple[MarlinModel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseMarlin:
    """Sparse-MARLIN's storage and its ideal speedup at small batch."""

    source: str
    bits_per_weight: float
    ideal_small_batch: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulator:
    """An accelerator's published simulation: (context, seconds) a pass, and the configuration behind it.

    `channel_share` is the part of the memory's channels that weights and caches come from.
    """

    source: str
    workload: str
    device: str
    correction_factor: float
    clock_hz: float
    decode_macs_per_cycle: int
    prefill_macs_per_cycle: int
    channel_share: float
    decode_s: tuple[tuple[int, float], ...]
    prefill_s: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerPoint:
    """Median board power of memory-bound products, and what it makes a bit that is moved."""

    device: str
    watts: float
    pj_per_bit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardPower:
    """Published board averages."""

    source: str
    point: tuple[PowerPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The whole file."""

    marlin: Marlin
    sparse_marlin: SparseMarlin
    flightllm_simulator: Simulator
    board_power: BoardPower


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cycles:
    source: str
    counted: tuple[tuple[int, int, int, int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Synthesis:
    source: str
    counted: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RtlCounts:
    """Cycles: (dsps, rows, columns, slots, tokens, cycles) a run; synthesis: (dsps, lut, ff) a chain."""

    cycles: _Cycles
    synthesis: _Synthesis


@lru_cache(maxsize=1)
def rtl_counts() -> RtlCounts:
    """Return the counts, read once."""
    return config.load(Path(__file__).resolve().parent / "data" / "rtl.toml", RtlCounts)


@lru_cache(maxsize=1)
def published() -> Published:
    """Return the figures, read once."""
    return config.load(Path(__file__).resolve().parent / "data" / "published.toml", Published)
