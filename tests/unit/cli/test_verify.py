"""`sparsefab verify` and its registry of checks: a row a check, 1 on a mismatch, what is missing is named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsefab.cli.main import main
from sparsefab.errors import MissingToolError
from sparsefab.hw.blocks import BLOCKS
from sparsefab.sim import checks
from sparsefab.sim.checks import Check, checks_of, subjects
from sparsefab.sim.tally import Tally


def _absent(build_dir: Path, seed: int) -> Tally:
    raise MissingToolError("the simulator is not installed: apt-get install it")


def _plant(monkeypatch: pytest.MonkeyPatch, run: Callable[[Path, int], Tally]) -> None:
    good = Check(name="good", run=lambda build_dir, seed: Tally(cases=7, failures=0))
    monkeypatch.setattr(checks, "CHECKS", {"toy": (good, Check(name="planted", run=run))})


def test_every_block_has_checks_of_its_own() -> None:
    assert set(BLOCKS) <= set(subjects())
    for name in BLOCKS:
        assert [check.name for check in checks_of(name)][:2] == ["lint", "netlists"]
        assert len(checks_of(name)) > 2, f"{name} is linted and nothing more"


def test_a_mismatch_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _plant(monkeypatch, lambda build_dir, seed: Tally(cases=9, failures=2, first=f"case 4, seed {seed}"))
    assert main(["verify", "toy", "--seed", "3"]) == 1
    out = capsys.readouterr().out
    assert "FAILED: 1 (2 of 2 checks ran" in out
    assert "toy, planted: 2 of 9 differ, first case 4, seed 3" in out


def test_coverage_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _plant(
        monkeypatch,
        lambda build_dir, seed: Tally.judged(cases=5, failures=0, first="", coverage={"sum": 4, "cut": 0, "add": 1}),
    )
    assert main(["verify", "toy"]) == 1
    out = capsys.readouterr().out
    assert "2 of 3" in out
    assert "toy: 2 of 3 opcodes, modes and patterns met, least cut 0 times" in out
    assert "toy, planted: 1 of 5 differ, first never seen: cut" in out


def test_a_missing_tool_is_named_and_not_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _plant(monkeypatch, _absent)
    assert main(["verify", "toy"]) == 0
    out = capsys.readouterr().out
    assert "passed: 1 of 2 checks ran" in out
    assert "skipped: the simulator is not installed" in out
    assert main(["verify", "toy", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["checks"]
    assert [row["result"] for row in rows] == ["passed", "skipped"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["verify", "chian"], "unknown block 'chian'"),
        (["verify", "dsp48e2", "--beats", "3"], "takes no options on what to simulate"),
        (["verify", "chain", "--vectors", "x.npz"], "--vectors replays a file on dsp48e2, not on chain"),
        (["emit", "chian"], "did you mean chain"),
        (["emit", "chain", "--set", "dsps"], "--set takes NAME=VALUE, not 'dsps'"),
        (["emit", "chain", "--set", "dsps=9"], "dsps must be a positive multiple of segment"),
        (
            ["emit", "requantize", "--dsps", "8"],
            "--dsps: block requantize has no chain; its parameters are accumulator",
        ),
        (["emit", "array", "--dsps", "9"], "dsps must be a positive multiple of segment"),
        (["emit", "array", "--set", "chains.dsps=8"], "--set chains.dsps: chains has no parameters of its own"),
        (["emit", "array", "--set", "chain.length=8"], "chain.length: unknown key"),
        (["emit", "requantize", "--set", "lanes=two"], "lanes"),
    ],
)
def test_wrong_use(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert expected in capsys.readouterr().err


def test_parameters_of_a_block(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emit", "requantize", "--set", "lanes=1", "-o", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["block"] == "requantize"
    assert result["config"] == {"accumulator_bits": 32, "lanes": 1}
    assert main(["emit", "accumulate", "--dsps", "16", "--set", "chains=1", "-o", str(tmp_path), "--json"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert (config["chains"], config["chain"]["dsps"]) == (1, 16)
    assert main(["emit", "--list"]) == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert "requantize" in listed
    assert ", ," not in listed
    assert main(["verify", "--list"]) == 0
    assert "twin against reference" in capsys.readouterr().out
