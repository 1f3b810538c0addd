"""What may go wrong in explore, report, validate: each ends in one line that names it, and nothing finished is lost."""

import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sparsefab.cli.main import main
from sparsefab.reports.schema import decode_points
from sparsefab.targets.catalog import TARGETS

MODEL = "llama2-7b"
H200 = TARGETS.get("h200").read_text()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and the last line of stderr."""
    try:
        code = main(list(arguments))
    except SystemExit as stopped:  # argparse
        code = int(stopped.code or 0)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return code, error.strip().rpartition("\n")[2]


def explore(out: Path, *more: str) -> list[str]:
    return ["explore", MODEL, "--recipe", "w8", "--target", "h200", "--no-verify", "-o", str(out), *more]


@pytest.mark.parametrize(("old", "new", "expected"), [
    ("bandwidth_bytes_per_s", "bandwidth", "memory.bandwidth: unknown key; did you mean 'bandwidth_bytes_per_s'"),
    (r'(limit_w = \{ value = 700), source = "[^"]*"', r"\1", "power.limit_w.source: missing"),
    (r'source = "aiconfigurator"', 'source = "nowhere"', "source 'nowhere' is not in the table"),
    (r"(bandwidth_bytes_per_s = \{ value = )", r"\1-", "memory.bandwidth_bytes_per_s: value must be positive"),
])  # fmt: skip
def test_a_device_file_that_lacks_something(
    old: str, new: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.toml").write_text(re.sub(old, new, H200, count=1))
    code, error = run(capsys, "explore", MODEL, "--target", str(tmp_path / "mine.toml"), "-o", str(tmp_path / "out"))
    assert (code, "mine.toml" in error, expected in error) == (2, True, True), error


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--target", "h2000"], "unknown target 'h2000'; did you mean h200"),
    (["--batch", "-1"], "--batch: must be positive, not -1"),
    (["--cost-context", "0"], "--cost-context: must be positive, not 0"),
    (["--workers", "0"], "--workers: must be positive, not 0"),
    (["--scheduler", "nonsense"], "like tcp://host:8786, not 'nonsense'"),
    (["--recipe", "w9"], "unknown recipe 'w9'"),
    (["--space", "none.toml"], "none.toml: cannot be read"),
    (["-o", "/proc/nowhere", "--target", "a100"], "cannot write /proc/nowhere"),
])  # fmt: skip
def test_wrong_use_of_explore(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = run(capsys, "explore", MODEL, "-o", str(tmp_path / "out"), *arguments)
    assert (code, expected in error) == (2, True), error


@pytest.mark.parametrize(("text", "expected"), [
    ("batch = [-1]", "batch must list positive numbers"),
    ("context = []", "context must list positive numbers"),
    ('kv = ["gear,rank=2"]', "kv rank must lie in"),
    ('targets = ["u280", "nope"]', "unknown target 'nope'"),
    ('objectives = ["latency"]', "latency_s"),
    ("[arch]\ndsps = [-64]", "arch: dsps must list positive numbers, not -64"),
    ("[arch]\nclock_hz = [2e8, 0.0]", "clock_hz must list positive numbers, not 200000000.0, 0.0"),
    ("[limits]\nat_most = { latency = 1.0 }", "latency_s"),
])  # fmt: skip
def test_a_wrong_space(text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = tmp_path / "space.toml"
    space.write_text(f'recipes = ["w8"]\n{text}\n')
    code, error = run(capsys, "explore", MODEL, "--space", str(space), "-o", str(tmp_path / "out"))
    assert (code, expected in error) == (2, True), error


def test_a_space_without_a_feasible_point_has_a_report_and_names_the_closest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "space.toml"
    space.write_text('recipes = ["w8"]\ntargets = ["h200"]\n[limits]\nat_most = { latency_s = 1e-9 }\n')
    code, error = run(capsys, "explore", MODEL, "--space", str(space), "-o", str(tmp_path / "out"))
    assert code == 2
    assert "no point of the space keeps the limits" in error
    assert "closest of 2 is w8 on h200" in error
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_disk_that_fills_under_the_report_loses_no_point(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit on file size stands in for the disk: points fit, the page does not."""
    script = (
        "import resource, signal, sys\n"
        "from sparsefab.cli.main import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        f"sys.exit(main({explore(tmp_path / 'out')!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert f"cannot write {tmp_path / 'out'}" in done.stderr
    assert "Traceback" not in done.stderr
    stored = list((tmp_path / "out" / "store" / "points").glob("*.parquet"))
    assert len(stored) == 1
    assert not (tmp_path / "out" / "report.html").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparsefab.reports.pricer.PriceSheet", None)  # nothing is priced again
        assert run(capsys, *explore(tmp_path / "out"))[0] == 0
    points = decode_points((tmp_path / "out" / "points.parquet").read_bytes(), "points.parquet")
    assert {point.status for point in points} == {"ok"}


def test_a_cache_of_another_version_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *explore(tmp_path))[0] == 0
    (stored,) = (tmp_path / "store" / "points").glob("*.parquet")
    table = pq.read_table(stored)
    pq.write_table(table.replace_schema_metadata({b"sparsefab.schema": b"0"}), stored)
    code, _ = run(capsys, *explore(tmp_path))
    assert code == 0
    points = decode_points((tmp_path / "points.parquet").read_bytes(), "points.parquet")
    assert {point.status for point in points} == {"ok"}
    # but a report is not made of points that nobody can read
    pq.write_table(table.replace_schema_metadata({b"sparsefab.schema": b"0"}), tmp_path / "points.parquet")
    code, error = run(capsys, "report", str(tmp_path))
    assert code == 2
    assert "has schema version" in error


@pytest.mark.parametrize(("files", "expected"), [
    ({}, "name a folder that `sparsefab explore` wrote"),
    ({"points.parquet": b"PAR1"}, "damaged or no Parquet file"),
])  # fmt: skip
def test_a_report_of_nothing(
    files: dict[str, bytes], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    code, error = run(capsys, "report", str(tmp_path))
    assert (code, expected in error, str(tmp_path) in error) == (2, True, True), error


@pytest.mark.parametrize(("arguments", "content", "expected"), [
    (["tpu"], None, "part must be one of products"),
    (["--measured", "FILE.csv"], None, "FILE.csv: cannot be read as a table"),
    (["--measured", "FILE.csv"], "gpu,dtype,m,n,k,latency_ms\nh200,fp16,-3,64,64,0.1\n", "column 'm': values must be"),
    (["--measured", "FILE.csv"], "gpu,dtype,m,n,k\nh200,fp16,3,64,64\n", "'latency_ms'"),
    (["--measured", "FILE.json"], "{}", "FILE.json: not a calibration file"),
    (["marlin", "-o", "/proc/nowhere"], None, "cannot write /proc/nowhere"),
])  # fmt: skip
def test_wrong_use_of_validate(
    arguments: list[str],
    content: str | None,
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(arguments[-1]).write_text(content)
    code, error = run(capsys, "validate", *arguments)
    assert (code, expected in error) == (2, True), error
