"""Verilator's lint on emitted Verilog: every warning but those that come from the emitter's style."""

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sparsefab.sim.verilator import verilator_command

__all__ = ["WAIVED", "lint"]

# of Amaranth's and Yosys' way to write Verilog, on a design without faults as on any other
WAIVED: Final = ("PROCASSINIT", "UNUSEDSIGNAL", "WIDTHEXPAND", "DECLFILENAME")


def lint(modules: Mapping[str, str], *, top: str, cache_dir: Path) -> list[str]:
    """Return the warnings and errors of `verilator --lint-only -Wall`, a line each; none is success.

    Parameters
    ----------
    modules : {module: text}   Behavioural primitives: Verilator has no models of the vendor's.
    cache_dir : Path           As for `verilator_command`.

    Raises
    ------
    MissingToolError           If Verilator is not installed.
    """
    command = verilator_command(cache_dir)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"{top}.v"
        source.write_text("\n".join(modules.values()))
        waivers = [f"-Wno-{name}" for name in WAIVED]
        child = subprocess.run(
            [str(command), "--lint-only", "-Wall", *waivers, "--top-module", top, str(source)],
            capture_output=True,
            text=True,
            check=False,
        )
    found = [line.replace(f"{folder}/", "") for line in child.stderr.splitlines() if line.startswith("%")]
    return found or ([child.stderr.strip() or f"exit code {child.returncode}"] if child.returncode else [])
