"""The integer softmax against float64: every distance to the greatest score, every choice of constants."""

import math

import numpy as np
import pytest

from sparsefab.errors import ModelError
from sparsefab.models.evaluate.softmax import Softmax


def test_every_distance_has_the_weight_of_its_power_of_two():
    softmax = Softmax(coarse=0, multiplier=32767, fraction_bits=11)  # an eleventh bit of an octave a level
    below = np.arange(32768)
    weights = softmax.weights(np.stack([np.zeros_like(below), -below], axis=1))
    assert (weights[:, 0] == 255).all()
    exact = 255 * 2.0 ** (-below * softmax.unit)
    assert np.abs(weights[:, 1] - exact).max() < 0.58  # half, the cubic's 7.5e-5, half a step of an octave's fraction
    assert (np.diff(weights[:, 1]) <= 0).all()


@pytest.mark.parametrize("unit", [0.0, 1e-9, 1e-5, 9.3e-5, 1e-3, 0.0155, 0.06])
@pytest.mark.parametrize("largest", [1, 32 * 127**2, 128 * 127**2])
def test_weights_are_near_the_softmax_in_float64(unit, largest):
    if unit * 2 ** max(0, largest.bit_length() - 15) >= 1:
        pytest.skip("refused, as the test below shows")
    softmax = Softmax.of(unit, largest)
    assert 1 <= softmax.multiplier < 1 << 15
    assert largest >> softmax.coarse < 1 << 15
    random = np.random.default_rng(0)
    scores = random.integers(-largest, largest + 1, (50, 40))
    exact = 255 * np.exp2(unit * (scores - scores.max(axis=1, keepdims=True)))
    level = unit * 2**softmax.coarse + 2.0**-softmax.fraction_bits / 2 + 2.0**-15  # octaves that a level may be off
    assert np.abs(softmax.weights(scores) - exact).max() <= 0.55 + 255 * (1 - 2**-level) + exact.max() * 1e-3


def test_what_lies_far_below_has_no_weight():
    softmax = Softmax.of(1e-3, 32 * 127**2)
    octaves = 9.1
    assert softmax.weights(np.array([0, -math.ceil(octaves / 1e-3)]))[1] == 0
    assert softmax.weights(np.array([500_000, -500_000]))[1] == 0


@pytest.mark.parametrize("unit", [0.1, math.inf, math.nan])
def test_scores_that_cannot_be_told_apart_are_refused(unit):
    with pytest.raises(ModelError, match="octaves, too many to tell apart"):
        Softmax.of(unit, 32 * 127**2)
