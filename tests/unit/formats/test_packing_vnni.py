"""Quads arranged for products of bytes: the same matrix, and no pair that leaves 16 bits."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparsefab.formats import safe_pairs


def matrix_of(values, offsets, pointers, inputs):
    """The sum of what the quads hold, int64[groups, 4 rows, inputs]; offsets of one or of four inputs a quad."""
    groups = len(pointers) - 1
    result = np.zeros((groups, 4, inputs), np.int64)
    columns = offsets if offsets.ndim == 2 else 4 * offsets[:, None] + np.arange(4)
    for group in range(groups):
        for quad in range(pointers[group], pointers[group + 1]):
            for k in range(4):
                result[group, :, columns[quad, k]] += values[quad, :, k]
    return result


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    gathered=st.booleans(),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_the_matrix_stays_and_every_pair_is_safe(counts, gathered, seed, data):
    pointers = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    quads = int(pointers[-1])
    extremes = st.one_of(st.sampled_from([-128, -127, -65, -64, -1, 0, 1, 64, 65, 127]), st.integers(-128, 127))
    values = data.draw(arrays(np.int8, (quads, 4, 4), elements=extremes))
    shape = (quads, 4) if gathered else (quads,)
    offsets = np.random.default_rng(seed).integers(0, 6, shape).astype(np.int32)
    found = safe_pairs(values, offsets, pointers)
    np.testing.assert_array_equal(matrix_of(*found, 24), matrix_of(values, offsets, pointers, 24))
    pairs = found[0].reshape(-1, 2).astype(np.int64)
    assert np.all(255 * np.maximum(pairs, 0).sum(axis=1) <= 32767)
    assert np.all(255 * np.minimum(pairs, 0).sum(axis=1) >= -32768)


def test_quads_that_are_safe_are_not_split():
    values = np.full((3, 4, 4), 64, np.int8)
    values[1] = -64
    result, offsets, pointers = safe_pairs(values, np.arange(3, dtype=np.int32), np.array([0, 1, 3]))
    np.testing.assert_array_equal(result, values)
    np.testing.assert_array_equal(offsets, np.arange(3))
    np.testing.assert_array_equal(pointers, [0, 1, 3])


def test_weights_of_a_layer_need_hardly_more_quads():
    """Normal weights whose greatest is 127: pairing the greatest with the least leaves one quad in thirty to split."""
    random = np.random.default_rng(0)
    values = np.clip(np.rint(random.normal(0, 40, (40 * 40, 4, 4))), -127, 127).astype(np.int8)
    offsets = random.integers(0, 768, (1600, 4)).astype(np.int32)
    pointers = np.arange(0, 1601, 40)
    assert len(safe_pairs(values, offsets, pointers)[0]) < 1.04 * 1600
