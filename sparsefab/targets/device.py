"""What a device file may say: a frozen dataclass a section, a source beside every number.

A number is a `Quantity`: value, optional bounds, and the key of its source in the file's own [sources] table. Units
are in the key names, so a number without a unit is an unknown key and a number without a source is a missing one;
both are refused when the file is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "CpuSpec",
    "Device",
    "FpgaSpec",
    "GpuSpec",
    "Kernel",
    "Memory",
    "Power",
    "Price",
    "Quantity",
    "Region",
    "check_sources",
]

Support = Literal["native", "dequantized", "emulated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One sourced number; without bounds of its own (None), the model supplies its usual spread."""

    value: float
    source: str
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.value <= 0:
            raise ValueError(f"value must be positive, not {self.value:g}")
        if not self.bounds[0] <= self.value <= self.bounds[1]:
            raise ValueError(f"value {self.value:g} must lie between low {self.low} and high {self.high}")

    @property
    def bounds(self) -> tuple[float, float]:
        """(low, high), both `value` where the file gives none."""
        return (self.value if self.low is None else self.low, self.value if self.high is None else self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory that holds weights and caches. `channels` are independent ports (HBM pseudo-channels)."""

    capacity_bytes: Quantity
    bandwidth_bytes_per_s: Quantity
    channels: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Board power. P = min(limit, static + memory * use of bandwidth + compute * use of peak).

    `static_w`, `memory_w` and `compute_w` may be left out together; then they are taken as fractions of the limit.
    """

    limit_w: Quantity
    static_w: Quantity | None = None
    memory_w: Quantity | None = None
    compute_w: Quantity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What the device costs, dated. Exactly one of rent by the hour and purchase."""

    date: str
    source: str
    usd_per_hour: Quantity | None = None
    usd: Quantity | None = None

    def __post_init__(self) -> None:
        if (self.usd_per_hour is None) == (self.usd is None):
            raise ValueError("a price gives exactly one of usd_per_hour and usd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A GPU kernel family that exists: what it takes, and on which arithmetic unit it runs.

    Parameters
    ----------
    name : str                          Family name, also the dtype key of calibration files.
    weights : tuple[str, ...]           Weight formats it reads: 'int4', 'int8', 'e4m3', 'e2m1', 'fp16'.
    activations : tuple[str, ...]       Activation formats it reads.
    math : str                          Key in GpuSpec.peak_op_per_s.
    support : Support                   'dequantized' when weights are widened in the kernel before multiplying.
    pattern : 'dense' | '2:4'           Sparsity that it exploits.
    scales : 'row' | 'group' | 'any'    Granularity of weight scales that it accepts.
    stored_bits : float                 Bits a weight of the matrix products behind its calibration (scales included).
    """

    name: str
    weights: tuple[str, ...]
    activations: tuple[str, ...]
    math: str
    support: Support
    source: str
    scales: Literal["row", "group", "any"]
    pattern: Literal["dense", "2:4"] = "dense"
    stored_bits: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSpec:
    """Peaks are dense operations a second (a multiply-add is two); 2:4 kernels count twice that."""

    architecture: str
    peak_op_per_s: dict[str, Quantity]
    kernels: tuple[str, ...]
    multiprocessors: int | None = None
    launch_s: dict[str, Quantity] = field(default_factory=dict)
    calibration: str | None = None

    def __post_init__(self) -> None:
        if "fp16" not in self.peak_op_per_s:
            raise ValueError("peak_op_per_s must give at least fp16")


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuSpec:
    """int8 operations count a multiply-add as two. `isa`: widest int8 instructions, 'avx512_vnni', 'amx', 'avx2'."""

    isa: str
    cores: int
    clock_hz: Quantity
    int8_op_per_cycle_per_core: Quantity
    fp32_op_per_cycle_per_core: Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Resources of one die (SLR) or of a shell."""

    lut: int
    ff: int
    dsp: int
    bram36: float
    uram: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FpgaSpec:
    """An FPGA board.

    `dsp_ceiling_hz` is the data sheet's limit for a fully registered DSP, `clock_hz` what a design is assumed to
    reach, with bounds; `shell` is what the vendor's static design takes; `fill_limit` the part of each resource that
    can be used in practice; `usable_channels` how many memory channels a design can serve without lateral crossings.
    """

    part: str
    dsp_kind: Literal["dsp48e2", "dsp58"]
    regions: tuple[Region, ...]
    shell: Region
    fill_limit: dict[str, Quantity]
    dsp_ceiling_hz: Quantity
    clock_hz: Quantity
    usable_channels: Quantity
    same_channel_efficiency: Quantity
    cross_channel_efficiency: Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One target: what all devices have, and one section for its kind."""

    name: str
    title: str
    kind: Literal["gpu", "cpu", "fpga"]
    sources: dict[str, str]
    memory: Memory
    power: Power
    price: tuple[Price, ...] = ()
    notes: tuple[str, ...] = ()
    gpu: GpuSpec | None = None
    cpu: CpuSpec | None = None
    fpga: FpgaSpec | None = None

    def __post_init__(self) -> None:
        sections = {"gpu": self.gpu, "cpu": self.cpu, "fpga": self.fpga}
        given = [name for name, section in sections.items() if section is not None]
        if given != [self.kind]:
            raise ValueError(f"kind is {self.kind!r}, so exactly the section [{self.kind}] is needed, not {given}")
        check_sources(self, self.sources)


def check_sources(value: object, sources: Mapping[str, str]) -> None:
    """Refuse a number whose source is not in its file's [sources] table, anywhere below `value`."""
    for key in sorted(_source_keys(value)):
        if key not in sources:
            raise ValueError(f"source {key!r} is not in the table [sources]")


def _source_keys(value: object) -> set[str]:
    """Source keys used anywhere below `value`, found through the dataclass fields."""
    if isinstance(value, tuple | list):
        parts: list[object] = list(value)
    elif isinstance(value, dict):
        parts = list(value.values())
    else:
        parts = [getattr(value, name) for name in getattr(type(value), "__dataclass_fields__", ())]
    own = {value.source} if isinstance(value, Quantity | Price | Region | Kernel) else set()
    return own.union(*(_source_keys(part) for part in parts))
