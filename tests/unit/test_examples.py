"""Every example runs, and so does the code that each folder's README starts with."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIMULATED = {"emit_and_verify.py", "sim/README.md"}
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
READMES = ["hw/README.md", "sim/README.md", "models/README.md", "models/zoo/README.md", "cost_models/README.md",
           "kernels_cpu/README.md", "sparsefab/formats/README.md"]  # fmt: skip


def cases(names: list[str]) -> list:
    marks = [pytest.mark.cocotb, pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs Icarus Verilog")]
    return [pytest.param(name, marks=marks if name in SIMULATED else []) for name in names]


def run(code: str, folder: Path) -> str:
    """Run code from the checkout's root, with HOME elsewhere so that nothing of the user's is read or written."""
    script = folder / "example.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True, check=False,
                          env={**os.environ, "HOME": str(folder), "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", cases(EXAMPLES))
def test_example_runs(name: str, tmp_path: Path) -> None:
    assert run((ROOT / "examples" / name).read_text(), tmp_path).strip()


@pytest.mark.parametrize("name", cases(READMES))
def test_readme_starts_with_code_that_runs(name: str, tmp_path: Path) -> None:
    block = re.search(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    assert block, f"{name} has no python block"
    assert run(block[1], tmp_path).strip()
