"""LUTs of a MAC from physical terms: widths, the fit and how far it may be off."""

import pytest

from sparsefab.cost_models.mac_luts import MacSample, fit_macs, mac_lut, read_samples, terms_of
from sparsefab.cost_models.mac_picture import draw_macs
from sparsefab.errors import FormatError
from sparsefab.formats import get_format


# arXiv 2311.12359: r_a + r_b + ceil(log2 n) + 1 and 2^ea + ma + 2^eb + mb + ceil(log2 n) - 1, n = 4608
@pytest.mark.parametrize(("name", "bits"), [("int8", 30), ("e2m1", 22), ("e4m3", 50), ("e5m2", 80), ("e3m4", 36)])
def test_accumulator_widths(name: str, bits: int) -> None:
    assert terms_of(get_format(name))["accumulator_bits"] == bits


def test_the_fit_finds_coefficients_that_made_the_data() -> None:
    names = [f"e{e}m{m}" for e in (2, 3, 4) for m in (1, 2, 3)] + ["int4", "int6", "int8"]
    rows = []
    for name in names:
        t = terms_of(get_format(name))
        plain = 0.5 * t["multiplier_rows"] + 1.25 * t["accumulator_bits"] + 0.25 * t["placed_bits"] + t["signed_rows"]
        rows += [
            MacSample(format=name, multiplier="fabric", converted=False, lut=round(1000 * plain)),
            MacSample(format=name, multiplier="dsp", converted=False, lut=round(1000 * (9 + t["significand_shift"]))),
            MacSample(format=name, multiplier="fabric", converted=True, lut=round(1000 * (plain + 3))),
        ]
    fits = fit_macs(rows)
    assert fits["plain"].worst_error < 1e-3
    found = list(fits["plain"].coefficients.values())
    assert found == pytest.approx([500, 1250, 0, 250, 1000], rel=0.02, abs=2)
    assert fits["dsp"].coefficients["significand_shift"] == pytest.approx(1000, rel=0.02)


def test_the_shipped_fit_is_as_good_as_stated() -> None:
    fits = fit_macs(read_samples())
    stated = {"plain": (0.10, 0.47), "dsp": (0.15, 0.67), "converter": (0.11, 0.38)}  # mean, worst: hw/README.md
    for name, (mean, worst) in stated.items():
        assert fits[name].mean_error <= mean
        assert fits[name].worst_error <= worst
    assert mac_lut(get_format("int8")) == pytest.approx(97, rel=0.3)
    assert mac_lut(get_format("e4m3"), converted=True) > mac_lut(get_format("e4m3"))
    assert mac_lut(get_format("e3m2"), multiplier="dsp") < mac_lut(get_format("e3m2"))


def test_refuses() -> None:
    with pytest.raises(FormatError, match="mxfp4 is a format of blocks"):
        terms_of(get_format("mxfp4"))
    with pytest.raises(ValueError, match="terms must be at least 1, not 0"):
        terms_of(get_format("int8"), 0)
    with pytest.raises(ValueError, match="multiplier must be 'fabric' or 'dsp', not 'lut'"):
        mac_lut(get_format("int8"), multiplier="lut")
    with pytest.raises(ValueError, match="5 coefficients need as many formats, not 0"):
        fit_macs([])


def test_the_picture_names_every_split() -> None:
    figure = draw_macs(read_samples())
    labels = {text.get_text() for text in figure.axes[0].texts}
    assert {"E2M1", "E4M3", "E5M2"} <= labels
    assert figure.axes[0].get_yscale() == "log"
