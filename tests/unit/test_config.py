"""config: what is read, what is refused, and that the message names the key."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsefab import config
from sparsefab.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    size_bytes: int
    rate_hz: float = 1.0

    def __post_init__(self) -> None:
        if self.size_bytes < 1:
            raise ValueError(f"size_bytes must be positive, not {self.size_bytes}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    name: str
    kind: Literal["gpu", "cpu"] = "gpu"
    flag: bool = False
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    pair: tuple[int, str] = (0, "")
    ratio: float | str = 0.0
    table: dict[str, Inner] = field(default_factory=dict)
    where: Path | None = None


def test_reads_every_kind_of_field(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("""
name = "x"
kind = "cpu"
flag = true
pair = [3, "b"]
ratio = 2
where = "a/b"
[inner]
size_bytes = 4
rate_hz = 3
[[many]]
size_bytes = 1
[[many]]
size_bytes = 2
[table.first]
size_bytes = 7
""")
    value = config.load(path, Outer)
    assert value == Outer(
        name="x",
        kind="cpu",
        flag=True,
        pair=(3, "b"),
        ratio=2.0,
        where=Path("a/b"),
        inner=Inner(size_bytes=4, rate_hz=3.0),
        many=(Inner(size_bytes=1), Inner(size_bytes=2)),
        table={"first": Inner(size_bytes=7)},
    )
    assert isinstance(value.inner, Inner)
    assert isinstance(value.inner.rate_hz, float)
    assert config.loads(config.dumps(value), Outer) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nam = 'x'", ["nam", "unknown key", "did you mean 'name'"]),
        ("", ["name", "missing"]),
        ("name = 3", ["name", "a string", "3"]),
        ("name = 'x'\nflag = 1", ["flag", "true or false"]),
        ("name = 'x'\ninner = 4", ["inner", "a table"]),
        ("name = 'x'\n[inner]\nsize_bytes = true", ["inner.size_bytes", "an integer"]),
        ("name = 'x'\n[inner]\nsize_bytes = 1.0", ["inner.size_bytes", "an integer"]),
        ("name = 'x'\n[inner]\nsize_bytes = 1\nrate_hz = nan", ["inner.rate_hz", "finite"]),
        ("name = 'x'\n[inner]\nsize_bytes = 0", ["inner", "size_bytes must be positive"]),
        ("name = 'x'\n[[many]]\nsize_bytes = 1\n[[many]]\nsize_byte = 1", ["many[1].size_byte", "unknown key"]),
        ("name = 'x'\nkind = 'tpu'", ["kind", "'gpu', 'cpu'", "tpu"]),
        ("name = 'x'\npair = [1]", ["pair", "2 values"]),
        ("name = 'x'\nratio = []", ["ratio", "none of the forms"]),
        ("name = 'x'\n[table.t]\nrate_hz = 1.0", ["table.t.size_bytes", "missing"]),
        ("name = ", ["not valid TOML"]),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(path, Outer)
    message = str(caught.value)
    assert "\n" not in message
    for word in ["bad.toml", *words]:
        assert word in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read"):
        config.load(tmp_path / "nowhere.toml", Outer)
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path, Outer)
    binary = tmp_path / "weights.bin"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load(binary, Outer)


def test_programming_errors_are_type_errors() -> None:
    with pytest.raises(TypeError, match="dataclass"):
        config.build({}, int)
    with pytest.raises(TypeError, match="dataclass"):
        config.dumps(3)


@settings(max_examples=60, deadline=None)
@given(
    name=st.text(max_size=12),
    rate=st.floats(allow_nan=False, allow_infinity=False),
    keys=st.dictionaries(st.text(max_size=8), st.integers(1, 2**62), max_size=4),
)
def test_dumps_is_toml_and_loads_back(name: str, rate: float, keys: dict[str, int]) -> None:
    value = Outer(
        name=name,
        inner=Inner(size_bytes=1, rate_hz=rate),
        ratio=name,
        table={key: Inner(size_bytes=size) for key, size in keys.items()},
    )
    text = config.dumps(value)
    assert tomllib.loads(text)["name"] == name
    assert config.loads(text, Outer) == value
