"""The table of MACs: what is committed is what synthesis gives, and a run resumes."""

from pathlib import Path

import pytest

from sparsefab import cost_models
from sparsefab.errors import StorageError
from sparsefab.hw.mac_table import make_table, read_table, table_archs, table_formats

COMMITTED = Path(cost_models.__file__).parent / "data" / "mac_table.csv"


def test_every_number_format_has_its_four_rows() -> None:
    assert [row.key for row in read_table(COMMITTED)] == [
        (arch.a, arch.multiplier, bool(arch.result)) for arch in table_archs(table_formats())
    ]


@pytest.mark.parametrize("name", ["int4", "e2m1"])
def test_synthesis_gives_the_committed_rows(name: str, tmp_path: Path) -> None:
    pytest.importorskip("pyosys")
    archs = [arch for arch in table_archs([name]) if not arch.result]
    committed = [row for row in read_table(COMMITTED) if row.format == name and not row.converted]
    assert list(make_table(archs, path=tmp_path / "table.csv")) == committed


@pytest.mark.slow
@pytest.mark.parametrize("name", table_formats())
def test_synthesis_gives_all_committed_rows(name: str) -> None:
    pytest.importorskip("pyosys")
    assert list(make_table(table_archs([name]))) == [row for row in read_table(COMMITTED) if row.format == name]


def test_a_finished_row_is_not_synthesized_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(COMMITTED.read_bytes())

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("synthesized again")

    monkeypatch.setattr("sparsefab.hw.mac_table.synthesize", refuse)
    archs = table_archs(["int3"])
    rows = make_table(archs, path=path)
    assert [row.key[0] for row in rows] == ["int3"] * 4
    assert list(rows) == [row for row in read_table(COMMITTED) if row.format == "int3"]


def test_a_broken_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("format,lut\nint4,many\n")
    with pytest.raises(StorageError, match=r"table\.csv: is no table of MACs"):
        read_table(path)
    with pytest.raises(ValueError, match="jobs must be at least 1, not 0"):
        make_table([], jobs=0)
