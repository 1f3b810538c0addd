"""Work shared among threads: every task is done once, whoever claims it, and the team is as large as before."""

import numba
import numpy as np
import pytest

from sparsefab.kernels_cpu.kernel import kernel
from sparsefab.kernels_cpu.threads import available_threads, run_blocks, run_threaded, tasks

pytestmark = pytest.mark.skipif(available_threads() < 2, reason="needs two threads")


@kernel
def count_blocks(counts, first, last):
    for block in range(first, last):
        counts[block] += 1


@kernel
def count_groups(layers, activations, out, token_scales, task, first_panel, last_panel, first, last):
    token_scales[task] += 1
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
@pytest.mark.parametrize(("panels", "groups"), [(1, 1), (1, 30), (2, 5), (3, 8), (16, 3), (40, 2)])
def test_every_group_of_every_panel_is_done_once(panels, groups, by_panel):
    out, before = np.zeros((panels, groups), np.int64), numba.get_num_threads()
    count = tasks(2, panels, 1 if by_panel else groups)
    done = np.zeros(count, np.int64)
    for turn in range(20):
        run_threaded(count_groups, 2, done, np.zeros(panels), out, done, groups, by_panel=by_panel)
        assert (out == turn + 1).all()
        assert (done == turn + 1).all()  # each task has a number of its own, for its scratch
    assert numba.get_num_threads() == before
