"""`sparsefab run`: the text, the metric, and the word about each layer are those of the bit-true evaluation."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from sparsefab.cli.main import main
from sparsefab.kernels_cpu.decoder import BOUND, DecoderPlan
from sparsefab.kernels_cpu.inference import Engine, generate
from sparsefab.kernels_cpu.runner import KernelRunner
from sparsefab.models.compress import compress, find_recipe
from sparsefab.models.evaluate import Slice
from sparsefab.models.evaluate.runner import BitTrueRunner
from sparsefab.models.execute import execute
from sparsefab.models.source import resolve
from sparsefab.models.tokenize import load_tokenizer
from sparsefab.session import Session

TOKENS = 4


def ran(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict:
    assert main(["run", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("recipe", ["w8", "w4g32"])
def test_greedy_text_is_that_of_the_bit_true_model(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = ran(capsys, "char-llama", "--on", "cpu", "--recipe", recipe, "--prompt", "The king ", "--tokens",
                str(TOKENS), "--check")  # fmt: skip
    source = resolve("char-llama", Path("unused"))
    compressed = compress(source.load(), find_recipe(recipe))
    tokenizer, exact = load_tokenizer(source.file), BitTrueRunner(compressed)
    ids = tokenizer.encode("The king ").tolist()
    for _ in range(TOKENS):
        ids.append(int(execute(compressed.model, {"input_ids": np.array([ids])}, exact)["logits"][0, -1].argmax()))
    assert found["text"] == tokenizer.decode(ids[-TOKENS:])
    assert (found["unit"], found["items"], found["differing"]) == ("token", TOKENS, 0)
    assert found["compared"] == TOKENS * 84  # the logits that each token was chosen by
    assert (found["planned"], found["prompt_tokens"], found["bound"]) == (True, len("The king "), BOUND)
    assert found["other_choices"] == 0
    if importlib.util.find_spec("onnxruntime") is None:
        assert found["onnxruntime"] is None
        assert "not installed" in found["why_no_onnxruntime"]
    else:
        assert found["onnxruntime"]["holds"]
        assert found["onnxruntime"]["compared"] == (TOKENS + 1) * 84
    assert min(found["items_per_s"], found["prompt_tokens_per_s"], found["resident_bytes"], found["prepare_s"]) > 0
    assert set(found["kernels"]) == set(compressed.model.weights)


def test_a_classifier_has_the_evaluation_s_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    found = ran(capsys, "fashion-resnet8", "--samples", "120", "--check")
    judged = Session().evaluate("fashion-resnet8", "w8", Slice(samples=120), check_tokens=0)
    assert found["value"] == judged.evaluation.compressed.value
    assert (found["unit"], found["items"], found["compared"]) == ("image", 120, 120 * 10)
    assert found["agrees"] is True


def test_layers_without_a_kernel_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    found = ran(capsys, "char-llama", "--recipe", "e4m3", "--tokens", "1", "--prompt", "A")
    kernels = found["kernels"]
    assert "blocks" in kernels.pop("lm_head")  # recipes keep the head in int8
    assert {kernel.partition(": ")[0] for kernel in kernels.values()} == {"none"}
    assert all("e4m3" in kernel for kernel in kernels.values())
    assert found["agrees"] is None
    found = ran(capsys, "char-llama", "--recipe", "float", "--tokens", "1", "--prompt", "A")
    assert set(found["kernels"].values()) == {"none: the recipe leaves it in float32"}


def test_one_different_bit_is_a_negative_result(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = KernelRunner.__call__

    def wrong(self: KernelRunner, layer: str, x: np.ndarray, /) -> np.ndarray | None:
        y = true(self, layer, x)
        if layer == "lm_head" and y is not None:
            y = y.copy()
            y[-1, 3] = np.nextafter(y[-1, 3], np.float32(np.inf))
        return y

    monkeypatch.setattr(KernelRunner, "__call__", wrong)
    found = ran(capsys, "char-llama", "--recipe", "e4m3", "--tokens", "2", "--prompt", "A", "--check", code=1)
    assert (found["differing"], found["planned"], found["bound"]) == (2, False, 0)
    assert found["agrees"] is False


def test_logits_of_a_plan_beyond_its_bound_are_a_negative_result(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = DecoderPlan.feed

    def wrong(self: DecoderPlan, ids: np.ndarray) -> np.ndarray:
        logits = true(self, ids)
        logits[3] -= 1.5 * BOUND * (logits.max() - logits.min())
        return logits

    monkeypatch.setattr(DecoderPlan, "feed", wrong)
    found = ran(capsys, "char-llama", "--tokens", "2", "--prompt", "A", "--check", code=1)
    assert (found["differing"], found["compared"], found["agrees"]) == (2, 2 * 84, False)


def test_the_screen_of_a_plan_has_text_speed_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "char-llama", "--tokens", "2", "--prompt", "A"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("A|")
    for word in ("tokens/s", "1 tokens of prompt at", "a cache of keys and values", "B resident"):
        assert word in text


def test_the_screen_has_text_speed_and_what_stays_in_numpy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "char-llama", "--recipe", "e4m3", "--tokens", "2", "--prompt", "A"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("A|")
    assert "tokens/s" in text
    assert "NumPy" in text
    assert "no cache" in text


def test_a_window_forgets_what_is_older_than_the_context() -> None:
    seen = []

    def engine(feeds, outputs):
        seen.append(feeds["input_ids"][0].tolist())
        return {"logits": np.eye(9, dtype=np.float32)[None, feeds["input_ids"][0] + 1]}

    assert generate(engine, np.array([0, 1, 2]), tokens=3, context=4) == [3, 4, 5]
    assert seen == [[0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4]]
    for prompt, tokens in ((np.array([], np.int64), 1), (np.array([1]), 0)):
        with pytest.raises(ValueError, match="must"):
            generate(engine, prompt, tokens=tokens, context=4)


def test_wrong_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "char-llama", "--prompt", "", "--tokens", "1"]) == 2
    assert "at least one token" in capsys.readouterr().err
    assert main(["run", "char-llama", "--prompt", "\N{SNOWMAN}"]) == 2
    assert "no character" in capsys.readouterr().err
    compressed = compress(resolve("char-llama", Path("unused")).load(), find_recipe("w8"))
    with pytest.raises(ValueError, match="nothing ran"):
        Engine(compressed).report()
