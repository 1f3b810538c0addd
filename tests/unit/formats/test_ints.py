"""Integer formats: codes, ranges, rounding, and the array twin against the scalar specification."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsefab.errors import FormatError
from sparsefab.formats import IntFormat, get_format
from sparsefab.formats.ints import draw_random_bits

NAMES = [f"{u}int{b}" for u in ("", "u") for b in (1, 2, 3, 4, 7, 8, 12, 16)] + ["int4sym", "int8sym", "int16sym"]


@pytest.mark.parametrize("name", NAMES)
def test_patterns_and_codes_are_inverse(name: str) -> None:
    fmt = get_format(name)
    assert isinstance(fmt, IntFormat)
    assert fmt.name == name
    codes = np.arange(fmt.code_min, fmt.code_max + 1)
    np.testing.assert_array_equal(fmt.from_pattern(fmt.to_pattern(codes)), codes)
    np.testing.assert_array_equal(fmt.decode_table().significand[fmt.to_pattern(codes)], codes)
    assert len(codes) == (1 << fmt.bits) - fmt.symmetric


@pytest.mark.parametrize("rounding", ["nearest-even", "toward-zero", "stochastic"])
@pytest.mark.parametrize("name", NAMES)
def test_array_twin_equals_scalar_specification(name: str, rounding: str) -> None:
    fmt = get_format(name)
    rng = np.random.default_rng(2)
    far = [1e30, -1e30, 2.0**40 + 3, np.inf, -np.inf]
    x = np.concatenate([rng.normal(0, fmt.code_max, 300), np.arange(-20, 20) / 2, far])
    bits = draw_random_bits(x.shape, 2)
    for saturating in (True, False)[: 1 if fmt.symmetric else 2]:
        spec = [fmt.encode_scalar(float(v), rounding, saturating, int(b)) for v, b in zip(x, bits, strict=True)]
        np.testing.assert_array_equal(fmt.encode(x, rounding, bits, saturating), spec)


def test_wrapping_is_that_of_two_s_complement() -> None:
    """Python integers reduced modulo 2^bits, for every bit width and both signs."""
    for bits in range(1, 17):
        for signed in (True, False):
            fmt = IntFormat(bits=bits, signed=signed)
            x = np.arange(-200, 200) * 331
            patterns = fmt.to_pattern(fmt.encode(x.astype(float), saturating=False))
            assert patterns.tolist() == [int(v) & ((1 << bits) - 1) for v in x]
    with pytest.raises(ValueError, match="cannot wrap"):
        get_format("int8sym").encode(np.zeros(1), saturating=False)


@pytest.mark.parametrize("name", ["int2", "int4", "uint2", "uint4", "int1", "uint1"])
def test_agrees_with_ml_dtypes(name: str) -> None:
    fmt, dtype = get_format(name), np.dtype(getattr(ml_dtypes, name))
    codes = np.arange(fmt.code_min, fmt.code_max + 1)
    stored = fmt.to_pattern(codes).astype(np.uint8)
    assert stored.view(dtype).astype(int).tolist() == codes.tolist()


def test_random_bits_follow_their_seed() -> None:
    bits = draw_random_bits((1000,), 7)
    np.testing.assert_array_equal(bits, draw_random_bits((1000,), 7))
    assert not np.array_equal(bits, draw_random_bits((1000,), 8))
    assert bits.min() < 1000 < 64000 < bits.max()


@given(st.floats(min_value=-127, max_value=127), st.integers(0, 65535))
def test_stochastic_rounding_follows_its_random_bits(x: float, bits: int) -> None:
    """Up exactly when the fraction plus bits / 2^16 reaches one."""
    got = get_format("int8").encode(np.array([x]), "stochastic", np.array([bits], np.uint16))[0]
    whole, fraction = divmod(abs(x), 1)
    up = int(fraction) if fraction >= 1 else int(int(fraction * 2**60) + (bits << 44) >= 2**60)
    assert abs(int(got)) == int(whole) + up


@pytest.mark.parametrize(
    "wrong",
    [{"bits": 0}, {"bits": 17}, {"bits": 1, "symmetric": True}, {"bits": 4, "signed": False, "symmetric": True}],
)
def test_impossible_formats_are_refused(wrong: dict) -> None:
    with pytest.raises(FormatError):
        IntFormat(**wrong)


def test_unknown_names_offer_near_ones() -> None:
    with pytest.raises(FormatError, match="int8"):
        get_format("int88x")
