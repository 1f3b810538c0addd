"""The chain's reference against plain integers and against the matrix product of what was packed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsefab.arch import ChainArch
from sparsefab.formats import NM, Chain, ChainRows, Dense, IntFormat, QuantTensor, Unstructured, pack
from sparsefab.sim.reference.chain import accumulate_parts, accumulate_tiles, beat_sums, fill_banks
from sparsefab.sim.stimuli import chain_kinds, packed_stimuli, random_stimuli, steady_stimuli


def _tensor(rows: int, columns: int, slots: int, random: np.random.Generator) -> QuantTensor:
    codes = random.integers(-127, 128, (rows, columns)).astype(np.int16)
    order = random.permuted(np.tile(np.arange(16), (rows * columns // 16, 1)), axis=1).reshape(rows, columns)
    mask = order < slots
    return QuantTensor(
        codes=codes * mask,
        format=IntFormat(bits=8),
        row_scales=np.ones(rows, np.float32),
        group_size=columns,
        pattern=NM(slots, 16) if slots < 16 else Dense(),
        mask=mask if slots < 16 else None,
        group_multipliers=None,
        zero_points=None,
    )


def test_beat_sums_in_python_integers() -> None:
    stimuli = random_stimuli(ChainArch(dsps=16), beats=60, slots=(0, 1, 2, 4, 8, 16), seed=5)
    want = []
    for beat, tile in enumerate(stimuli.tile_of_beat):
        words = [stimuli.banks[tile, d, i].tolist() for d, i in enumerate(stimuli.indices[beat])]
        first, second = stimuli.weights[beat].tolist(), stimuli.seconds[beat].tolist()
        lower = sum(w * a for w, (a, _) in zip(first, words, strict=True))
        tokens = sum(w * b for w, (_, b) in zip(first, words, strict=True))
        rows = sum(w * a for w, (a, _) in zip(second, words, strict=True))
        want.append([lower, rows if stimuli.vector[tile] else tokens])
    assert set(stimuli.vector) == {0, 1}
    assert stimuli.expected().tolist() == want


def _joined_by(segments: int, left: int, right: int) -> int:
    """The first segment of the right half of the join that brings two segments together, pairwise level by level."""
    spans = [range(s, s + 1) for s in range(segments)]
    while True:
        pairs = [spans[k : k + 2] for k in range(0, len(spans), 2)]
        for pair in pairs:
            if len(pair) == 2 and left in pair[0] and right in pair[1]:
                return pair[1].start
        spans = [range(pair[0].start, pair[-1].stop) for pair in pairs]


@pytest.mark.parametrize("segments", [1, 2, 3, 5, 8, 12])
def test_parts_of_beats_in_python_integers(segments: int) -> None:
    arch = ChainArch(dsps=8 * segments, ends=True)
    stimuli = random_stimuli(arch, beats=60, slots=(0, 1, 16), seed=segments)
    sums, used = stimuli.expected_parts(arch.segment)
    assert stimuli.starts is not None
    for beat, tile in enumerate(stimuli.tile_of_beat):
        words = [stimuli.banks[tile, d, i].tolist() for d, i in enumerate(stimuli.indices[beat])]
        first, second = stimuli.weights[beat].tolist(), stimuli.seconds[beat].tolist()
        cuts = [2 * int(g) for g in np.flatnonzero(stimuli.starts[beat])]
        assert len({d // 8 for d in cuts}) == len(cuts)
        want = np.zeros((segments + 1, 2), np.int64)
        for k, (low, high) in enumerate(zip([0, *cuts], [*cuts, arch.dsps], strict=True)):
            part = segments if k == len(cuts) else 0 if k == 0 else _joined_by(segments, low // 8, high // 8)
            want[part, 0] = sum(first[d] * words[d][0] for d in range(low, high))
            operands = [
                (second[d], words[d][0]) if stimuli.vector[tile] else (first[d], words[d][1]) for d in range(low, high)
            ]
            want[part, 1] = sum(w * a for w, a in operands)
            assert used[beat, part]
        assert sums[beat].tolist() == want.tolist()
        assert used[beat].sum() == len(cuts) + 1
        assert np.flatnonzero(used[beat]).tolist() == sorted(np.flatnonzero(used[beat]))


@settings(max_examples=20, deadline=None)
@given(slots=st.sampled_from([1, 2, 3, 4, 8, 16]), blocks=st.integers(1, 9), seed=st.integers(0, 1000))
def test_packed_beats_give_the_matrix_product(slots: int, blocks: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    arch = ChainArch(dsps=16)
    tensor = _tensor(5, 16 * blocks, slots, random)
    codes = random.integers(-128, 128, (3, 16 * blocks))
    stimuli = packed_stimuli(arch, pack(tensor, Chain(dsps=16, slots=slots)), codes)
    passes = stimuli.expected().reshape(2, -1, 2)
    got = np.concatenate([accumulate_tiles(np.ascontiguousarray(sums), 5) for sums in passes])
    np.testing.assert_array_equal(got[:3], codes @ tensor.centred().astype(np.int64).T)
    np.testing.assert_array_equal(got[3], 0)


@settings(max_examples=20, deadline=None)
@given(density=st.sampled_from([0.0, 0.1, 0.3, 0.7, 1.0]), blocks=st.sampled_from([1, 2, 4]), seed=st.integers(0, 1000))
def test_rows_of_any_length_give_the_matrix_product(density: float, blocks: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = random.random((9, 70)) < density
    tensor = replace(
        _tensor(9, 80, 16, random),
        codes=(random.integers(-128, 128, mask.shape) * mask).astype(np.int16),
        group_size=70,
        mask=mask,
        pattern=Unstructured(),
    )
    codes = random.integers(-128, 128, (3, 70))
    packed = pack(tensor, ChainRows(dsps=16, blocks=blocks))
    stimuli = packed_stimuli(ChainArch(dsps=16, ends=True), packed, codes)
    sums, used = stimuli.expected_parts(8)
    half = stimuli.beats // 2  # two passes
    got = [
        accumulate_parts(sums[part], used[part], stimuli.tile_of_beat[part], 9)
        for part in (slice(half), slice(half, None))
    ]
    np.testing.assert_array_equal(np.concatenate(got)[:3], codes @ tensor.centred().astype(np.int64).T)
    with pytest.raises(ValueError, match="ends must be true and segment 8"):
        packed_stimuli(ChainArch(dsps=16), packed, codes)


def test_rows_back_to_back_take_fewer_beats() -> None:
    """At 30 % unstructured density less than half the beats of rows that must be ready for 16 of 16."""
    random = np.random.default_rng(0)
    mask = random.random((64, 512)) < 0.3
    tensor = replace(_tensor(64, 512, 16, random), mask=mask, pattern=Unstructured())
    tensor = replace(tensor, codes=(tensor.codes * mask).astype(np.int16))
    whole, rows = (
        len(pack(tensor, layout).sections["beats"]) // layout.beat_bytes
        for layout in (Chain(dsps=64), ChainRows(dsps=64, blocks=2))
    )
    assert rows < 0.5 * whole


@settings(max_examples=20, deadline=None)
@given(slots=st.sampled_from([3, 8, 16]), blocks=st.integers(1, 9), seed=st.integers(0, 1000))
def test_pairs_of_rows_give_the_matrix_product(slots: int, blocks: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    tensor = _tensor(6, 16 * blocks, slots, random)
    if tensor.mask is not None:
        shared = np.repeat(tensor.mask[::2], 2, axis=0)
        stored = np.where(shared, random.integers(-128, 128, shared.shape), 0).astype(np.int16)
        tensor = replace(tensor, mask=shared, codes=stored, pattern=NM(slots, 16, rows=2))
    codes = random.integers(-128, 128, (3, 16 * blocks))
    stimuli = packed_stimuli(ChainArch(dsps=16), pack(tensor, Chain(dsps=16, slots=slots, pairs=True)), codes)
    passes = stimuli.expected().reshape(3, -1, 2)
    got = np.stack([accumulate_tiles(np.ascontiguousarray(sums), 3).T.reshape(-1) for sums in passes])
    np.testing.assert_array_equal(got, codes @ tensor.centred().astype(np.int64).T)
    with pytest.raises(ValueError, match="matrix_vector must be true for pairs of rows"):
        packed_stimuli(
            ChainArch(dsps=16, matrix_vector=False), pack(tensor, Chain(dsps=16, slots=slots, pairs=True)), codes
        )


@pytest.mark.parametrize("matrix_vector", [True, False])
def test_random_stimuli_exercise_every_kind(matrix_vector: bool) -> None:
    arch = ChainArch(dsps=64, matrix_vector=matrix_vector)
    stimuli = random_stimuli(arch, beats=200, slots=(0, 1, 2, 4, 8, 16), seed=3)
    assert stimuli.beats == 200
    assert set(stimuli.kinds()) == set(chain_kinds(arch, (0, 1, 2, 4, 8, 16)))
    assert len(chain_kinds(arch, (0, 1, 2, 4, 8, 16))) == (12 if matrix_vector else 6)


def test_banks_repeat_a_block_for_its_slots() -> None:
    activations = np.arange(64, dtype=np.int64).reshape(2, 32)
    banks = fill_banks(activations, 4, 8, 16)
    assert banks.shape == (1, 8, 16, 2)
    np.testing.assert_array_equal(banks[0, 3, :, 0], np.arange(16))
    np.testing.assert_array_equal(banks[0, 4, :, 1], np.arange(48, 64))


def test_random_stimuli_start_in_the_corner() -> None:
    arch = ChainArch(dsps=16)
    stimuli = random_stimuli(arch, beats=40, slots=(16,), seed=0)
    for vector in (0, 1):
        corner = stimuli.expected()[stimuli.tile_of_beat == vector]
        assert corner[0].tolist() == [arch.sum_range[1]] * 2
        assert len(corner) < 2 or corner[1].tolist() == [arch.sum_range[0]] * 2
    assert stimuli.last[-1]


def test_max_beats_keeps_whole_tiles() -> None:
    random = np.random.default_rng(0)
    packed = pack(_tensor(6, 64, 16, random), Chain(dsps=16))
    stimuli = packed_stimuli(ChainArch(dsps=16), packed, np.ones((4, 64), np.int8), max_beats=20)
    assert stimuli.beats == 18
    assert stimuli.banks.shape[0] == 3
    assert steady_stimuli(ChainArch(dsps=16), tiles=2, seed=0).beats == 128
    with pytest.raises(ValueError, match="activations must be"):
        packed_stimuli(ChainArch(dsps=16), packed, np.ones((4, 32), np.int8))
    with pytest.raises(ValueError, match="chain layout of 8 DSPs"):
        packed_stimuli(ChainArch(dsps=8), packed, np.ones((4, 64), np.int8))


def test_beat_sums_of_no_beats() -> None:
    empty = np.zeros((0, 4), np.int64)
    none, banks = np.zeros(0, np.int64), np.zeros((1, 4, 16, 2), np.int64)
    assert beat_sums(empty, empty, empty, none, banks, np.zeros(1, np.int64)).shape == (0, 2)
