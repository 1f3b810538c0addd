"""A compressed model at work on the kernels: text, images or documents in, results and the time they took out.

    engine = Engine(compressed, threads=2, check=True)          # check: every output against the bit-true runner
    ids = generate(engine, prompt_ids, tokens=32, context=256)  # greedy
    accuracy = task.metric(task.records(engine))                # or any task of models.evaluate
    engine.report()                                             # seconds an item, share of the layers, differences

Weight layers run on the kernels, activations are quantized and every float operator between the layers runs in NumPy.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    compared : int               Output values compared with the bit-true runner's; 0 if not asked for.
    differing : int              Of these, the ones whose bits differ.
    """

    items: int
    seconds_per_item: float
    layers_share: float
    kernels: Mapping[str, str]
    compared: int
    differing: int


class Engine:
    """Executes a compressed model on the kernels, timed; an `Execute` for the tasks of `models.evaluate`.

    Parameters
    ----------
    compressed : CompressedModel        Calibrated where activations are static.
    threads : int                       At most `available_threads()`.
    check : bool                        Compute everything by the bit-true runner too, untimed, and count differences.

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
        clock: Clock = time.perf_counter,
    ) -> None:
        self._model = compressed.model
        self._clock = clock
        self._runner = _Timed(KernelRunner(compressed, threads=threads), clock)
        self._exact = BitTrueRunner(compressed) if check else None
        self._items: list[int] = []
        self._seconds: list[float] = []
        self._layers_s = 0.0
        self._compared = self._differing = 0

    def __call__(self, feeds: Mapping[str, NDArray[Any]], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """Run a batch; the first one runs twice, and its first time, with the compiling, does not count."""
        if not self._seconds:
            execute(self._model, feeds, self._runner, outputs=outputs)
        self._runner.seconds = 0.0
        begin = self._clock()
        results = execute(self._model, feeds, self._runner, outputs=outputs)
        self._seconds.append(self._clock() - begin)
        self._layers_s += self._runner.seconds
        self._items.append(len(next(iter(feeds.values()))))
        if self._exact is not None:
            for name, expected in execute(self._model, feeds, self._exact, outputs=outputs).items():
                self._compared += expected.size
                self._differing += _differences(results[name], expected)
        return results

    def report(self) -> Report:
        """Sum up what ran so far.

        Raises
        ------
        ValueError                      If nothing ran.
        """
        if not self._seconds:
            raise ValueError("nothing ran yet")
        each = [seconds / items for seconds, items in zip(self._seconds, self._items, strict=True)]
        return Report(
            items=sum(self._items),
            seconds_per_item=statistics.median(each),
            layers_share=self._layers_s / sum(self._seconds),
            kernels=dict(self._runner.inner.kernels),
            compared=self._compared,
            differing=self._differing,
        )


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
