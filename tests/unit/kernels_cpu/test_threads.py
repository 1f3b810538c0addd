"""Work shared among threads: every task is done once, whoever claims it, and the team is as large as before."""

import numba
import numpy as np
import pytest

from sparsefab.kernels_cpu.kernel import kernel
from sparsefab.kernels_cpu.threads import available_threads, run_blocks, run_threaded

pytestmark = pytest.mark.skipif(available_threads() < 2, reason="needs two threads")


@kernel
def count_blocks(counts, first, last):
    for block in range(first, last):
        counts[block] += 1


@kernel
def count_groups(layers, activations, out, token_scales, task, first_panel, last_panel, first, last):
    token_scales[task] += 1
    layers[task] |= first
    for panel in range(first_panel, last_panel):
        for group in range(first, last):
            out[panel, group] += 1


@pytest.mark.parametrize("blocks", [1, 2, 15, 16, 17, 200])
def test_every_block_is_done_once(blocks):
    counts, before = np.zeros(blocks, np.int64), numba.get_num_threads()
    for turn in range(20):
        run_blocks(count_blocks, 2, blocks, (counts,))
        assert counts.tolist() == [turn + 1] * blocks
    assert numba.get_num_threads() == before


@pytest.mark.parametrize("by_panel", [False, True])
@pytest.mark.parametrize("unit", [1, 8])
@pytest.mark.parametrize(("panels", "groups"), [(1, 1), (1, 30), (2, 5), (3, 8), (16, 3), (40, 2), (2, 100)])
def test_every_group_of_every_panel_is_done_once(panels, groups, unit, by_panel):
    out, before = np.zeros((panels, groups), np.int64), numba.get_num_threads()
    units = -(-groups // unit)
    runs = 1 if by_panel or panels >= 16 else min(units, 2 if unit > 1 else 8)
    for turn in range(20):
        firsts, done = np.zeros(2, np.int64), np.zeros(2, np.int64)  # by thread: nobody else writes to its room
        run_threaded(count_groups, 2, firsts, np.zeros(panels), out, done, groups, by_panel=by_panel, unit=unit)
        assert (out == turn + 1).all()
        assert done.sum() == panels * runs
        assert (firsts % unit == 0).all()
    assert numba.get_num_threads() == before
