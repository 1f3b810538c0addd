"""Compiled decoders near the bit-true executor, the same however their tokens are fed; their steps against NumPy."""

import numpy as np
import pytest

from sparsefab.errors import LayoutError, ModelError
from sparsefab.formats import get_format
from sparsefab.formats.activations import quantize_dynamic
from sparsefab.kernels_cpu.decoder import BOUND, DecoderPlan
from sparsefab.kernels_cpu.decoder_steps import attend, gate, normalize
from sparsefab.kernels_cpu.generation import continue_text
from sparsefab.kernels_cpu.inference import generate
from sparsefab.kernels_cpu.panels import aligned_zeros
from sparsefab.kernels_cpu.threads import available_threads
from sparsefab.models.evaluate.runner import BitTrueRunner
from sparsefab.models.execute import execute
from tests.unit.kernels_cpu.llamas import CONTEXT, VOCABULARY, compressed, random_llama

NEAR = 0.02  # of the range of the logits of these small models, less than BOUND, which is for deep ones


def exact_logits(model, ids):
    return execute(model.model, {"input_ids": ids[None]}, BitTrueRunner(model))["logits"][0, -1]


def some_ids(count, seed=0):
    return np.random.default_rng(seed).integers(0, VOCABULARY, count)


@pytest.fixture(scope="module")
def small():
    return compressed(random_llama())


@pytest.mark.parametrize(
    ("shape", "rule"),
    [
        ({}, {}),
        ({"heads": 4, "kv_heads": 1, "head_dim": 32, "bias": True}, {}),
        ({}, {"weights": "int4sym", "group_size": 32}),
        ({}, {"weights": "int4", "group_size": 16}),
        ({}, {"pattern": "4x1@0.4"}),
        ({}, {"pattern": "2:4"}),
        ({}, {"weights": "int4sym", "group_size": 16, "pattern": "1x16@0.5"}),
        ({}, {"weights": "int4sym", "group_size": 16, "pattern": "1x16@0.5", "outliers": 0.02}),
        ({}, {"weights": "int4", "outliers": 0.02}),
    ],
)
def test_logits_are_within_the_bound_of_the_bit_true_model(shape, rule):
    model = compressed(random_llama(**shape), **rule)
    plan, ids = DecoderPlan(model), some_ids(80)
    for count in (1, 2, 17, 80):  # one bucket, two
        plan.forget()
        exact = exact_logits(model, ids[:count])
        apart = np.abs(plan.feed(ids[:count]) - exact)
        assert apart.max() <= NEAR * (exact.max() - exact.min())
        assert np.median(apart) <= NEAR / 10 * (exact.max() - exact.min())


def test_tokens_may_be_fed_in_any_pieces(small):
    plan, ids = DecoderPlan(small), some_ids(70)
    together = plan.feed(ids)
    for pieces in ([1] * 70, [30, 1, 39], [64, 6]):
        plan.forget()
        start = 0
        for count in pieces:
            logits = plan.feed(ids[start : start + count])
            start += count
            assert plan.position == start
        np.testing.assert_array_equal(logits, together)


def test_a_fault_in_the_cache_would_be_seen(small):
    plan, ids = DecoderPlan(small), some_ids(20)
    exact = exact_logits(small, ids)
    plan.feed(ids[:19])
    plan._values[0, 0, 3] += 30
    assert np.abs(plan.feed(ids[19:]) - exact).max() > NEAR * (exact.max() - exact.min())


@pytest.mark.skipif(available_threads() < 2, reason="needs two threads")
@pytest.mark.slow  # compiled anew for it
def test_threads_change_no_bit(small):
    ids = some_ids(40)
    np.testing.assert_array_equal(DecoderPlan(small, threads=2).feed(ids), DecoderPlan(small).feed(ids))


def test_greedy_text_goes_on_beyond_the_context_as_without_a_cache(small):
    def engine(feeds, outputs):
        return execute(small.model, feeds, BitTrueRunner(small), outputs=outputs)

    prompt = some_ids(CONTEXT - 3, seed=2)
    added, report = continue_text(DecoderPlan(small), prompt, tokens=6, compressed=small, check=True)
    assert added == generate(engine, prompt, tokens=6, context=CONTEXT)
    assert (report.compared, report.differing) == (6 * VOCABULARY, 0)
    assert (report.items, report.prompt_tokens, report.planned, report.bound) == (6, CONTEXT - 3, True, BOUND)
    assert report.seconds_per_item > 0
    assert report.weight_bytes > small.model.weights["lm_head"].size
    assert report.buffer_bytes > 2 * 2 * 2 * 16 * CONTEXT * 4  # keys and values, blocks, heads, channels


def rows(*shape, seed=0, scale=1.0):
    x = aligned_zeros(shape, np.float32)
    x[:] = np.random.default_rng(seed).normal(size=shape) * scale
    return x


def quantized(y):
    codes = quantize_dynamic(y, get_format("int8"))
    return codes.integers, codes.token_scales


