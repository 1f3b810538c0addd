"""Proofs of the minifloat data paths over the catalogue; that faults are caught is in test_formal."""

from typing import Any

import pytest

from sparsefab.formats import get_format
from sparsefab.hw.formal import prove
from sparsefab.hw.mac_table import table_formats
from sparsefab.hw.minifloat import proofs
from sparsefab.hw.minifloat.proofs import ConverterMiter, DecoderMiter, MultiplierMiter

pytest.importorskip("pyosys")

FAST = ("int3", "uint2", "e2m1", "e3m0")


def _formats(bits: int) -> list[Any]:
    names = [name for name in table_formats() if get_format(name).bits <= bits]
    return [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", _formats(8))
def test_decoders(name: str) -> None:
    assert prove(DecoderMiter(format=name)).proved


@pytest.mark.parametrize("name", _formats(6))
def test_multipliers(name: str) -> None:
    assert prove(MultiplierMiter(a=name, b=name)).proved


def test_a_definition_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another definition is refuted, with a sum at which it differs."""
    arguments: dict[str, Any] = {"a": "e2m1", "b": "e2m1", "terms": 2, "result": "e2m1"}
    assert prove(ConverterMiter(**arguments)).proved
    monkeypatch.setattr(proofs, "_even", lambda fmt, value: True)  # ties away from zero, below it and above
    refuted = prove(ConverterMiter(**arguments))
    assert not refuted.proved
    assert "sum" in refuted.counterexample
