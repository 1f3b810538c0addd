"""What Vivado reports of a design beside our estimate of it: `Session.compare_vivado`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsefab import config
from sparsefab.arch import AcceleratorArch
from sparsefab.cost_models.vivado import RESOURCES, VivadoReport, read_reports
from sparsefab.errors import StorageError, TargetError
from sparsefab.models.compress import Recipe

if TYPE_CHECKING:
    from sparsefab.session.session import Session

__all__ = ["VivadoComparison", "compare_vivado"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VivadoComparison:
    """A report and our estimate.

    estimate : {resource: count}   Of vivado.RESOURCES, those that we estimate.
    clock_hz : float | None        The clock that we assume.
    source : str                   What the estimate is; empty where there is none.
    """

    report: VivadoReport
    estimate: dict[str, float]
    clock_hz: float | None
    source: str

    def to_json(self) -> dict[str, Any]:
        """Resources with their ratios, Vivado's by ours; slack and frequency."""
        rows = {}
        for name in RESOURCES:
            found, ours = getattr(self.report, name), self.estimate.get(name)
            if found is not None or ours is not None:
                rows[name] = {"vivado": found, "estimate": ours, "ratio": _ratio(found, ours)}
        slowest = self.report.slowest
        fmax = None if slowest is None else slowest.fmax_hz
        return {
            "design": self.report.design,
            "part": self.report.part,
            "state": self.report.state,
            "tool": self.report.tool,
            "estimate": self.source,
            "resources": rows,
            "wns_ns": self.report.wns_ns,
            "fmax_hz": {"vivado": fmax, "estimate": self.clock_hz, "ratio": _ratio(fmax, self.clock_hz)},
            "clocks": [
                {"name": c.name, "period_ns": c.period_ns, "wns_ns": c.wns_ns, "fmax_hz": c.fmax_hz}
                for c in self.report.clocks
            ],
        }


def compare_vivado(
    self: "Session",
    reports: Sequence[Path],
    *,
    model: str | None = None,
    recipe: str | Recipe | None = None,
    target: str | None = None,
    arch: AcceleratorArch | None = None,
) -> VivadoComparison:
    """Read Vivado's reports and put our estimate beside them.

    With a model and a target, the estimate is that of the accelerator. Else it is the open synthesis of the block whose
    manifest.json lies beside a report or in the folder above; without one there is no estimate.

    Raises
    ------
    StorageError                If a report or the manifest cannot be used.
    TargetError                 If the target is no FPGA.
    """
    report = read_reports(reports)
    if model is not None and target is not None:
        _, phase = self.estimate(model, recipe, target, arch=arch)
        if not phase.resources:
            raise TargetError(f"{target} is not an FPGA: there are no resources to compare with a report")
        device, _ = self.target(target, arch, None)
        clock = arch.clock_hz if arch is not None else device.fpga.clock_hz.value if device.fpga else None
        counts = {name: figure.value for name, figure in phase.resources.items()}
        return VivadoComparison(report=report, estimate=counts, clock_hz=clock, source=f"{model} on {target}")
    for path in reports:
        for folder in (path.resolve().parent, path.resolve().parent.parent):
            if (folder / "manifest.json").is_file():
                counts, source = _emitted(folder / "manifest.json")
                return VivadoComparison(report=report, estimate=counts, clock_hz=None, source=source)
    return VivadoComparison(report=report, estimate={}, clock_hz=None, source="")


def _emitted(manifest: Path) -> tuple[dict[str, float], str]:
    """Map the block of a manifest with Yosys."""
    from sparsefab.hw.blocks import BLOCKS
    from sparsefab.hw.synthesize import synthesize

    try:
        record = json.loads(manifest.read_text())
        block = BLOCKS.get(record["block"].split(",")[0])
        parameters: Any = config.build(record["config"], type(block.default), source=str(manifest))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{manifest}: is no manifest of `sparsefab emit` ({error})") from error
    found = synthesize(block.modules(parameters))
    counts = {
        "lut": float(found.lut),
        "lut_logic": float(found.logic_lut),
        "lut_memory": float(found.ram_lut + found.shift_lut),
        "ff": float(found.ff),
        "carry8": found.carry4 / 2,
        "dsp": float(found.dsp),
        "bram36": float(found.bram36),
        "uram": float(found.uram),
    }
    return counts, f"{block.name}, {found.tool}, an upper bound; CARRY8 a lower one, half of CARRY4"


def _ratio(found: float | None, ours: float | None) -> float | None:
    return found / ours if found is not None and ours else None
