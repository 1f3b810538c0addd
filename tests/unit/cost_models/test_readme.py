"""The README's examples run."""

import re
from pathlib import Path

import pytest


def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[3] / "cost_models" / "README.md").read_text()
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["u280", "h200", "best of 1000"]
