"""Published figures that the models are held to, read from data/published.toml."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sparsefab import config
from sparsefab.targets import Quantity

__all__ = ["Marlin", "MarlinModel", "Published", "SparseMarlin", "published"]


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
class Published:
    """The whole file."""

    marlin: Marlin
    sparse_marlin: SparseMarlin


@lru_cache(maxsize=1)
def published() -> Published:
    """Return the figures, read once."""
    return config.load(Path(__file__).resolve().parent / "data" / "published.toml", Published)
