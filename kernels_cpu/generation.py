"""Greedy text from a decoder's plan, timed: the prompt in buckets, then token by token against the cache.

    added, report = continue_text(plan, prompt_ids, tokens=32, compressed=compressed, check=True)

A full cache is forgotten, and the last tokens that a context holds are read anew for each further one, as without it.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sparsefab.kernels_cpu.decoder import BOUND, DecoderPlan
from sparsefab.kernels_cpu.inference import Clock, Report
from sparsefab.kernels_cpu.resident import resident_bytes
from sparsefab.models.compress import CompressedModel
from sparsefab.models.evaluate.runner import BitTrueRunner
from sparsefab.models.execute import execute

__all__ = ["continue_text"]


def continue_text(
    plan: DecoderPlan,
    prompt: NDArray[np.int64],
    *,
    tokens: int,
    compressed: CompressedModel,
    check: bool = False,
    progress: Callable[[int, int], None] | None = None,
    clock: Clock = time.perf_counter,
) -> tuple[list[int], Report]:
    """Continue a prompt greedily.

    Parameters
    ----------
    prompt : int64[n]            At least one token.
    tokens : int                 To add.
    compressed : CompressedModel What the plan was made of.
    check : bool                 Evaluate the whole window bit-true for each token too, untimed, and compare its logits.

    Returns
    -------
    The added token ids, and what it took; the plan has forgotten what it read before.
    """
    if prompt.ndim != 1 or not prompt.size:
        raise ValueError("prompt must hold at least one token")
    if tokens < 1:
        raise ValueError(f"tokens must be positive, not {tokens}")
    ids = [int(code) for code in prompt]
    exact = BitTrueRunner(compressed) if check else None
    window = np.array(ids[-plan.context :])
    begin = clock()
    _compile(plan, window)
    prepare_s = clock() - begin
    begin = clock()
    logits = plan.feed(window)
    prompt_seconds = clock() - begin
    seconds: list[float] = []
    compared = differing = other = 0
    for done in range(tokens):
        if exact is not None:
            feeds = {"input_ids": np.array([ids[-plan.context :]])}
            expected = execute(compressed.model, feeds, exact, outputs=("logits",))["logits"][0, -1]
            off = np.abs(logits - expected) > BOUND * (expected.max() - expected.min())
            compared, differing = compared + off.size, differing + int(off.sum())
            other += int(logits.argmax() != expected.argmax())
        ids.append(int(logits.argmax()))
        if progress is not None:
            progress(done + 1, tokens)
        if done + 1 < tokens:
            begin = clock()
            if plan.position < plan.context:
                logits = plan.feed(np.array(ids[-1:]))
            else:
                plan.forget()
                logits = plan.feed(np.array(ids[-plan.context :]))
            seconds.append(clock() - begin)
    return ids[len(prompt) :], Report(
        items=tokens,
        seconds_per_item=statistics.median(seconds) if seconds else prompt_seconds,
        layers_share=0.0,
        kernels=plan.kernels,
        compared=compared,
        differing=differing,
        planned=True,
        weight_bytes=plan.weight_bytes,
        buffer_bytes=plan.buffer_bytes,
        resident_bytes=resident_bytes(),
        prompt_tokens=len(window),
        prompt_seconds=prompt_seconds,
        prepare_s=prepare_s,
        bound=BOUND,
        other_choices=other,
    )


def _compile(plan: DecoderPlan, window: NDArray[np.int64]) -> None:
    """Read what is timed later once, so that compiling is outside."""
    plan.forget()
    plan.feed(window[: plan.context - 1])
    plan.feed(window[:1])
    plan.forget()
