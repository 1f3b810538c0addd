"""Tokens into panels and out of them: word and position embeddings added up, and the mean of a sequence."""
# mypy: allow-untyped-defs
# Kernels are typed by Numba, at the first call.

import numpy as np

from sparsefab.kernels_cpu.kernel import piece

__all__ = ["embed", "pool"]


@piece
def embed(ids, positions, words, places, x):
    """Write words[id] + places[position] of a panel's tokens; a negative id leaves zeros.

    Parameters
    ----------
    ids, positions : int32[W]
    words : float32[vocabulary, width]
    places : float32[context, width]
    x : float32[width, W]
    """
    for lane in range(len(ids)):
        token = ids[lane]
        if token < 0:
            for channel in range(len(x)):
                x[channel, lane] = 0.0
        else:
            word, place = words[token], places[positions[lane]]
            for channel in range(len(x)):
                x[channel, lane] = word[channel] + place[channel]


@piece
def pool(x, start, length, out):
    """Average the tokens of one sequence, summed in float64 in order.

    Parameters
    ----------
    x : float32[P, width, W]
    start, length : int          First token and tokens; of none, the mean is 0.
    out : float32[width]
    """
    lanes = x.shape[2]
    for channel in range(len(out)):
        total = 0.0
        for token in range(start, start + length):
            total += np.float64(x[token // lanes, channel, token % lanes])
        out[channel] = total / max(length, 1)
