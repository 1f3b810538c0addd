"""FPGA resources of an accelerator from the block table, and whether it fits the board."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from sparsefab import config
from sparsefab.arch import AcceleratorArch, ArrayArch, ChainArch
from sparsefab.cost_models.result import Figure
from sparsefab.errors import TargetError
from sparsefab.targets import Device, Quantity, check_sources

__all__ = [
    "KINDS",
    "PARTS",
    "array_resources",
    "chain_resources",
    "check_fit",
    "largest_arch",
    "resources",
    "usable",
]

KINDS = ("lut", "ff", "dsp", "bram36", "uram")
#: Synthesized parts of an engine, in the order in which they are added to it.
PARTS = ("chain", "accumulators", "requantizer")
_BLOCKS = Path(__file__).resolve().parent / "data" / "fpga_blocks.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """A block: what one costs, how many there are (`per`), and in which designs.

    group_scales : bool | None  Only with them, or only without; None: either way.
    """

    name: str
    part: Literal["chain", "accumulators", "requantizer", "rest"] = "rest"
    per: Literal["dsp", "chain", "core", "channel", "board"]
    group_scales: bool | None = None
    lut: Quantity | None = None
    ff: Quantity | None = None
    dsp: int = 0
    bram36: Quantity | None = None
    uram: Quantity | None = None

    def count(self, array: ArrayArch, cores: int, channels: int) -> int:
        """How many of them `cores` arrays have."""
        if self.group_scales not in (None, array.accumulators.multiplier_bits > 0):
            return 0
        chains = cores * array.chains
        counts = {"dsp": chains * array.chain.dsps, "chain": chains, "core": cores, "channel": channels, "board": 1}
        return counts[self.per]


@dataclass(frozen=True, slots=True, kw_only=True)
class _BlockFile:
    sources: dict[str, str]
    block: tuple[_Block, ...]

    def __post_init__(self) -> None:
        check_sources(self.block, self.sources)


@lru_cache(maxsize=1)
def _blocks() -> tuple[_Block, ...]:
    return config.load(_BLOCKS, _BlockFile).block


def resources(arch: AcceleratorArch) -> dict[str, Figure]:
    """Return lut, ff, dsp, bram36 and uram of the accelerator without the board's shell."""
    return _sum(_blocks(), arch.core, arch.cores, arch.hbm_channels)


def array_resources(array: ArrayArch, part: str = "accumulators") -> dict[str, Figure]:
    """Return the resources of one array of chains with everything up to `part`, one of PARTS, as it is synthesized."""
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, not {part!r}")
    own = PARTS[: PARTS.index(part) + 1]
    return _sum(tuple(block for block in _blocks() if block.part in own), array, 1, 0)


def chain_resources(chain: ChainArch) -> dict[str, Figure]:
    """Return the resources of one chain alone, as it is emitted and synthesized."""
    return array_resources(ArrayArch(chains=1, chain=chain), "chain")


def _sum(blocks: tuple[_Block, ...], array: ArrayArch, cores: int, channels: int) -> dict[str, Figure]:
    totals = {kind: Figure.exact(0.0) for kind in KINDS}
    for block in blocks:
        count = block.count(array, cores, channels)
        for kind in KINDS:
            entry = block.dsp if kind == "dsp" else getattr(block, kind)
            if isinstance(entry, Quantity):
                totals[kind] = totals[kind].plus(Figure.of(entry.value, *entry.bounds).times(count))
            elif entry:
                totals[kind] = totals[kind].plus(Figure.exact(float(entry)).times(count))
    if any(block.part == "accumulators" for block in blocks):
        memories = cores * array.chains * array.accumulators.bram36(array.chain)
        totals["bram36"] = totals["bram36"].plus(Figure.exact(memories))
    return totals


def usable(device: Device) -> dict[str, float]:
    """Return what a design may take on the board: all regions less the shell, times the practical fill limit."""
    if device.fpga is None:
        raise TargetError(f"{device.name} is not an FPGA")
    board = device.fpga
    return {
        kind: (sum(getattr(region, kind) for region in board.regions) - getattr(board.shell, kind))
        * board.fill_limit[kind].value
        for kind in KINDS
    }


def check_fit(device: Device, arch: AcceleratorArch) -> None:
    """Refuse an accelerator that does not fit.

    Raises
    ------
    TargetError             Names the resource, what is needed and what there is; also a core wider than its region.
    """
    if device.fpga is None:
        raise TargetError(f"{device.name} is not an FPGA")
    regions, limit = device.fpga.regions, device.fpga.fill_limit["dsp"].value
    if arch.cores > len(regions):
        raise TargetError(f"{device.name}: {arch.cores} cores need as many regions, the board has {len(regions)}")
    smallest = min(region.dsp for region in regions[: arch.cores])
    if arch.core.dsps > smallest * limit:
        raise TargetError(
            f"{device.name}: a core of {arch.core.dsps} DSPs does not fit one region: "
            f"{smallest} DSPs, {limit:.0%} usable"
        )
    have, need = usable(device), resources(arch)
    for kind in KINDS:
        if need[kind].value > have[kind]:
            raise TargetError(
                f"{device.name}: the accelerator needs {need[kind].value:,.0f} {kind}, {have[kind]:,.0f} are usable"
            )
    if arch.hbm_channels > device.memory.channels:
        raise TargetError(
            f"{device.name}: {arch.hbm_channels} memory channels asked for, the board has {device.memory.channels}"
        )


def largest_arch(device: Device, chain_dsps: int = 64) -> AcceleratorArch:
    """Return the accelerator with the most chains that fits the board, one core a region, at the assumed clock."""
    if device.fpga is None:
        raise TargetError(f"{device.name} is not an FPGA")
    board, cores = device.fpga, len(device.fpga.regions)
    channels = max(int(board.usable_channels.value) // cores, 1) * cores
    region = min(item.dsp for item in board.regions)
    for chains in range(int(region * board.fill_limit["dsp"].value) // chain_dsps, 0, -1):
        arch = AcceleratorArch(
            cores=cores,
            chains_per_core=chains,
            chain=ChainArch(dsps=chain_dsps),
            clock_hz=board.clock_hz.value,
            hbm_channels=channels,
            region_dsps=region,
        )
        try:
            check_fit(device, arch)
        except TargetError:
            continue
        return arch
    raise TargetError(f"{device.name}: not even one chain of {chain_dsps} DSPs a region fits")
