"""Which form of a matrix is chosen, by its pattern and by its bytes."""

from dataclasses import replace

import numpy as np
import pytest

from sparsefab.cost_models.cpu import route
from sparsefab.errors import LayoutError
from sparsefab.formats import NM, Block, QuantTensor, get_format, pack
from sparsefab.formats.layout import GroupRows, Lanes16
from sparsefab.kernels_cpu.gemv import GroupWeights, LaneWeights
from sparsefab.kernels_cpu.layer_weights import block_weights, takes_vector, vector_product
from tests.unit.kernels_cpu.test_gemv import tensor_of
from tests.unit.kernels_cpu.test_gemv_groups import sparse_tensor


def nm_tensor(n, m):
    tensor = tensor_of("int8", 16, 64, 64)
    mask = np.tile(np.arange(m) < n, (16, 64 // m))
    return replace(tensor, pattern=NM(n, m), mask=mask)


@pytest.mark.parametrize(
    ("tensor", "name"),
    [
        (nm_tensor(2, 4), "N:M, 32 of 64"),
        (nm_tensor(1, 8), "N:M, 8 of 64"),
        (nm_tensor(12, 16), "aligned 4x4 blocks"),  # 56 bytes for 64 would not make up for expanding them
        (tensor_of("int8", 16, 64, 64), "aligned 4x4 blocks"),
        (tensor_of("int8", 16, 64, 64, density=0.02), "4x1 blocks"),
    ],
)
def test_one_scale_a_row_runs_in_blocks_or_as_n_of_m(tensor: QuantTensor, name: str) -> None:
    assert block_weights(tensor).name == name


@pytest.mark.parametrize(
    ("tensor", "name"),
    [
        (sparse_tensor("int4", 16, 16), "4-bit sparse groups of 16"),
        (sparse_tensor("int8", 16, 16, width=32), "8-bit sparse groups of 32"),
        (
            sparse_tensor("int4", 32, 16, width=32, density=0.99),
            "4-bit groups",
        ),  # an index a group costs more than it saves
        (sparse_tensor("uint8", 16, 16), "8-bit groups"),  # less zero points its codes take 9 bits
        (tensor_of("int3", 16, 64, 32), "3-bit groups"),
        (replace(sparse_tensor("int4", 16, 16), pattern=Block(1, 8)), "4-bit groups"),
    ],
)
def test_group_scales_run_by_fewer_bytes(tensor: QuantTensor, name: str) -> None:
    product = vector_product(tensor)
    weights = product.weights
    assert product.name == f"{name}, {product.level.value}"
    if isinstance(weights, GroupWeights):
        dense = LaneWeights.from_packed(pack(tensor, Lanes16.of(tensor.spec)))
        assert weights.nbytes < dense.nbytes


@pytest.mark.parametrize(
    "tensor",
    [
        nm_tensor(2, 4),
        nm_tensor(4, 16),
        sparse_tensor("int4", 32, 32),
        sparse_tensor("uint4", 32, 32, density=0.3),
        sparse_tensor("int8", 32, 8, width=64),
    ],
    ids=lambda tensor: tensor.spec.name,
)
def test_estimates_count_the_bytes_that_kernels_read(tensor: QuantTensor) -> None:
    """The cost model's rule is this one's twin: the same bytes, beside 4 of scale a row and of offset."""
    weights = vector_product(tensor) if takes_vector(tensor) else block_weights(tensor)
    found = route(tensor.spec, "int8", *tensor.shape)
    assert found.weight_bytes - 4 * len(tensor.codes) == pytest.approx(weights.nbytes, abs=4 * len(tensor.codes) + 1)
    assert found.work == (1.0 if tensor.group_multipliers is None else tensor.spec.density)


@pytest.mark.parametrize(
    ("tensor", "name"),
    [
        (sparse_tensor("int4", 16, 16), "4-bit sparse groups of 16 and outliers"),
        (tensor_of("uint3", 16, 64, 32), "3-bit groups and outliers"),
        (tensor_of("int8", 16, 64, 64), "8-bit groups and outliers"),  # no block kernel adds them
    ],
)
def test_outliers_run_beside_the_rest(tensor: QuantTensor, name: str) -> None:
    random = np.random.default_rng(4)
    outliers = np.where(random.random(tensor.shape) < 0.02, random.integers(-16384, 16384, tensor.shape), 0)
    whole = replace(tensor, outliers=outliers.astype(np.int16))
    product = vector_product(whole)
    assert product.name == f"{name}, {product.level.value}"
    assert product.nbytes == vector_product(tensor).nbytes + 4 * np.count_nonzero(outliers) + 4 * 17
    codes = random.integers(-127, 128, (3, tensor.shape[1])).astype(np.int8)
    expected = (codes.astype(np.int64) @ whole.integers().T).astype(np.float32) * whole.accumulator_scale
    np.testing.assert_array_equal(product.run(codes), expected)


def test_what_no_kernel_holds_is_refused() -> None:
    with pytest.raises(LayoutError, match="not group multipliers"):
        block_weights(tensor_of("int4", 16, 64, 32))
    with pytest.raises(LayoutError, match="up to 8 bits"):
        vector_product(replace(tensor_of("int4", 16, 64, 32), format=get_format("int9")))
    assert GroupRows(4).holds(sparse_tensor("int4", 4, 4).spec)
    assert not GroupRows(4).holds(sparse_tensor("int8", 4, 4).spec)
