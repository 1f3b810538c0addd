"""The chain's reference against plain integers and against the matrix product of what was packed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsefab.arch import ChainArch
from sparsefab.formats import NM, Chain, Dense, IntFormat, QuantTensor, pack
from sparsefab.sim.reference.chain import accumulate_tiles, beat_sums, fill_banks
from sparsefab.sim.stimuli import packed_stimuli, random_stimuli, steady_stimuli


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
    stimuli = random_stimuli(ChainArch(dsps=16), beats=40, slots=(0, 1, 2, 4, 8, 16), seed=5)
    want = [
        [
            sum(int(w) * int(stimuli.banks[tile, d, i, lane]) for d, (w, i) in enumerate(zip(ws, ix, strict=True)))
            for lane in range(2)
        ]
        for ws, ix, tile in zip(stimuli.weights, stimuli.indices, stimuli.tile_of_beat, strict=True)
    ]
    assert stimuli.expected().tolist() == want


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


def test_banks_repeat_a_block_for_its_slots() -> None:
    activations = np.arange(64, dtype=np.int64).reshape(2, 32)
    banks = fill_banks(activations, 4, 8, 16)
    assert banks.shape == (1, 8, 16, 2)
    np.testing.assert_array_equal(banks[0, 3, :, 0], np.arange(16))
    np.testing.assert_array_equal(banks[0, 4, :, 1], np.arange(48, 64))


def test_random_stimuli_start_in_the_corner() -> None:
    arch = ChainArch(dsps=16)
    stimuli = random_stimuli(arch, beats=10, slots=(16,), seed=0)
    assert stimuli.expected().max() == arch.sum_range[1]
    assert stimuli.expected().min() == arch.sum_range[0] or stimuli.beats == 1
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
    assert beat_sums(empty, empty, np.zeros(0, np.int64), np.zeros((1, 4, 16, 2), np.int64)).shape == (0, 2)
