"""A whole BERT-type encoder in one compiled call: the stages of a panel, layer after layer.

    for stage in 0 .. layers:                      all panels finish a stage before the next: attention reads them all
      for panel in P:                              on threads
        stage 0      embed, normalize
        stage l > 0  attend -> product out -> add, normalize -> product up, table -> product down -> add, normalize
        but the last product of queries, keys and values -> arranged[stage % 2]
    average each sequence

Between its products a panel stays in the second-level cache: what a stage keeps of a panel for the next one is only x
and the projections, arranged for attention. The buffers of a task (one thread) are reused from panel to panel.
"""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import functools
from typing import Any

import numpy as np
from numba import get_thread_id, prange

from sparsefab.kernels_cpu.attention import ATTENTION, arrange, attend
from sparsefab.kernels_cpu.embedding import embed, pool
from sparsefab.kernels_cpu.kernel import kernel, piece
from sparsefab.kernels_cpu.normalize import NORM, normalize
from sparsefab.kernels_cpu.ticks import lap, ticks

__all__ = ["BLOCK_RECORD", "PARTS", "encoder"]

# The parts of a call whose time is told apart; attention's come first.
PARTS = ("scores", "softmax", "mix values", "arrange", "linear", "normalize", "embed", "pool")
ARRANGE, LINEAR, NORMALIZE, EMBED, POOL = 3, 4, 5, 6, 7

# Constants of one block of the encoder.
BLOCK_RECORD = np.dtype([("attention", ATTENTION), ("attention_norm", NORM), ("output_norm", NORM)])


@functools.cache
def encoder(
    project: tuple[Any, ...], expand: tuple[Any, ...], multiply: tuple[Any, ...], *, lanes: int, parallel: bool
) -> Any:
    """Return the compiled encoder.

    Parameters
    ----------
    project, expand, multiply    Kernels of `spmm` whose results are s8 codes, codes by a table, and reals; one or two
                                 of each.
    lanes : int                  Tokens of a panel, W.
    parallel : bool              Panels on threads.

    Returns
    -------
    kernel(model, tokens, buffers, embedding, spent), the first three tuples:
        model      words, places, norm NORM[1], blocks BLOCK_RECORD[L], linears LAYER[4 L] (projections, out, up, down
                   of each block), choices uint8[4 L] (which of a product's kernels), scales float32[L, 2, 64] (of the
                   inputs of out and down, the same 64 times), heads
        tokens     ids, positions int32[P, W], starts, lengths int64[sequences], firsts, lasts int64[P] (the sequences
                   of each panel)
        buffers    x float32[P, W / 16, width, 16], arranged int8[2, P, 3 width, W], and for each task projected
                   int8[T, 3 width, W], codes uint8[T, width, W], context likewise, inner int8[T, inner, W] and the same
                   bytes as uint8, sums float32[T, width, W], scratch uint8[T, bytes]
        embedding  float32[sequences, width]
        spent      int64[T, PARTS], takes the ticks of each part, or None
    """
    stage = _stage(_one_of(project), _one_of(expand), _one_of(multiply), lanes)

    if parallel:

        def run(model, tokens, buffers, embedding, spent):
            panels, stages = len(tokens[0]), len(model[3]) + 1
            for number in range(stages):
                for unsigned in prange(panels):
                    panel, task = np.int64(unsigned), np.int64(get_thread_id())
                    stage(model, tokens, buffers, number, panel, task, spent)
            _average(tokens, buffers, embedding, spent)

        return kernel(run, parallel=True)

    def run_serial(model, tokens, buffers, embedding, spent):
        panels, stages = len(tokens[0]), len(model[3]) + 1
        for number in range(stages):
            for panel in range(panels):
                stage(model, tokens, buffers, number, panel, 0, spent)
        _average(tokens, buffers, embedding, spent)

    return kernel(run_serial)


@piece
def _average(tokens, buffers, embedding, all_spent):
    spent, since = None, 0
    if all_spent is not None:
        spent, since = all_spent[0], ticks()
    scratch = buffers[-1][0].ctypes.data
    for sequence in range(len(embedding)):
        pool(buffers[0], tokens[2][sequence], tokens[3][sequence], embedding[sequence], scratch)
    lap(spent, POOL, since)


def _one_of(kernels: tuple[Any, ...]) -> Any:
    """Return product(choice, layers, activations, out, scales, task, groups), for the one panel of each array."""
    first, last = kernels[0], kernels[-1]
    if len(kernels) > 2:
        raise ValueError(f"at most two kernels of a kind, not {len(kernels)}")
    if first is last:

        @piece
        def product(choice, layers, activations, out, scales, task, groups):
            first(layers, activations, out, scales, task, 0, 1, 0, groups)

        return product

    @piece
    def chosen(choice, layers, activations, out, scales, task, groups):
        if choice == 0:
            first(layers, activations, out, scales, task, 0, 1, 0, groups)
        else:
            last(layers, activations, out, scales, task, 0, 1, 0, groups)

    return chosen


def _stage(project: Any, expand: Any, multiply: Any, lanes: int) -> Any:
    @kernel
    def stage(model, tokens, buffers, number, panel, task, all_spent):
        words, places, norm, blocks, linears, choices, scales, heads = model
        ids, positions, starts, lengths, firsts, lasts = tokens
        all_x, arranged, all_projected, all_codes, all_context, all_inner, all_inner_codes, all_sums, all_scratch = (
            buffers
        )
        x, codes, context, sums = all_x[panel], all_codes[task], all_context[task], all_sums[task]
        one, spent, since = task + 1, None, 0
        if all_spent is not None:
            spent, since = all_spent[task], ticks()
        if number == 0:
            embed(ids[panel], positions[panel], words, places, x)
            since = lap(spent, EMBED, since)
            normalize(norm[0], x, None, codes, lanes)
            since = lap(spent, NORMALIZE, since)
        else:
            at = number - 1
            block, linear = blocks[at], 4 * at
            scratch = all_scratch[task].ctypes.data
            attend(block.attention, arranged[at % 2], context, panel, starts, lengths, firsts[panel], lasts[panel],
                   heads, lanes, scratch, spent)  # fmt: skip
            since = 0 if spent is None else ticks()
            groups = len(context) // 4
            multiply(choices[linear + 1], linears[linear + 1 : linear + 2], all_context[task:one], all_sums[task:one],
                     scales[at, 0], task, groups)  # fmt: skip
            since = lap(spent, LINEAR, since)
            normalize(block.attention_norm, x, sums, codes, lanes)
            since = lap(spent, NORMALIZE, since)
            expand(choices[linear + 2], linears[linear + 2 : linear + 3], all_codes[task:one], all_inner[task:one],
                   scales[at, 0], task, all_inner.shape[1] // 4)  # fmt: skip
            since = lap(spent, LINEAR, since)
            multiply(choices[linear + 3], linears[linear + 3 : linear + 4], all_inner_codes[task:one],
                     all_sums[task:one], scales[at, 1], task, groups)  # fmt: skip
            since = lap(spent, LINEAR, since)
            normalize(block.output_norm, x, sums, codes, lanes)
            since = lap(spent, NORMALIZE, since)
        if number < len(blocks):
            linear = 4 * number
            project(choices[linear], linears[linear : linear + 1], all_codes[task:one], all_projected[task:one],
                    scales[0, 0], task, all_projected.shape[1] // 4)  # fmt: skip
            since = lap(spent, LINEAR, since)
            arrange(all_projected[task], arranged[number % 2, panel], lanes)
            lap(spent, ARRANGE, since)

    return stage
