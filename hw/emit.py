"""Write a block as Verilog with a manifest, deterministically and never half."""

import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from amaranth.lib import wiring

import sparsefab
from sparsefab.arch import ArrayArch, ChainArch
from sparsefab.errors import StorageError
from sparsefab.hw.accumulate import AccumulateUnit
from sparsefab.hw.array import ChainArray, ChainGroup
from sparsefab.hw.axis import AXIS_TOP, axis_wrapper
from sparsefab.hw.chain import SparseChain
from sparsefab.hw.chain_axis import chain_axis_wrapper
from sparsefab.hw.dequantize.arch import DequantizeArch
from sparsefab.hw.dequantize.dequantizer import Dequantizer
from sparsefab.hw.engine import ArrayEngine, EngineArch
from sparsefab.hw.modules import TOP, Library, library_verilog, to_verilog
from sparsefab.hw.primitives.dsp48e2 import BODIES
from sparsefab.hw.requantize import RequantizeUnit
from sparsefab.hw.vivado import vivado_files

__all__ = [
    "TOP",
    "Block",
    "EmitManifest",
    "accumulate_verilog",
    "array_verilog",
    "chain_verilog",
    "dequantize_verilog",
    "emit",
    "engine_verilog",
    "group_verilog",
    "requantize_verilog",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block that can be emitted by name; `hw.blocks` lists them.

    Parameters
    ----------
    name, description : str
    default : dataclass        Its parameters where the user gives none; their type is what a TOML file of them holds.
    component : (arch=, body=, placer=) -> wiring.Component
                               Make it, of its parameters; `top` in Verilog.
    axis : parameters -> text | None
                               The module `axis_top` around it, where `hw.axis.axis_wrapper` is not what it should be.
    label : parameters -> str  Names the folder of an emission.
    """

    name: str
    description: str
    default: Any
    component: Callable[..., wiring.Component]
    axis: Callable[[Any], str] | None = None
    label: Callable[[Any], str]

    def modules(self, parameters: object, *, primitives: str = "vendor", axis: bool = False) -> dict[str, str]:
        """Convert the block to Verilog, {module: text}.

        Raises
        ------
        TypeError                  If the parameters are another block's.
        ValueError                 If AXI4-Stream ports are asked for and cannot be.
        """
        if not isinstance(parameters, type(self.default)):
            raise TypeError(f"block {self.name!r} takes {type(self.default).__name__}, not {type(parameters).__name__}")
        if primitives not in BODIES:
            raise ValueError(f"primitives must be one of {BODIES}, not {primitives!r}")
        library = Library()
        component = self.component(arch=parameters, body=primitives, placer=library)
        wrapper = {AXIS_TOP: self.axis(parameters) if self.axis else axis_wrapper(component)} if axis else {}
        return wrapper | {TOP: to_verilog(component, TOP)} | library.verilog()


@dataclass(frozen=True, slots=True, kw_only=True)
class EmitManifest:
    """What was emitted, from what, by what; `path` is the folder that holds top.v and manifest.json.

    files : {name: SHA-256}    What lies beside top.v.
    """

    path: Path
    block: str
    config: dict[str, object]
    primitives: str
    modules: tuple[str, ...]
    sha256: str
    verilog_bytes: int
    files: dict[str, str]
    seed: int
    command: tuple[str, ...]
    versions: dict[str, str]

    @property
    def verilog(self) -> Path:
        """The Verilog file."""
        return self.path / "top.v"


def chain_verilog(arch: ChainArch, *, primitives: str = "vendor", axis: bool = False) -> dict[str, str]:
    """Convert a chain to Verilog.

    Parameters
    ----------
    arch : ChainArch
    primitives : 'vendor' | 'behavioural'
                               Bodies of the primitives' wrappers; all other modules are the same text either way.
    axis : bool                Put AXI4-Stream ports around it, as the module `axis_top`.

    Returns
    -------
    {module: text}             The chain is `top`.
    """
    if primitives not in BODIES:
        raise ValueError(f"primitives must be one of {BODIES}, not {primitives!r}")
    wrapper = {AXIS_TOP: chain_axis_wrapper(arch)} if axis else {}
    return wrapper | library_verilog(lambda library: SparseChain(arch=arch, body=primitives, placer=library))


def requantize_verilog(*, accumulator_bits: int, lanes: int = 2, primitives: str = "vendor") -> dict[str, str]:
    """Convert a requantizer to Verilog; arguments as for `RequantizeUnit` and `chain_verilog`."""
    return library_verilog(
        lambda library: RequantizeUnit(accumulator_bits=accumulator_bits, lanes=lanes, body=primitives, placer=library)
    )


def dequantize_verilog(arch: DequantizeArch, *, primitives: str = "vendor") -> dict[str, str]:
    """Convert a dequantizer to Verilog; primitives as for `chain_verilog`."""
    return library_verilog(lambda library: Dequantizer(arch=arch, body=primitives, placer=library))


def array_verilog(arch: ArrayArch, *, primitives: str = "vendor") -> dict[str, str]:
    """Convert an array of chains to Verilog; primitives as for `chain_verilog`."""
    return library_verilog(lambda library: ChainArray(arch=arch, body=primitives, placer=library))


def group_verilog(arch: ArrayArch, *, primitives: str = "vendor") -> dict[str, str]:
    """Convert the chains of an array to Verilog, without accumulators."""
    return library_verilog(lambda library: ChainGroup(arch=arch, body=primitives, placer=library))


def engine_verilog(arch: EngineArch, *, primitives: str = "vendor") -> dict[str, str]:
    """Convert an engine to Verilog; primitives as for `chain_verilog`."""
    return library_verilog(lambda library: ArrayEngine(arch=arch, body=primitives, placer=library))


def accumulate_verilog(arch: ArrayArch, *, primitives: str = "vendor") -> dict[str, str]:
    """Convert the accumulators of an array to Verilog, without its chains."""
    return library_verilog(
        lambda library: AccumulateUnit(
            chain=arch.chain, arch=arch.accumulators, chains=arch.chains, body=primitives, placer=library
        )
    )


def emit(
    block: Block,
    parameters: Any,
    out_dir: Path,
    *,
    primitives: str = "vendor",
    axis: bool = False,
    part: str | None = None,
    clock_hz: float = 225e6,
    beside: Callable[[Mapping[str, str]], Mapping[str, str]] | None = None,
    seed: int = 0,
    command: Sequence[str] | None = None,
) -> EmitManifest:
    """Write <out_dir>/<label>-<hash8>/{top.v, manifest.json}.

    Parameters
    ----------
    block : Block
    parameters : dataclass     Of the block's own kind.
    out_dir : Path             Created when missing; equal designs land in the same folder.
    primitives : 'vendor' | 'behavioural'
    axis : bool                Put AXI4-Stream ports around the block.
    part : str | None          A device: write synth.tcl and clock.xdc for it, too.
    clock_hz : float           Clock that clock.xdc asks for.
    beside : {module: text} -> {name: text}
                               Files that go with the Verilog, such as a testbench.
    seed : int                 Recorded for whoever chose the design by a search.
    command : sequence of str  What the user typed; None records this process's arguments.

    Raises
    ------
    StorageError               If the folder cannot be written; nothing half-written is left behind.
    """
    modules = block.modules(parameters, primitives=primitives, axis=axis)
    files = dict(beside(modules)) if beside is not None else {}
    if part is not None:
        top, clock = (AXIS_TOP, "aclk") if axis else (TOP, "clk")
        files |= vivado_files(top=top, clock=clock, part=part, clock_hz=clock_hz)
    text = "\n".join(modules.values())
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = Path(out_dir) / f"{block.label(parameters)}-{digest[:8]}"
    manifest = EmitManifest(
        path=path,
        block=f"{block.name}, AXI4-Stream" if axis else block.name,
        config=asdict(parameters),
        primitives=primitives,
        modules=tuple(modules),
        sha256=digest,
        verilog_bytes=len(text.encode()),
        files={name: hashlib.sha256(content.encode()).hexdigest() for name, content in sorted(files.items())},
        seed=seed,
        command=tuple(command if command is not None else sys.argv),
        versions=_versions(),
    )
    record = {name: value for name, value in asdict(manifest).items() if name != "path"}
    _write_folder(path, {"top.v": text, **files, "manifest.json": json.dumps(record, indent=2) + "\n"})
    return manifest


def _write_folder(path: Path, files: dict[str, str]) -> None:
    """Fill a fresh folder beside `path`, then rename it into place."""
    staging: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        staging.chmod(0o755)
        for name, content in files.items():
            (staging / name).write_text(content)
        if path.is_dir():
            for name in files:
                os.replace(staging / name, path / name)
        else:
            os.replace(staging, path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _versions() -> dict[str, str]:
    found = {"sparsefab": sparsefab.__version__, "python": platform.python_version()}
    for package in ("amaranth", "pyosys"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
