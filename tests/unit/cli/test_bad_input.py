"""Whatever a user does wrong ends in one line that names it, exit code 2, and no half-written file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparsefab.cli.main import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and stderr of a call."""
    try:
        code = main(list(arguments))
    except SystemExit as stopped:  # argparse
        code = int(stopped.code or 0)
    return code, capsys.readouterr().err


def small_onnx(path: Path, *, op: str = "Relu", batch: object = "batch", width: object = 8, nan: bool = False) -> Path:
    """A linear layer and one more operator."""
    weights = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    if nan:
        weights[3, 4] = np.nan
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"], name="fc"), helper.make_node(op, ["h"], ["y"], name="act")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 8])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.fixture
def data(tmp_path: Path) -> str:
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "data.npz", inputs=rng.normal(size=(64, 8)).astype(np.float32), labels=rng.integers(0, 8, 64))
    return str(tmp_path / "data.npz")


def recipe(path: Path, text: str) -> str:
    path.write_text(f'name = "r"\n{text}')
    return str(path)


def test_a_users_own_model_works(tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_onnx(tmp_path / "m.onnx")
    assert main(["evaluate", str(model), "--recipe", "w8", "--data", data]) == 0
    assert "0 differ" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evaluate", "no-such-model", "--recipe", "w8"], "no-such-model"),
        (["evaluate", "char-llama", "--recipe", "no-such-recipe"], "no-such-recipe"),
        (["evaluate", "char-llama", "--recipe", "missing.toml"], "missing.toml"),
        (["estimate", "char-llama", "--target", "h2000"], "h200"),
        (["evaluate", "smollm2-135m", "--recipe", "w8", "--cache-dir", "/nonexistent"], "sparsefab fetch smollm2-135m"),
        (["explore", "char-llama", "--budget", "0"], "positive"),
        (["emit", "--dsps", "63"], "dsps"),
        (["report", "/nonexistent"], "/nonexistent"),
        (["fetch", "nothing"], "nothing"),
        (["verify", "--model", "char-llama"], "--recipe"),
    ],
)
def test_wrong_use_names_the_thing(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = run(capsys, *arguments)
    assert code == 2
    assert expected in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1 or error.startswith("usage")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[rules]]\nweights = "int88"', "int88"),
        ('[[rules]]\nlayers = ["nothing.*"]', "nothing.*"),
        ('[[rules]]\nlayers = ["w"]\npattern = "2:16"', "16"),
        ('[[rules]]\npattern = "half"', "half"),
        ('[[rules]]\nmethod = "magic"', "magic"),
        ("[[rules]]\nbits = 4", "bits"),
        ("[[rules]\n", "not valid TOML"),
        ("", "rules"),
    ],
)
def test_bad_recipes(text: str, expected: str, tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_onnx(tmp_path / "m.onnx")
    code, error = run(capsys, "evaluate", str(model), "--data", data, "--recipe", recipe(tmp_path / "r.toml", text))
    assert (code, expected in error, "Traceback" in error) == (2, True, False), error


def test_a_wildcard_leaves_what_does_not_divide(tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_onnx(tmp_path / "m.onnx")
    wild = recipe(tmp_path / "r.toml", '[[rules]]\npattern = "2:16"')
    assert main(["evaluate", str(model), "--data", data, "--recipe", wild]) == 0
    assert "stays dense" in capsys.readouterr().out


def test_bad_models(tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    good = small_onnx(tmp_path / "good.onnx")
    (tmp_path / "cut.onnx").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (tmp_path / "text.onnx").write_text("this is no model")
    cases = {
        tmp_path / "cut.onnx": "cut.onnx",
        tmp_path / "text.onnx": "text.onnx",
        small_onnx(tmp_path / "op.onnx", op="Det"): "Det",
        small_onnx(tmp_path / "nan.onnx", nan=True): "NaN",
    }
    for path, expected in cases.items():
        code, error = run(capsys, "evaluate", str(path), "--recipe", "w8", "--data", data)
        assert (code, expected in error, "Traceback" in error) == (2, True, False), (path, error)


def test_own_model_without_data_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = run(capsys, "evaluate", str(small_onnx(tmp_path / "m.onnx")), "--recipe", "w8")
    assert code == 2
    assert "--data" in error


def test_missing_simulator(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, error = run(capsys, "verify", "--dsps", "8", "--simulator", "icarus", "--cache-dir", str(tmp_path))
    assert code == 2
    assert "iverilog" in error


def test_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A limit on file size stands in for a full disk: the write fails in the middle."""
    script = (
        "import resource, signal, sys\n"
        "from sparsefab.cli.main import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"sys.exit(main(['compress', 'fashion-resnet8', '--recipe', 'w8', '-o', {str(tmp_path / 'out')!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "cannot" in done.stderr
    assert "Traceback" not in done.stderr
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert all(path.stat().st_size < 20_000 and not path.name.startswith(".") for path in left), left


def test_interrupt_says_that_work_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "sparsefab.cli.main", "explore", "fashion-resnet8", "--samples", "300",
               "--target", "u280", "--no-verify", "-o", str(out)]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(out.glob("store/evaluations/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert "goes on from there" in error
    assert list(out.glob("store/evaluations/*.parquet"))
    assert not list(out.rglob("*.tmp"))
