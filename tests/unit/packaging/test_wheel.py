"""The three ways to install: a wheel from the checkout, a wheel from the source distribution, an editable install."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PARTS = ("hw", "sim", "models", "cost_models", "kernels_cpu", "reports", "formats", "targets", "cli")
DATA = ("models/zoo/data/char_llama/model.safetensors", "models/zoo/data/fashion_resnet8/model.onnx",
        "models/zoo/data/fashion_resnet8/LICENSE.fashion-mnist", "models/compress/recipes/w8.toml",
        "targets/fpga/u280.toml", "reports/templates/report.html", "py.typed")  # fmt: skip


def build(kind: str, source: Path, out: Path) -> Path:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)], cwd=source, check=True,
                   capture_output=True)  # fmt: skip
    return next(out.iterdir())


@pytest.mark.parametrize("route", ["checkout", "sdist"])
def test_wheel_holds_one_name_and_all_parts(route: str, tmp_path: Path) -> None:
    source = ROOT
    if route == "sdist":
        with tarfile.open(build("sdist", ROOT, tmp_path / "sdist")) as archive:
            archive.extractall(tmp_path / "unpacked", filter="data")
        source = next((tmp_path / "unpacked").iterdir())
    with zipfile.ZipFile(build("wheel", source, tmp_path / "wheel")) as wheel:
        names = wheel.namelist()
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert top == {"sparsefab"}
    for part in PARTS:
        assert any(name.startswith(f"sparsefab/{part}/") and name.endswith(".py") for name in names), part
    for name in DATA:
        assert f"sparsefab/{name}" in names
    assert len(names) == len(set(names))
    assert not any("__pycache__" in name or name.endswith((".v", ".vcd")) for name in names)


def test_installed_wheel_imports_from_itself(tmp_path: Path) -> None:
    """Unpacked where no checkout is, the parts are found inside the package and nowhere else."""
    with zipfile.ZipFile(build("wheel", ROOT, tmp_path / "wheel")) as wheel:
        wheel.extractall(tmp_path / "site")
    code = (
        "import sparsefab, sparsefab.hw.emit, sparsefab.models.compress, sparsefab.targets, sys\n"
        "from sparsefab.models.zoo import entries\n"
        "print(sparsefab.hw.emit.__file__, len(entries()), 'hw' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True,
                          env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""})  # fmt: skip
    file, count, doubled = done.stdout.split()
    assert file.startswith(str(tmp_path / "site" / "sparsefab" / "hw"))
    assert (count, doubled) == ("5", "False")


def test_editable_install_sees_the_checkout() -> None:
    """An edit is seen: modules resolve to the folders at the top level, not to copies."""
    code = "import sparsefab.hw.emit, sparsefab.formats; print(sparsefab.hw.emit.__file__, sparsefab.formats.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", check=True, capture_output=True, text=True)
    hw, formats = done.stdout.split()
    assert Path(hw) == ROOT / "hw" / "emit.py"
    assert Path(formats) == ROOT / "sparsefab" / "formats" / "__init__.py"
