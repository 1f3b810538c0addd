"""What all tests of kernels share."""

import pytest

from sparsefab.kernels_cpu import spmm


@pytest.fixture(autouse=True)
def tiles_for_small_matrices(monkeypatch, request):
    """Let the AMX level multiply on tiles whatever the size: the small matrices of tests are faster without."""
    if "real_choice" not in request.keywords:
        monkeypatch.setattr(spmm, "tiles_are_faster", lambda *_, **__: True)
