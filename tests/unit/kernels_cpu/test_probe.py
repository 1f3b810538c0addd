"""The measured limits: present where the instructions are, of a sane size, and never a test of speed."""

import dataclasses
import json

import pytest

from sparsefab.kernels_cpu.features import Level, runs
from sparsefab.kernels_cpu.probe import measure, usable_threads


def test_peaks_are_measured():
    peaks = measure(seconds=0.05, threads=1, memory_bytes=1 << 20)
    assert peaks.threads == 1
    assert 0.2e9 < peaks.clock_hz < 10e9
    assert peaks.read_bytes_per_s > 1e8
    assert peaks.l1_bytes_per_s > 1e9
    if runs(Level.AVX512_AMX):
        assert peaks.tile_macs_per_s > 2 * peaks.dot_macs_per_s  # eight times, of a core that nobody else uses
    if runs(Level.AVX512_VNNI):
        assert peaks.level == ("avx512-amx" if runs(Level.AVX512_AMX) else "avx512-vnni")
        assert 30 < peaks.dot_macs_per_cycle < 300  # one or two zmm a cycle, with room for a clock that moves
    assert json.loads(json.dumps(dataclasses.asdict(peaks)))["processor"]


@pytest.mark.parametrize(
    ("arguments", "message"), [({"seconds": 0}, "seconds"), ({"threads": 0}, "threads"), ({"memory_bytes": 1}, "1 MiB")]
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        measure(**arguments)


def test_threads_are_what_this_process_may_use():
    assert usable_threads() >= 1
