"""A compressed model at work on the kernels: text, images or documents in, results and the time they took out.

    engine = Engine(compressed, threads=2, check=True)          # check: every output against the bit-true runner
    ids = generate(engine, prompt_ids, tokens=32, context=256)  # greedy
    accuracy = task.metric(task.records(engine))                # or any task of models.evaluate
    engine.report()                                             # seconds an item, share of the layers, differences

An encoder that a plan can be made of runs as a whole, `Engine(compressed, plan=plan)`. Else weight layers run on the
kernels, activations are quantized and every float operator between the layers runs in NumPy.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsefab.kernels_cpu.plan import EncoderPlan
from sparsefab.kernels_cpu.resident import resident_bytes
from sparsefab.kernels_cpu.runner import KernelRunner
from sparsefab.models.compress import CompressedModel
from sparsefab.models.evaluate.runner import BitTrueRunner
from sparsefab.models.execute import execute

__all__ = ["Engine", "Report", "generate"]

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an engine did.

    items : int                  Sequences, images or documents that ran; of a greedy text, its tokens.
    seconds_per_item : float     Median over calls of wall time; compiling is outside.
    layers_share : float         Of the time, in weight layers: kernels and the quantization before them.
    kernels : layer -> kernel    Or 'none: ' and the reason.
    tokens : int                 Kept tokens that an encoder read in all; 0 of other models.
    seconds_per_token : float    Median over calls of an encoder, else 0.
    planned : bool               The model ran as a whole, by a plan.
    parts : part -> share        Of a plan's time; empty else, and where no cycle counter can be read.
    weight_bytes, buffer_bytes   What a plan holds; 0 else.
    resident_bytes : int         Memory of this process after the run, everything in it; 0 where it is not known.
    prompt_tokens, prompt_seconds             Of a decoder's plan: what it read first, and the time that took; 0 else.
    prepare_s : float            First calls, which compile kernels or load them from disk; in no other time.
    bound : float                How far a value may be from the bit-true one, as a share of the range of a token's
                                 logits; 0: the bits.
    other_choices : int          Tokens of a text for which the compared logits have another greatest one.
    compared : int               Output values compared with the bit-true runner's or, of a plan, with those of
                                 `models.evaluate.encoder`; 0 if not asked for.
    differing : int              Of these, the ones that are further off than `bound`.
    """

    items: int
    seconds_per_item: float
    layers_share: float
    kernels: Mapping[str, str]
    compared: int
    differing: int
    tokens: int = 0
    seconds_per_token: float = 0.0
    planned: bool = False
    parts: Mapping[str, float] = field(default_factory=dict)
    weight_bytes: int = 0
    buffer_bytes: int = 0
    resident_bytes: int = 0
    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    prepare_s: float = 0.0
    bound: float = 0.0
    other_choices: int = 0


