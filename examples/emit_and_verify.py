"""From parameters to Verilog, and the Verilog in a simulator against the reference."""

import tempfile
from pathlib import Path

from sparsefab.arch import ChainArch
from sparsefab.session import Session

session = Session()
arch = ChainArch(dsps=16)
manifest = session.emit(Path(tempfile.mkdtemp()), arch)
print(manifest.verilog, f"{manifest.verilog_bytes / 1e3:.0f} kB", ", ".join(manifest.modules))

report = session.verify_chain(arch, beats=200)
for run in report.runs:
    print(f"{run.name:24} {run.beats:5} beats in {run.cycles:6} cycles, {run.mismatches} mismatches")
