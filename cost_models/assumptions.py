"""Model constants that no device file owns, read from data/assumptions.toml."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sparsefab import config
from sparsefab.targets import Quantity, check_sources

__all__ = ["Assumptions", "Configuration", "assumptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuAssumptions:
    """GPU work outside the calibrated products, and the spread of uncalibrated ones (factor each way)."""

    elementwise_launch_s: Quantity
    elementwise_efficiency: Quantity
    prefill_attention_efficiency: Quantity
    transfer_spread: Quantity
    light_spread: Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerAssumptions:
    """Terms as fractions of the board limit, for devices without their own; `spread` is relative, each way."""

    static_fraction: Quantity
    memory_fraction: Quantity
    compute_fraction: Quantity
    spread: Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Economics:
    """What turns a purchase price into a price an hour."""

    years: Quantity
    utilisation: Quantity
    overhead_power: Quantity
    usd_per_kwh: Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuAssumptions:
    """Fractions of peak that kernels reach, and a cost a kernel call."""

    dense_int8_of_peak: Quantity
    block_4x1_of_peak: Quantity
    float_of_peak: Quantity
    memory_of_peak: Quantity
    dequantize_of_peak: Quantity
    call_s: Quantity
    specification_spread: Quantity
    kernel_int8_op_per_cycle: Quantity
    tile_int8_op_per_cycle: Quantity
    tiles_of_peak: Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class FpgaAssumptions:
    """Parts of the accelerator around the chains."""

    special_lanes_per_core: Quantity
    two_pass: Quantity
    buffer_share_of_uram: Quantity
    layer_overhead_cycles: Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The link over which weights come that are not in the device's memory."""

    link_bytes_per_s: Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A memory efficiency that reproduces one measured decode step: `workload` on `device` at `context`, batch 1."""

    name: str
    device: str
    efficiency: Quantity
    measured_s: Quantity
    workload: str
    context: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """The whole file."""

    sources: dict[str, str]
    gpu: GpuAssumptions
    power: PowerAssumptions
    economics: Economics
    cpu: CpuAssumptions
    fpga: FpgaAssumptions
    placement: Placement
    configuration: tuple[Configuration, ...]

    def __post_init__(self) -> None:
        parts = (self.gpu, self.power, self.economics, self.cpu, self.fpga, self.placement, self.configuration)
        check_sources(parts, self.sources)


@lru_cache(maxsize=1)
def assumptions() -> Assumptions:
    """Return the constants, read once."""
    return config.load(Path(__file__).resolve().parent / "data" / "assumptions.toml", Assumptions)
