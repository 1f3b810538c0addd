"""Kernel == packed tensor == the one requantization, for every format that the CPU layout accepts."""

import numpy as np
import pytest

from sparsefab.formats import (
    NM,
    Block,
    Dense,
    QuantTensor,
    Unstructured,
    Vnni4x1,
    Vnni4x4,
    VnniNM,
    get_format,
    pack,
    unpack,
)
from sparsefab.formats.requantize import Requantizer, requantize
from sparsefab.kernels_cpu.features import Level, runs
from sparsefab.kernels_cpu.panels import interleaved, panels_of, rows_of
from sparsefab.kernels_cpu.spmm import BlockWeights, Codes, MaskedWeights, Product, Reals, Sums

FORMATS = ["int8", "int6", "int5", "int4", "int3", "int2", "uint4", "uint7", "e2m1", "e2m3", "e1m4"]
ROWS, COLUMNS, TOKENS = 20, 52, 67


def tensor_of(name, pattern, seed):
    """Random codes, zero points where the format is unsigned, and the pattern's mask."""
    random = np.random.default_rng(seed)
    fmt = get_format(name)
    codes = random.choice(np.unique(fmt.from_pattern(np.arange(1 << fmt.bits))), (ROWS, COLUMNS)).astype(np.int16)
    mask = None
    if isinstance(pattern, Block):
        kept = random.random((ROWS // pattern.rows, COLUMNS // pattern.columns)) < 0.3
        mask = np.kron(kept, np.ones((pattern.rows, pattern.columns), np.bool_))
    elif isinstance(pattern, NM):
        order = random.random((ROWS, COLUMNS // pattern.m, pattern.m)).argsort(axis=2)
        mask = (order < pattern.n).reshape(ROWS, COLUMNS)
    elif isinstance(pattern, Unstructured):
        mask = random.random((ROWS, COLUMNS)) < 0.3
    zero_points = random.integers(0, 1 << fmt.bits, (ROWS, 1)).astype(np.int16) if name.startswith("uint") else None
    return QuantTensor(
        codes=codes,
        format=fmt,
        row_scales=(random.random(ROWS, np.float32) + np.float32(0.1)),
        group_size=COLUMNS,
        zero_points=zero_points,
        pattern=pattern,
        mask=mask,
    )


@pytest.mark.parametrize("level", [level for level in Level if runs(level)])
@pytest.mark.parametrize(
    ("layout", "pattern"),
    [(Vnni4x1(), Block(4, 1)), (Vnni4x1(), Unstructured()), (Vnni4x1(), Dense()),
     (Vnni4x4(), Block(4, 4)), (Vnni4x4(), NM(2, 4)), (Vnni4x4(), Dense()),
     (VnniNM(), NM(2, 4))],
    ids=lambda value: value.name,
)  # fmt: skip
@pytest.mark.parametrize("name", FORMATS)
def test_the_kernel_computes_what_the_packed_bytes_mean(name, pattern, layout, level):
    tensor = tensor_of(name, pattern, seed=len(name))
    packed = pack(tensor, layout)
    weights = (MaskedWeights if isinstance(layout, VnniNM) else BlockWeights).from_packed(packed)
    integers = unpack(packed).integers()
    np.testing.assert_array_equal(integers, tensor.integers())
    random = np.random.default_rng(1)
    codes = random.integers(-128, 128, (TOKENS, COLUMNS)).astype(np.int8)
    bias = random.integers(-(1 << 20), 1 << 20, ROWS)
    acc = bias + (codes.astype(np.int64) + 5) @ integers.T
    common = {"bias": bias, "zero_point": 128 - 5, "level": level}
    panels = interleaved(panels_of(codes)) if weights.aligned else panels_of(codes)

    sums = Product(weights, Sums(), **common).run(panels)
    np.testing.assert_array_equal(rows_of(sums, tokens=TOKENS, outputs=ROWS), acc)

    scales, tokens = tensor.accumulator_scale, random.random(TOKENS, np.float32)
    reals = Product(weights, Reals(row_scales=scales), **common).run(panels, token_scales=tokens)
    expected = acc.astype(np.float32) * scales * tokens[:, None]
    np.testing.assert_array_equal(rows_of(reals, tokens=TOKENS, outputs=ROWS), expected)

    constants = Requantizer.of(np.exp(random.normal(-12, 3, ROWS)), 119, 0, 255)
    coded = Product(weights, Codes(requantizer=constants), **common).run(panels)
    np.testing.assert_array_equal(rows_of(coded, tokens=TOKENS, outputs=ROWS), requantize(acc, constants))