class Engine:
    """Executes a compressed model on the kernels, timed; an `Execute` for the tasks of `models.evaluate`.

    Parameters
    ----------
    compressed : CompressedModel        Calibrated where activations are static.
    threads : int                       At most `available_threads()`.
    check : bool                        Compute everything bit-true too, untimed, and count differences.
    plan : EncoderPlan | None           Runs the whole model, on its own threads, instead of its layers one by one.

    Raises
    ------
    ModelError                          If a static scale is missing.
    """

    def __init__(
        self,
        compressed: CompressedModel,
        *,
        threads: int = 1,
        check: bool = False,
        plan: EncoderPlan | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._model = compressed.model
        self._clock = clock
        self._plan = plan
        self._runner = None if plan is not None else _Timed(KernelRunner(compressed, threads=threads), clock)
        self._check = check
        self._exact = BitTrueRunner(compressed) if check and plan is None else None
        self._tokens: list[int] = []
        self._last: Mapping[str, NDArray[Any]] = {}
        self._items: list[int] = []
        self._seconds: list[float] = []
        self._layers_s = self._prepare_s = 0.0
        self._compared = self._differing = 0

    def __call__(self, feeds: Mapping[str, NDArray[Any]], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """Run a batch; the first one runs twice, and its first time, with the compiling, does not count."""
        if not self._seconds:
            begin = self._clock()
            self._results(feeds, outputs)
            self._prepare_s = self._clock() - begin
        if self._runner is not None:
            self._runner.seconds = 0.0
        begin = self._clock()
        results = self._results(feeds, outputs)
        self._seconds.append(self._clock() - begin)
        self._layers_s += 0.0 if self._runner is None else self._runner.seconds
        self._items.append(len(next(iter(feeds.values()))))
        self._tokens.append(int(np.count_nonzero(feeds["attention_mask"])) if "attention_mask" in feeds else 0)
        self._last = feeds
        if self._check:
            for name, expected in self._expected(feeds, outputs).items():
                self._compared += expected.size
                self._differing += _differences(results[name], expected)
        return results

    def _results(self, feeds: Mapping[str, NDArray[Any]], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        if self._plan is None:
            return execute(self._model, feeds, self._runner, outputs=outputs)
        return _chosen(self._plan.run(feeds), outputs)

    def _expected(self, feeds: Mapping[str, NDArray[Any]], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        if self._plan is None:
            return execute(self._model, feeds, self._exact, outputs=outputs)
        return _chosen(self._plan.source.run(feeds), outputs)

    def report(self) -> Report:
        """Sum up what ran so far.

        Raises
        ------
        ValueError                      If nothing ran.
        """
        if not self._seconds:
            raise ValueError("nothing ran yet")
        each = [seconds / items for seconds, items in zip(self._seconds, self._items, strict=True)]
        by_token = [seconds / count for seconds, count in zip(self._seconds, self._tokens, strict=True) if count]
        plan, runner = self._plan, self._runner
        try:
            parts = {} if plan is None else plan.profile(self._last)
        except ValueError:  # no counter to be read here
            parts = {}
        return Report(
            items=sum(self._items),
            seconds_per_item=statistics.median(each),
            layers_share=self._layers_s / sum(self._seconds) if plan is None else parts.get("linear", 0.0),
            kernels=dict(runner.inner.kernels) if runner is not None else {} if plan is None else plan.kernels,
            compared=self._compared,
            differing=self._differing,
            tokens=sum(self._tokens),
            seconds_per_token=statistics.median(by_token) if by_token else 0.0,
            planned=plan is not None,
            parts=parts,
            weight_bytes=0 if plan is None else plan.weight_bytes,
            buffer_bytes=0 if plan is None else plan.buffer_bytes,
            resident_bytes=resident_bytes(),
            prepare_s=self._prepare_s,
        )


def _chosen(results: Mapping[str, NDArray[Any]], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Some outputs of a plan, which has the hidden states and the embedding."""
    if missing := sorted(set(outputs) - set(results)):
        raise ValueError(f"a plan computes {', '.join(sorted(results))}, not {missing[0]!r}")
    return {name: results[name] for name in outputs}


class _Timed:
    """A runner that adds up the time it takes."""

    adds_bias = True

    def __init__(self, inner: KernelRunner, clock: Clock) -> None:
        self.inner = inner
        self.seconds = 0.0
        self._clock = clock

    def __call__(self, layer: str, x: NDArray[np.float32], /) -> NDArray[np.float32] | None:
        begin = self._clock()
        y = self.inner(layer, x)
        self.seconds += self._clock() - begin
        return y


def generate(
    engine: Callable[[Mapping[str, NDArray[Any]], tuple[str, ...]], dict[str, NDArray[Any]]],
    prompt: NDArray[np.int64],
    *,
    tokens: int,
    context: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[int]:
    """Continue a prompt greedily, by evaluating the whole window anew for each token: there is no cache of keys.

    Parameters
    ----------
    prompt : int64[n]            At least one token.
    tokens : int                 To add.
    context : int                Tokens of the window at most; earlier ones are forgotten.

    Returns
    -------
    The added token ids.
    """
    if prompt.ndim != 1 or not prompt.size:
        raise ValueError("prompt must hold at least one token")
    if tokens < 1 or context < 1:
        raise ValueError(f"tokens and context must be positive, not {tokens} and {context}")
    ids: Sequence[int] = [int(code) for code in prompt]
    added: list[int] = []
    for _ in range(tokens):
        window = np.array([*ids, *added][-context:], np.int64)
        logits = engine({"input_ids": window[None]}, ("logits",))["logits"]
        added.append(int(logits[0, -1].argmax()))
        if progress is not None:
            progress(len(added), tokens)
    return added


def _differences(results: NDArray[Any], expected: NDArray[Any]) -> int:
    """Count values whose bits differ."""
    if results.dtype != expected.dtype or results.shape != expected.shape:
        return expected.size
    kind = np.dtype(f"u{expected.dtype.itemsize}")
    return int((np.ascontiguousarray(results).view(kind) != np.ascontiguousarray(expected).view(kind)).sum())