def test_normalization_and_its_codes():
    x, added, gain = rows(3, 48), rows(3, 48, seed=1), rows(48, seed=2)
    codes, scales = aligned_zeros((3, 48), np.uint8), aligned_zeros((3,), np.float32)
    h = x + added
    y = h / np.sqrt((h.astype(np.float64) ** 2).mean(axis=1, keepdims=True) + 1e-5) * gain
    normalize(x, added, gain, np.float32(1e-5), codes, scales, 128, aligned_zeros((64,), np.float32))
    np.testing.assert_array_equal(x, h)
    integers, expected = quantized(y.astype(np.float32))
    np.testing.assert_allclose(scales, expected, rtol=1e-6)
    assert np.abs(codes.astype(int) - 128 - integers).max() <= 1
    assert (codes.astype(int) - 128 != integers).mean() < 0.02


def test_a_row_of_zeros_has_the_scale_one():
    x, codes, scales = (
        aligned_zeros((1, 16), np.float32),
        aligned_zeros((1, 16), np.uint8),
        aligned_zeros((1,), np.float32),
    )
    normalize(x, None, rows(16), np.float32(1e-5), codes, scales, 0, aligned_zeros((32,), np.float32))
    assert scales[0] == 1
    assert not codes.any()


def test_the_gate_over_all_of_its_range():
    both = rows(1, 2 * 4096, seed=3)
    both[0, :4096] = np.linspace(-200, 200, 4096)
    codes, scales = aligned_zeros((1, 4096), np.uint8), aligned_zeros((1,), np.float32)
    scratch = aligned_zeros((4096 + 16,), np.float32)
    gate(both, codes, scales, 0, scratch)
    g, up = both[0, :4096].astype(np.float64), both[0, 4096:].astype(np.float64)
    np.testing.assert_allclose(scratch[:4096], g / (1 + np.exp(-g)) * up, rtol=5e-7, atol=5e-9)  # octaves are rounded
    integers, expected = quantized(scratch[None, :4096])
    np.testing.assert_array_equal(codes.view(np.int8), integers)
    np.testing.assert_array_equal(scales, expected)


@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_attention_is_that_of_float64(scale):
    heads, kv_heads, head, count = 4, 2, 16, 37
    angles = np.outer(np.arange(64), [1.0, 0.3, 0.1, 0.01, 0.5, 0.2, 0.7, 0.9])
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    projected = rows(count, (heads + 2 * kv_heads) * head, scale=scale)
    parts = projected.astype(np.float64).reshape(count, heads + 2 * kv_heads, head)
    keys, values = aligned_zeros((kv_heads, head, 64), np.float32), aligned_zeros((kv_heads, 64, head), np.float32)
    mixed, scratch = aligned_zeros((count, heads * head), np.float32), aligned_zeros((80,), np.float32)
    attend(projected[:30], cos, sin, 0, keys, values, heads, mixed[:30], scratch)
    attend(projected[30:], cos, sin, 30, keys, values, heads, mixed[30:], scratch)
    a, b, c, s = parts[..., :8], parts[..., 8:], cos[:count, None].astype(float), sin[:count, None].astype(float)
    turned = np.concatenate([a * c - b * s, b * c + a * s], axis=2)
    for index in range(heads):
        k, v = turned[:, heads + index // 2], parts[:, heads + kv_heads + index // 2]
        scores = np.where(np.tri(count) > 0, turned[:, index] @ k.T / np.sqrt(head), -np.inf)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        expected = weights / weights.sum(axis=1, keepdims=True) @ v
        np.testing.assert_allclose(mixed[:, index * head : (index + 1) * head], expected, atol=3e-4 * scale)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.zeros((1, 2), np.int64), "ids must be integers .tokens., at least one"),
        (np.zeros(0, np.int64), "at least one"),
        (np.zeros(2), "ids must be integers"),
        (np.array([VOCABULARY]), f"token ids must be 0 to {VOCABULARY - 1}"),
        (np.array([-1]), "token ids must be 0 to"),
        (np.zeros(CONTEXT + 1, np.int64), f"a sequence may have {CONTEXT} tokens, not {CONTEXT + 1}"),
    ],
)
def test_bad_input_is_refused(small, ids, message):
    with pytest.raises(ValueError, match=message):
        DecoderPlan(small).feed(ids)


@pytest.mark.parametrize(
    ("shape", "rule", "error", "message"),
    [
        ({}, {"activations": "uint8"}, ModelError, "reads uint8 activations; a compiled decoder needs int8"),
        ({}, {"weights": "e4m3"}, LayoutError, "weights in .*e4m3.* are no integers"),
        ({}, {"weights": "float"}, ModelError, "stays in float32"),
        ({"head_dim": 8, "heads": 8}, {}, LayoutError, "64 channels and heads of 8 must be multiples of 16"),
        ({"inner": 24}, {}, LayoutError, "multiple"),
    ],
)
def test_what_has_no_plan_says_why(shape, rule, error, message):
    with pytest.raises(error, match=message):
        DecoderPlan(compressed(random_llama(layers=1, **shape), **rule))
