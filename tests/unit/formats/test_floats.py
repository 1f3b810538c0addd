"""Minifloats against two independent libraries, and the array twin against the scalar specification."""

from math import inf, isnan

import gfloat
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsefab.errors import FormatError
from sparsefab.formats import CATALOG, FloatFormat, get_format

FLOATS = {name: fmt for name, fmt in CATALOG.items() if isinstance(fmt, FloatFormat)}
ML_DTYPES = sorted(name for name in FLOATS if hasattr(ml_dtypes, name))
# shapes outside the catalogue: no exponent, no mantissa, unsigned, an odd bias, wide
ODD = ["e0m3", "e0m7", "e2m0i", "e4m3i", "ue4m3", "ue8m0", "e3m2b5", "e4m3fnb8", "e5m10i", "e8m7i"]


def gfloat_info(fmt: FloatFormat) -> gfloat.FormatInfo:
    """The same format in gfloat's terms."""
    high_nans = {"ieee": (1 << fmt.mantissa_bits) - 1, "fn": 1, "none": 0}[fmt.specials]
    return gfloat.FormatInfo(
        name=fmt.name,
        k=fmt.bits,
        precision=fmt.mantissa_bits + 1,
        bias=fmt.exponent_bias,
        has_nz=fmt.signed,
        domain=gfloat.Domain.Extended if fmt.specials == "ieee" else gfloat.Domain.Finite,
        num_high_nans=high_nans,
        has_subnormals=True,
        is_signed=fmt.signed,
        is_twos_complement=False,
    )


def probes(fmt: FloatFormat) -> np.ndarray:
    """Every value, every midpoint of neighbours, and both float64 neighbours of each midpoint."""
    values = fmt.decode(np.arange(1 << fmt.bits))
    values = np.unique(values[np.isfinite(values)])
    top = values[-1] + (values[-1] - values[-2])  # where the next value would be
    values = np.concatenate([values, [top, -top]]) if fmt.signed else np.append(values, top)
    values = np.sort(values)
    middles = (values[1:] + values[:-1]) / 2
    return np.concatenate([values, middles, np.nextafter(middles, inf), np.nextafter(middles, -inf)])


@pytest.mark.parametrize("name", sorted(FLOATS) + ODD)
def test_decode_agrees_with_gfloat(name: str) -> None:
    fmt = get_format(name)
    info = gfloat_info(fmt)
    codes = np.arange(1 << fmt.bits) if fmt.bits <= 10 else np.arange(0, 1 << fmt.bits, 7)
    ours = fmt.decode(codes)
    theirs = np.array([gfloat.decode_float(info, int(code)).fval for code in codes])
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(np.signbit(ours[~np.isnan(ours)]), np.signbit(theirs[~np.isnan(theirs)]))


# without specials there is nothing to overflow to, so ours saturates and gfloat has no such mode
OVERFLOWS = [(n, s) for n in sorted(FLOATS) for s in (True, False) if s or FLOATS[n].specials != "none"]


@pytest.mark.parametrize("rounding", ["nearest-even", "toward-zero"])
@pytest.mark.parametrize(("name", "saturating"), OVERFLOWS)
def test_encode_agrees_with_gfloat(name: str, rounding: str, saturating: bool) -> None:
    fmt = FLOATS[name]
    info = gfloat_info(fmt)
    mode = {"nearest-even": gfloat.RoundMode.TiesToEven, "toward-zero": gfloat.RoundMode.TowardZero}[rounding]
    x = probes(fmt)
    ours = fmt.decode(fmt.encode(x, rounding=rounding, saturating=saturating))
    theirs = np.array([gfloat.round_float(info, float(v), mode, saturating) for v in x])
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ML_DTYPES)
def test_agrees_with_ml_dtypes(name: str) -> None:
    fmt, dtype = FLOATS[name], np.dtype(getattr(ml_dtypes, name))
    codes = np.arange(1 << fmt.bits, dtype=np.uint8)
    np.testing.assert_array_equal(fmt.decode(codes), codes.view(dtype).astype(np.float64))
    x = probes(fmt)
    x = x[np.abs(x) <= fmt.max_value]  # overflow policies differ by type
    # ml_dtypes rounds a float64 to float32 first, so it is asked about float32 neighbours of the midpoints
    x32 = x.astype(np.float32)
    x32 = np.concatenate([x32, np.nextafter(x32, np.float32(inf)), np.nextafter(x32, np.float32(-inf))])
    x32 = x32[np.abs(x32) <= fmt.max_value]
    np.testing.assert_array_equal(fmt.decode(fmt.encode(x32.astype(np.float64))), x32.astype(dtype).astype(np.float64))


