"""Timing of kernels on this machine: what is timed and how often, with a clock of its own."""

import itertools

import pytest

from sparsefab.host import machine_key, time_kernels


def test_kernels_are_timed_on_several_token_counts() -> None:
    ticks = itertools.count()
    samples = time_kernels(0.001, clock=lambda: next(ticks) * 1e-3)  # a millisecond between two looks at the clock
    kernels = {sample.kernel for sample in samples}
    assert kernels == {"dense_int8", "block_4x1", "dequantize_int8"}
    assert all(sample.seconds == pytest.approx(1e-3) for sample in samples)
    for kernel in kernels:
        own = [sample for sample in samples if sample.kernel == kernel]
        assert len({sample.tokens for sample in own}) == len(own) == 5
        assert len({(sample.rows, sample.columns) for sample in own}) == 1
    sparse = next(sample for sample in samples if sample.kernel == "block_4x1")
    assert 0.05 < sparse.density < 0.6


def test_a_budget_is_needed() -> None:
    with pytest.raises(ValueError, match="seconds must be positive"):
        time_kernels(0.0)


def test_the_key_names_the_machine() -> None:
    assert machine_key() == machine_key()
    assert len(machine_key()) == 12
