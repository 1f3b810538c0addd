"""Compiled encoders == their meaning in NumPy, to the bit: shapes, masks, levels, threads, buffers' ends, bad input."""

import numpy as np
import pytest

from sparsefab.errors import LayoutError, ModelError
from sparsefab.kernels_cpu import encoder_buffers
from sparsefab.kernels_cpu.attention import BLOCK
from sparsefab.kernels_cpu.features import Level, best_level, runs
from sparsefab.kernels_cpu.plan import EncoderPlan
from sparsefab.kernels_cpu.threads import available_threads
from sparsefab.models.compress import Rule
from tests.unit.kernels_cpu.berts import CONTEXT, VOCABULARY, feeds_of, quantized, random_bert
from tests.unit.kernels_cpu.test_guard_pages import guarded


def assert_same(got, expected):
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name].view(np.uint32), array.view(np.uint32), err_msg=name)


def with_holes(feeds, seed):
    random = np.random.default_rng(seed)
    return feeds | {"attention_mask": feeds["attention_mask"] * (random.random(feeds["input_ids"].shape) < 0.6)}


@pytest.fixture(scope="module")
def small():
    return quantized(random_bert())


@pytest.mark.parametrize(
    "level",
    [
        pytest.param(level, marks=[] if level in (best_level(), Level.PORTABLE) else [pytest.mark.slow])
        for level in Level
        if runs(level)
    ],
)
def test_every_level_gives_the_bits_of_the_meaning(small, level):
    plan = EncoderPlan(small, level=level)
    for lengths in ([1], [16], [17], [32], [33], [64], [65], [5, 48, 1, 31], [CONTEXT, 3]):
        feeds = feeds_of(lengths)
        assert_same(plan.run(feeds), small.run(feeds))
    feeds = with_holes(feeds_of([50, 20, 40]), 3)
    assert_same(plan.run(feeds), small.run(feeds))


@pytest.mark.slow
@pytest.mark.parametrize("level", [Level.AVX512_VNNI, Level.AVX512, Level.AVX_VNNI])
def test_levels_that_the_machine_may_lack(small, level):
    plan = EncoderPlan(small, level=level, emulate=True)
    for feeds in (feeds_of([20]), feeds_of([33, 70])):
        assert_same(plan.run(feeds), small.run(feeds))


@pytest.mark.parametrize(
    ("width", "inner", "heads", "pattern", "gelu"),
    [
        (12, 20, 3, "dense", "gelu_new"),  # heads of 4 channels, an odd number of them
        (64, 32, 1, "4x1@0.2", "none"),
        (40, 8, 5, "2:4", "none"),  # not in blocks: every column is kept
        pytest.param(128, 512, 2, "4x1@0.2", "none", marks=pytest.mark.slow),
        pytest.param(384, 1536, 12, "4x1@0.2", "none", marks=pytest.mark.slow),
    ],
)
def test_shapes_and_patterns(width, inner, heads, pattern, gelu):
    model = random_bert(width=width, inner=inner, heads=heads, gelu={"gelu_new": "tanh"}.get(gelu, "none"), layers=1)
    source = quantized(model, pattern)
    plan = EncoderPlan(source)
    for feeds in (feeds_of([37, 9]), with_holes(feeds_of([80]), 1)):
        assert_same(plan.run(feeds), source.run(feeds))


def test_a_sequence_alone_is_that_sequence_in_a_batch(small):
    plan = EncoderPlan(small)
    batch = feeds_of([7, 64, 30])
    together = plan.run(batch)
    for row, length in enumerate((7, 64, 30)):
        alone = plan.run({name: array[row : row + 1, :length] for name, array in batch.items()})
        np.testing.assert_array_equal(alone["embedding"][0], together["embedding"][row])
        np.testing.assert_array_equal(alone["last_hidden_state"][0], together["last_hidden_state"][row, :length])
        assert not together["last_hidden_state"][row, length:].any()


def test_what_a_masked_token_says_does_not_matter(small):
    plan = EncoderPlan(small)
    feeds = with_holes(feeds_of([90]), 5)
    expected = plan.run(feeds)
    ids = np.where(feeds["attention_mask"], feeds["input_ids"], 10**9)  # no id of the vocabulary
    assert_same(plan.run(feeds | {"input_ids": ids}), expected)


