"""Minifloats against two independent libraries, and the array twin against the scalar specification."""

from math import inf, isnan

import gfloat
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsefab.errors import FormatError
from sparsefab.formats import CATALOG, SCALE_FORMATS, FloatFormat, get_format
from sparsefab.formats.ints import RANDOM_BITS, draw_random_bits

FLOATS = {name: fmt for name, fmt in (CATALOG | SCALE_FORMATS).items() if isinstance(fmt, FloatFormat)}
ML_DTYPES = sorted(name for name in FLOATS if hasattr(ml_dtypes, name))
# shapes outside the catalogue: no exponent, no mantissa, unsigned, an odd bias, wide
ODD = ["e0m3", "e0m7", "e2m0i", "e4m3i", "ue4m3", "ue4m3fn", "ue8m0", "e4m0fnu", "e3m2b5", "e4m3fnb8", "e3m4fnuzb2",
       "e5m10i", "e8m7i"]  # fmt: skip


def gfloat_info(fmt: FloatFormat) -> gfloat.FormatInfo:
    """The same format in gfloat's terms."""
    high_nans = {"ieee": (1 << fmt.mantissa_bits) - 1, "fn": 1, "fnuz": 0, "none": 0}[fmt.specials]
    return gfloat.FormatInfo(
        name=fmt.name,
        k=fmt.bits,
        precision=fmt.mantissa_bits + 1,
        bias=fmt.exponent_bias,
        has_nz=fmt.signed and fmt.specials != "fnuz",
        domain=gfloat.Domain.Extended if fmt.specials == "ieee" else gfloat.Domain.Finite,
        num_high_nans=high_nans,
        has_subnormals=fmt.zero,
        is_signed=fmt.signed,
        is_twos_complement=False,
    )


def probes(fmt: FloatFormat) -> np.ndarray:
    """Every value, every midpoint of neighbours, and both float64 neighbours of each midpoint."""
    values = fmt.decode(np.arange(1 << fmt.bits))
    values = np.unique(values[np.isfinite(values)])
    top = values[-1] + (values[-1] - values[-2])  # where the next value would be
    values = np.concatenate([values, [top, -top]]) if fmt.signed else np.append(values, top)
    if not fmt.zero:  # gfloat would give a zero, or a power below the least, that the format does not have
        values[-1] = 2 * values[-2]
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
    theirs = x32.astype(dtype).astype(np.float64)
    ours = fmt.decode(fmt.encode(x32.astype(np.float64)))
    if not fmt.zero:  # ml_dtypes takes a tie upwards, ours goes to the even code
        mantissa, _ = np.frexp(x32)
        tie = mantissa == 0.75
        np.testing.assert_array_equal(theirs[tie], x32[tie].astype(np.float64) * 4 / 3)
        np.testing.assert_array_equal(fmt.encode(x32[tie].astype(np.float64)) % 2, 0)
        apart = ~tie & (x32 >= np.finfo(np.float32).tiny)  # and of a subnormal float32 it drops bits
        ours, theirs = ours[apart], theirs[apart]
    np.testing.assert_array_equal(ours, theirs)


def test_what_a_format_without_zero_takes_for_it() -> None:
    """Code 0 when saturating; else NaN, as ml_dtypes has it."""
    fmt = get_format("float8_e8m0fnu")
    x = np.array([0.0, -0.0, -1.0, -inf, 2.0**-127, 2.0**-130, 2.0**128, inf])
    assert fmt.encode(x).tolist() == [0, 0, 0, 0, 0, 0, 254, 254]
    loose = fmt.encode(x, saturating=False)
    assert loose.tolist() == [255, 255, 255, 255, 0, 0, 255, 255]
    np.testing.assert_array_equal(loose[:-2], x[:-2].astype(ml_dtypes.float8_e8m0fnu).view(np.uint8))
    assert fmt.decode(np.array([0, 127, 254])).tolist() == [2.0**-127, 1.0, 2.0**127]


