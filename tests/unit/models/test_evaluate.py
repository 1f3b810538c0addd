"""Tasks, records and intervals: the machinery between an executor and a figure."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sparsefab.errors import ModelError
from sparsefab.models.evaluate import (
    EvaluationProtocol,
    ImageTask,
    RecordCache,
    SimilarityTask,
    Slice,
    TextTask,
    judge,
    task_for,
)
from sparsefab.models.evaluate.bootstrap import bootstrap, paired_bootstrap
from sparsefab.models.evaluate.tasks import Feeds
from sparsefab.models.source import resolve


def protocol(metric: str = "m", task: str = "language modelling") -> EvaluationProtocol:
    return EvaluationProtocol(task=task, metric=metric, data="d", data_sha256="0" * 64, samples=4, context=8)


def mean(records: np.ndarray) -> float:
    return float(records.mean())


# intervals


def test_paired_interval_is_that_of_the_differences() -> None:
    """Samples vary a hundred times more than the difference does: only pairing sees it."""
    rng = np.random.default_rng(0)
    baseline = rng.normal(5, 1, (400, 1))
    records = baseline + rng.normal(0.02, 0.01, (400, 1))
    low, high = paired_bootstrap(mean, baseline, records, seed=1)
    error = 0.01 / np.sqrt(400)
    assert low == pytest.approx(0.02 - 1.96 * error, abs=0.6 * error)
    assert high == pytest.approx(0.02 + 1.96 * error, abs=0.6 * error)
    own_low, own_high = bootstrap(mean, records, seed=1)
    assert own_high - own_low > 50 * (high - low)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        baseline = rng.normal(0, 1, (60, 1))
        low, high = paired_bootstrap(mean, baseline, baseline + rng.normal(0.3, 0.2, (60, 1)), seed, resamples=200)
        hits += low <= 0.3 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_same_seed_same_interval_and_unequal_samples_are_refused() -> None:
    records = np.random.default_rng(3).normal(size=(50, 1))
    assert bootstrap(mean, records, 7) == bootstrap(mean, records, 7)
    with pytest.raises(ValueError, match="paired"):
        paired_bootstrap(mean, records, records[1:], 0)


def test_too_few_samples_have_no_interval_and_no_change_has_a_wide_one() -> None:
    task = ImageTask(images=np.zeros((20, 1), np.float32), labels=np.zeros(20, np.int64),
                     calibration=np.zeros((1, 1), np.float32), input_name="x", output_name="y",
                     protocol=protocol("top-1", "image classification"))  # fmt: skip
    right = np.ones((20, 1))
    few = judge(task, right[:4], right[:4].copy())
    assert few.delta.low is None
    same = judge(task, right, right.copy())
    assert (same.delta.low, same.delta.high) == pytest.approx((-0.15, 0.15))  # the rule of three
    worse = judge(task, right, np.array([[0.0]] * 5 + [[1.0]] * 15))
    assert worse.delta.value == -0.25
    assert worse.loss.value == 0.25
    assert worse.loss.low is not None
    assert worse.loss.high is not None
    assert worse.loss.low < 0.25 < worse.loss.high
    with pytest.raises(ValueError, match="not a number"):
        judge(task, right, np.full((20, 1), np.nan))


# tasks


def fixed_logits(tokens: np.ndarray, vocabulary: int) -> Callable[[Feeds, tuple[str, ...]], dict[str, np.ndarray]]:
    """A 'model' whose logits depend on the token alone."""
    table = np.random.default_rng(4).normal(size=(vocabulary, vocabulary)).astype(np.float32)
    return lambda feeds, outputs: {"logits": table[feeds["input_ids"]]}


def test_text_loss_is_the_cross_entropy() -> None:
    tokens = np.random.default_rng(5).integers(0, 11, (4, 150))
    task = TextTask(tokens=tokens, calibration=tokens[:1], protocol=protocol("perplexity"), batch=3)
    execute = fixed_logits(tokens, 11)
    records = task.records(execute)
    logits = execute({"input_ids": tokens}, ("logits",))["logits"].astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    expected = [-np.mean([np.log(p[w, t, tokens[w, t + 1]]) for t in range(149)]) for w in range(4)]
    np.testing.assert_allclose(records[:, 0], expected, rtol=1e-6)
    assert task.metric(records) == pytest.approx(np.exp(np.mean(expected)))
    np.testing.assert_array_equal(np.concatenate([task.part(0, 1).records(execute), task.part(1, 4).records(execute)]),
                                  records)  # fmt: skip


def test_similarity_is_a_pearson_correlation_over_pairs() -> None:
    rng = np.random.default_rng(6)
    embeddings = rng.normal(size=(9, 5))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    human = rng.uniform(size=(9, 9))
    human = (human + human.T) / 2
    feeds = tuple({"input_ids": np.array([[i]])} for i in range(9))
    task = SimilarityTask(feeds=feeds, calibration=(), human=human, protocol=protocol("r", "sentence similarity"))

    def execute(feed: Feeds, outputs: tuple[str, ...]) -> dict[str, np.ndarray]:
        return {"embedding": embeddings[feed["input_ids"][0]]}

    records = task.records(execute)
    i, j = np.triu_indices(9, 1)
    expected = np.corrcoef((unit[i] * unit[j]).sum(axis=1), human[i, j])[0, 1]
    assert task.metric(records) == pytest.approx(expected)
    joined = np.concatenate([task.part(0, 4).records(execute), task.part(4, 9).records(execute)])
    assert task.metric(joined) == pytest.approx(expected)


# records


def test_records_go_on_where_they_ended(tmp_path: Path) -> None:
    tokens = np.random.default_rng(7).integers(0, 11, (40, 16))
    task = TextTask(tokens=tokens, calibration=tokens[:1], protocol=protocol(), batch=1)
    calls = 0
    plain = fixed_logits(tokens, 11)

    def counting(feeds: Feeds, outputs: tuple[str, ...]) -> dict[str, np.ndarray]:
        nonlocal calls
        calls += len(feeds["input_ids"])
        if calls == 22:
            raise KeyboardInterrupt
        return plain(feeds, outputs)

    cache = RecordCache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cache.records("k", task, counting)
    records = cache.records("k", task, counting)
    assert 40 <= calls <= 40 + 4 + 1  # at most one step twice
    np.testing.assert_array_equal(records, task.records(plain))
    before = calls
    np.testing.assert_array_equal(cache.records("k", task.part(0, 10), counting), records[:10])
    assert calls == before
    next(tmp_path.glob("*.npy")).write_bytes(b"damaged")
    np.testing.assert_array_equal(cache.records("k", task, counting), records)


# data


def test_options_of_another_task_are_refused(tmp_path: Path) -> None:
    for name, wrong in (("char-llama", Slice(samples=3)), ("fashion-resnet8", Slice(windows=3))):
        source = resolve(name, tmp_path)
        with pytest.raises(ValueError, match="no meaning"):
            task_for(source, source.load(), tmp_path, wrong)


def test_own_text_needs_enough_and_keeps_to_the_models_context(tmp_path: Path) -> None:
    source = resolve("char-llama", tmp_path)
    model = source.load()
    text = tmp_path / "t.txt"
    text.write_text("To be, or not to be, that is the question.\n" * 100)
    task = task_for(source, model, tmp_path, Slice(), text)
    assert task.protocol.context <= 256
    with pytest.raises(ModelError, match="at most 256"):
        task_for(source, model, tmp_path, Slice(context=300), text)
    text.write_text("Too short.\n")
    with pytest.raises(ModelError, match="calibrate"):
        task_for(source, model, tmp_path, Slice(context=64), text)


def test_a_models_hash_covers_what_the_importer_reads(tmp_path: Path) -> None:
    source = resolve("char-llama", tmp_path)
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in source.path.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    copy = resolve(str(folder), tmp_path)
    before = copy.sha256
    config = folder / "config.json"
    config.write_text(config.read_text().replace("1e-05", "1e-06").replace("1e-5", "1e-6") + " ")
    assert copy.sha256 != before