def test_an_empty_sequence_has_the_mean_zero(small):
    plan = EncoderPlan(small)
    feeds = feeds_of([0, 5], sequence=9)
    assert_same(plan.run(feeds), small.run(feeds))
    assert not plan.run(feeds)["embedding"][0].any()
    nothing = feeds_of([0], sequence=4)
    assert not plan.run(nothing)["last_hidden_state"].any()


@pytest.mark.skipif(available_threads() < 2, reason="needs two threads")
def test_threads_change_no_bit(small):
    plan = EncoderPlan(small, threads=2)
    for lengths in ([150, 3, 80], [10], [64, 64]):
        feeds = feeds_of(lengths)
        assert_same(plan.run(feeds), small.run(feeds))


def test_embed_is_the_embedding_of_run(small):
    plan = EncoderPlan(small)
    feeds = feeds_of([33, 70])
    np.testing.assert_array_equal(plan.embed(feeds), plan.run(feeds)["embedding"])


@pytest.mark.parametrize("at_end", [False, True])
def test_nothing_is_touched_beyond_a_buffer(small, monkeypatch, at_end):
    real = encoder_buffers.aligned_zeros
    monkeypatch.setattr(encoder_buffers, "aligned_zeros", lambda shape, dtype: guarded(real(shape, dtype), at_end, 64))
    plan = EncoderPlan(small)
    for lengths in ([16], [33, 16], [160]):  # buffers end with the last token of the last sequence
        feeds = feeds_of(lengths)
        assert_same(plan.run(feeds), small.run(feeds))


def test_sizes_are_reported(small):
    plan = EncoderPlan(small)
    assert plan.buffer_bytes == 0
    plan.run(feeds_of([20]))
    narrow = plan.buffer_bytes
    plan.run(feeds_of([100]))
    assert plan.buffer_bytes > narrow > 32 * 32 * 10
    graph = small.graph
    values = sum(np.count_nonzero(small.layer(name).tensor.codes) for block in graph.blocks for name in block.layers)
    assert plan.weight_bytes > graph.words.nbytes + graph.places.nbytes + values


@pytest.mark.slow  # compiled anew for it
@pytest.mark.skipif(not runs(Level.AVX2), reason="reads x86's counter")
def test_a_profile_is_shares_of_one(small):
    shares = EncoderPlan(small).profile(feeds_of([50]), calls=2)
    assert sum(shares.values()) == pytest.approx(1)
    assert all(0 < share < 1 for share in shares.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": None}, "input 'input_ids' is missing"),
        ({"input_ids": np.zeros((1, 3))}, "input_ids must be integers"),
        ({"input_ids": np.zeros(3, np.int64)}, "input_ids must be integers .batch, sequence., not int64 of .3,."),
        ({"attention_mask": np.ones((1, 2), np.int64)}, "must have one shape"),
        ({"input_ids": np.full((1, 3), VOCABULARY)}, f"token ids must be 0 to {VOCABULARY - 1}, not"),
        ({"input_ids": np.full((1, 3), -1)}, "token ids must be 0 to"),
    ],
)
def test_bad_input_is_refused(small, change, message):
    feeds = {"input_ids": np.zeros((1, 3), np.int64), "attention_mask": np.ones((1, 3), np.int64), **change}
    feeds = {name: array for name, array in feeds.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        EncoderPlan(small).run(feeds)


def test_a_sequence_beyond_the_context_is_refused(small):
    with pytest.raises(ValueError, match=f"a sequence may have {CONTEXT} tokens, not {CONTEXT + 1}"):
        EncoderPlan(small).run(feeds_of([CONTEXT + 1]))


def test_too_many_threads_are_refused(small):
    with pytest.raises(ValueError, match=f"threads must be 1 to {available_threads()}, not 999"):
        EncoderPlan(small, threads=999)


def test_a_head_that_is_no_multiple_of_four_is_refused():
    with pytest.raises(ModelError, match="3 heads of 18 channels: a head must be a multiple of 4 wide"):
        EncoderPlan(quantized(random_bert(width=18, heads=3, layers=1)))


def test_group_scales_are_refused():
    rule = Rule(layers=("*layer.0.output.dense",), weights="int4", group_size=8)
    with pytest.raises(LayoutError, match="one scale a row, not group multipliers"):
        EncoderPlan(quantized(random_bert(layers=1), rules=(rule,)))


def test_blocks_of_queries_are_whole_vectors():
    assert BLOCK == 16  # what `attend` writes its vectors for
