"""The requantization: array twin against the specification, and both against exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsefab.formats import Requantizer, requantize, requantize_scalar

accumulators = st.one_of(st.integers(-(2**20), 2**20), st.integers(-(2**47), 2**47), st.integers(-(2**63), 2**63 - 1))


@given(accumulators, st.integers(1 << 14, (1 << 15) - 1), st.integers(-20, 50), st.integers(0, 255))
def test_array_twin_equals_specification(acc: int, multiplier: int, shift: int, zero_point: int) -> None:
    constants = Requantizer(
        multipliers=np.array([multiplier], np.int32),
        shifts=np.array([shift], np.int32),
        zero_point=zero_point,
        code_min=0,
        code_max=255,
    )
    # beyond 2^62 both saturate: the specification is asked with the same clip
    clipped = min(max(acc, -(2**62)), 2**62 - 1)
    got = requantize(np.array([[acc]], np.int64), constants)[0, 0]
    assert got == requantize_scalar(clipped, multiplier, shift, zero_point, 0, 255)


@given(st.integers(-(2**31), 2**31), st.floats(2.0**-30, 2.0**-3), st.integers(0, 255))
def test_result_is_within_one_code_of_the_exact_one(acc: int, ratio: float, zero_point: int) -> None:
    constants = Requantizer.of(np.array([ratio]), zero_point, 0, 255)
    exact = Fraction(acc) * Fraction(float(constants.ratios[0])) + zero_point
    got = int(requantize(np.array([[acc]], np.int64), constants)[0, 0])
    nearest = min(max(round(exact), 0), 255)
    assert abs(got - nearest) <= 1
    # away from a tie the two roundings agree: the first one is good to 1/64 + 1/128 of a code
    if abs(exact - round(exact)) < Fraction(1, 2) - Fraction(3, 128) and 0 <= exact <= 255:
        assert got == nearest


@given(st.floats(2.0**-50, 2.0**30))
def test_constants_are_good_to_15_bits(ratio: float) -> None:
    constants = Requantizer.of(np.array([ratio]), 0, 0, 255)
    assert 1 << 14 <= constants.multipliers[0] < 1 << 15
    assert abs(constants.ratios[0] / ratio - 1) <= 2.0**-15


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_bad_ratios_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        Requantizer.of(np.array([bad]), 0, 0, 255)
