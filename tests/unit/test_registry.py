"""Registry: built-ins, real entry points from a fake distribution, and plug-ins that are broken."""

from pathlib import Path

import pytest

from sparsefab.errors import FormatError
from sparsefab.registry import Registration, Registry

GROUP = "sparsefab.test_formats"


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution on the path with one good plug-in, a broken one, one of the wrong type, a name clash."""
    info = tmp_path / "acme_formats-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-formats\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"""[{GROUP}]
good = acme_formats_ok:VALUE
broken = acme_formats_broken:VALUE
wrong = acme_formats_ok:TEXT
int8 = acme_formats_ok:VALUE
""")
    (tmp_path / "acme_formats_ok.py").write_text("VALUE = 44\nTEXT = 'forty-four'\n")
    (tmp_path / "acme_formats_broken.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def make() -> Registry[int]:
    return Registry(kind="format", builtins={"int8": 8, "int4": 4}, group=GROUP, expected=int, error=FormatError)


@pytest.mark.usefixtures("plugins")
def test_plugins_are_found_and_builtins_win() -> None:
    registry = make()
    assert registry.names() == ("int8", "int4", "broken", "good", "wrong")
    assert list(registry) == list(registry.names())
    assert "good" in registry
    assert "bad" not in registry
    assert registry.get("good") == 44
    assert registry.get("int8") == 8


@pytest.mark.usefixtures("plugins")
def test_a_broken_plugin_raises_only_when_asked_for() -> None:
    registry = make()
    assert registry.get("int4") == 4
    with pytest.raises(FormatError, match=r"'broken' from acme-formats 1\.2 .*a_module_that_is_not_there"):
        registry.get("broken")
    with pytest.raises(FormatError, match="is a str, not a int"):
        registry.get("wrong")


@pytest.mark.usefixtures("plugins")
def test_listing_gives_every_reason() -> None:
    rows = make().listing()
    assert rows[0] == Registration(name="int8", source="built in", problem=None)
    problems = {(row.name, row.source): row.problem for row in rows[2:]}
    assert problems["good", "acme-formats 1.2"] is None
    assert "a_module_that_is_not_there" in (problems["broken", "acme-formats 1.2"] or "")
    assert "taken" in (problems["int8", "acme-formats 1.2"] or "")


def test_unknown_names_suggest_near_ones() -> None:
    registry: Registry[int] = Registry(kind="format", builtins={"int8": 8, "fp8_e4m3": 1}, error=FormatError)
    with pytest.raises(FormatError, match=r"unknown format 'int9'; did you mean int8"):
        registry.get("int9")
    with pytest.raises(FormatError, match="known: int8, fp8_e4m3"):
        registry.get("zzzzzz")