@pytest.mark.parametrize("name", sorted(FLOATS) + ODD)
def test_stochastic_rounding_follows_its_definition(name: str) -> None:
    """Between neighbours low and high, away from zero exactly when (x - low) / (high - low) + r / 2^16 >= 1."""
    fmt = get_format(name)
    values = fmt.decode(np.arange(1 << fmt.bits))
    values = np.unique(np.abs(values[np.isfinite(values)]))
    low, high = values[:-1], values[1:]
    if len(low) > 300:
        low, high = low[::97], high[::97]
    rng = np.random.default_rng(5)
    for trial in range(8):
        numerators = rng.integers(0, 1 << 12, len(low))
        bits = draw_random_bits(low.shape, trial)
        edge = (rng.random(len(low)) < 0.3) & (numerators > 0)  # just enough, or one too few, to round up
        threshold = (1 << RANDOM_BITS) - (numerators << (RANDOM_BITS - 12))
        bits = np.where(edge, threshold - rng.integers(0, 2, len(low)), bits).astype(np.uint16)
        x = low + (high - low) * (numerators / 4096)  # exact
        sign = rng.choice([-1, 1], len(low)) if fmt.signed else np.ones(len(low))
        up = (numerators << (RANDOM_BITS - 12)) + bits.astype(np.int64) >= 1 << RANDOM_BITS
        got = fmt.decode(fmt.encode(sign * x, "stochastic", bits))
        np.testing.assert_array_equal(got, sign * np.where(up, high, low))


@pytest.mark.parametrize("rounding", ["nearest-even", "toward-zero", "stochastic"])
@pytest.mark.parametrize("name", sorted(FLOATS) + ODD)
def test_array_twin_equals_scalar_specification(name: str, rounding: str) -> None:
    fmt = get_format(name)
    rng = np.random.default_rng(1)
    x = probes(fmt)
    x = np.concatenate([x if len(x) < 500 else rng.choice(x, 500), [0.0, -0.0, inf, -inf, 1e300, -1e-300]])
    bits = draw_random_bits(x.shape, 1)
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


@pytest.mark.parametrize("name", sorted(FLOATS) + ODD)
def test_tables_hold_every_value(name: str) -> None:
    fmt = get_format(name)
    table = fmt.decode_table()
    decoded = fmt.decode(np.arange(1 << fmt.bits))
    np.testing.assert_array_equal(
        np.ldexp(table.significand.astype(float), table.exponent)[table.finite], decoded[table.finite]
    )
    np.testing.assert_array_equal(table.finite, np.isfinite(decoded))
    on_grid = np.ldexp(np.ldexp(table.significand.astype(float), table.shifts), table.grid_exponent)
    np.testing.assert_array_equal(on_grid[table.finite], decoded[table.finite])
    assert table.shifts.min() >= 0
    assert np.ldexp(float(table.largest), table.grid_exponent) == np.abs(decoded[table.finite]).max()
    if table.wide:
        with pytest.raises(OverflowError, match="at most 64 fit an int64"):
            fmt.fixed_point()
        assert fmt.scaled_max == np.ldexp(1.0, table.unit_exponent) <= fmt.max_value
        assert table.unit_exponent >= table.grid_exponent + 63
        assert not table.fits(63)
    else:
        grid = fmt.fixed_point()
        np.testing.assert_array_equal(
            np.ldexp(grid.values.astype(float), grid.exponent)[table.finite], decoded[table.finite]
        )
        assert grid.fits(grid.bits)
        assert not grid.fits(grid.bits - 1)
        assert table.unit_exponent == grid.exponent


def test_known_limits() -> None:
    """Maxima from the OCP specifications."""
    maxima = {"float8_e4m3fn": 448, "float8_e5m2": 57344, "float6_e3m2fn": 28, "float6_e2m3fn": 7.5, "float4_e2m1fn": 6}
    assert {name: FLOATS[name].max_value for name in maxima} == maxima
    assert isnan(get_format("e4m3fn").decode_scalar(0x7F))
    assert isnan(get_format("float8_e4m3fnuz").decode_scalar(0x80))


@pytest.mark.parametrize("name", sorted(FLOATS) + ODD)
def test_names_are_read_back(name: str) -> None:
    fmt = get_format(name)
    assert get_format(fmt.name) == fmt


@pytest.mark.parametrize(
    "wrong",
    [
        {"exponent_bits": 9, "mantissa_bits": 1},
        {"exponent_bits": 0, "mantissa_bits": 0},
        {"exponent_bits": 0, "mantissa_bits": 2, "specials": "ieee"},
        {"exponent_bits": 2, "mantissa_bits": 11},
        {"exponent_bits": 4, "mantissa_bits": 3, "bias": 999},
        {"exponent_bits": 4, "mantissa_bits": 3, "specials": "fnuz", "signed": False},
        {"exponent_bits": 8, "mantissa_bits": 0, "zero": False},
        {"exponent_bits": 4, "mantissa_bits": 3, "zero": False, "signed": False},
    ],
)
def test_impossible_formats_are_refused(wrong: dict) -> None:
    with pytest.raises(FormatError):
        FloatFormat(**wrong)


def test_nan_needs_a_code() -> None:
    with pytest.raises(ValueError, match="NaN"):
        get_format("e2m1").encode(np.array([np.nan]))
    assert get_format("e4m3fn").encode(np.array([np.nan]))[0] == 0x7F