@pytest.mark.parametrize("rounding", ["nearest-even", "toward-zero", "stochastic"])
@pytest.mark.parametrize("name", sorted(FLOATS) + ODD)
def test_array_twin_equals_scalar_specification(name: str, rounding: str) -> None:
    fmt = get_format(name)
    rng = np.random.default_rng(1)
    x = probes(fmt)
    x = np.concatenate([x if len(x) < 500 else rng.choice(x, 500), [0.0, -0.0, inf, -inf, 1e300, -1e-300]])
    bits = rng.integers(0, 1 << 16, x.shape, dtype=np.uint16)
    for saturating in (True, False):
        ours = fmt.encode(x, rounding=rounding, random_bits=bits, saturating=saturating)
        spec = [fmt.encode_scalar(float(v), rounding, saturating, int(b)) for v, b in zip(x, bits, strict=True)]
        np.testing.assert_array_equal(ours, spec)


@given(st.floats(min_value=-1e6, max_value=1e6), st.sampled_from(sorted(FLOATS)))
def test_nearest_really_is_nearest(x: float, name: str) -> None:
    fmt = FLOATS[name]
    values = fmt.decode(np.arange(1 << fmt.bits))
    values = values[np.isfinite(values)]
    got = fmt.decode(fmt.encode(np.array([x])))[0]
    assert abs(got - x) == np.abs(values - x).min()


@pytest.mark.parametrize("name", sorted(FLOATS) + ODD[:8])
def test_tables_hold_every_value(name: str) -> None:
    fmt = get_format(name)
    table = fmt.decode_table()
    decoded = fmt.decode(np.arange(1 << fmt.bits))
    np.testing.assert_array_equal(
        np.ldexp(table.significand.astype(float), table.exponent)[table.finite], decoded[table.finite]
    )
    np.testing.assert_array_equal(table.finite, np.isfinite(decoded))
    if name != "ue8m0":
        grid = fmt.fixed_point()
        np.testing.assert_array_equal(
            np.ldexp(grid.values.astype(float), grid.exponent)[table.finite], decoded[table.finite]
        )
        assert grid.fits(grid.bits)
        assert not grid.fits(grid.bits - 1)


def test_known_limits() -> None:
    """Maxima from the OCP specifications."""
    maxima = {"float8_e4m3fn": 448, "float8_e5m2": 57344, "float6_e3m2fn": 28, "float6_e2m3fn": 7.5, "float4_e2m1fn": 6}
    assert {name: FLOATS[name].max_value for name in maxima} == maxima
    assert isnan(get_format("e4m3fn").decode_scalar(0x7F))


@pytest.mark.parametrize(
    "wrong",
    [
        {"exponent_bits": 9, "mantissa_bits": 1},
        {"exponent_bits": 0, "mantissa_bits": 0},
        {"exponent_bits": 0, "mantissa_bits": 2, "specials": "ieee"},
        {"exponent_bits": 2, "mantissa_bits": 11},
        {"exponent_bits": 4, "mantissa_bits": 3, "bias": 999},
    ],
)
def test_impossible_formats_are_refused(wrong: dict) -> None:
    with pytest.raises(FormatError):
        FloatFormat(**wrong)


def test_nan_needs_a_code() -> None:
    with pytest.raises(ValueError, match="NaN"):
        get_format("e2m1").encode(np.array([np.nan]))
    assert get_format("e4m3fn").encode(np.array([np.nan]))[0] == 0x7F
