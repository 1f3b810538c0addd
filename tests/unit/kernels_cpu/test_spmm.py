"""The block-sparse product, at every level that runs here, against NumPy's int64."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.formats import Block, IntFormat, QuantTensor, Vnni4x1, pack
from sparsefab.formats.requantize import Requantizer, requantize_scalar
from sparsefab.kernels_cpu.features import Level, best_level, runs
from sparsefab.kernels_cpu.panels import aligned_empty, interleaved, panels_of, rows_of
from sparsefab.kernels_cpu.spmm import BlockWeights, Codes, Product, Reals, Sums
from sparsefab.kernels_cpu.threads import available_threads

INT8 = IntFormat(bits=8, signed=True, symmetric=False)
# Levels that this machine lacks run emulated, in the slow suite.
LEVELS = [pytest.param(level, marks=[] if runs(level) else [pytest.mark.slow]) for level in Level]
# The same kernels around another dot product: all their outputs are the business of the slow suite.
TWINS = (Level.AVX512, Level.AVX2)
OUTPUTS = [
    pytest.param(
        level,
        output,
        marks=[pytest.mark.slow] if not runs(level) or (level in TWINS and output != "s32") else [],
    )
    for level in Level
    for output in ("s32", "f32", "u8", "s8")
]
PATTERNS = ["random", "empty", "full", "one block", "ragged", "one full group"]
TOKENS = 70  # two panels, the second one ragged


def block_tensor(values: NDArray[np.int8], blocks: NDArray[np.bool_]) -> QuantTensor:
    """Return a 4x1 block-sparse tensor; blocks bool[rows / 4, columns] says which blocks are stored."""
    mask = np.repeat(blocks, 4, axis=0)
    return QuantTensor(
        codes=np.where(mask, values, 0).astype(np.int16),
        format=INT8,
        group_size=values.shape[1],
        row_scales=np.ones(len(values), np.float32),
        pattern=Block(4, 1),
        mask=mask,
    )


def block_patterns(rows: int, columns: int, seed: int) -> dict[str, NDArray[np.bool_]]:
    """Return named patterns of stored 4x1 blocks, each bool[rows / 4, columns]; the adversarial ones among them."""
    random = np.random.default_rng(seed)
    shape = (rows // 4, columns)
    none = np.zeros(shape, np.bool_)
    one, ragged, skewed = none.copy(), none.copy(), none.copy()
    one[shape[0] // 2, columns - 1] = True
    for group in range(shape[0]):
        ragged[group, random.permutation(columns)[: group % (columns + 1)]] = True
    skewed[0] = True
    skewed[-1, 0] = True
    return {
        "random": random.random(shape) < 0.2,
        "empty": none,
        "full": ~none,
        "one block": one,
        "ragged": ragged,
        "one full group": skewed,
    }


def sums_of(tensor: QuantTensor, codes: NDArray[Any], bias: NDArray[np.int64], zero_point: int) -> NDArray[np.int64]:
    """Return int64[tokens, rows] by one NumPy product."""
    return bias + (codes.astype(np.int64) - zero_point) @ tensor.integers().T


def tokens_of(panels: NDArray[Any], tokens: int, rows: int) -> NDArray[Any]:
    """Return results as [tokens, rows]."""
    return rows_of(panels, tokens=tokens, outputs=rows)


def case(pattern, *, rows=24, columns=29, seed=5, extreme=False):
    """Weights, u8 codes [TOKENS, columns] and a bias."""
    random = np.random.default_rng(seed)
    values = random.choice([-128, 127], (rows, columns)) if extreme else random.integers(-128, 128, (rows, columns))
    tensor = block_tensor(values.astype(np.int8), block_patterns(rows, columns, seed)[pattern])
    codes = random.choice([0, 255], (TOKENS, columns)) if extreme else random.integers(0, 256, (TOKENS, columns))
    return tensor, codes.astype(np.uint8), random.integers(-50_000, 50_000, rows)


def weights_of(tensor):
    return BlockWeights.from_packed(pack(tensor, Vnni4x1()))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("extreme", [False, True])
def test_sums_equal_numpy(level, pattern, extreme):
    tensor, codes, bias = case(pattern, extreme=extreme)
    product = Product(weights_of(tensor), Sums(), bias=bias, zero_point=131, level=level, emulate=True)
    result = product.run(panels_of(codes))
    assert result.dtype == np.int32
    np.testing.assert_array_equal(tokens_of(result, TOKENS, 24), sums_of(tensor, codes, bias, 131))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("spread", [20, 127])  # 127: too many pairs that a product of bytes would saturate
@pytest.mark.parametrize("width", [64, 32])
def test_a_group_of_many_quads_is_done_in_runs(level, spread, width):
    random = np.random.default_rng(8)
    tensor = block_tensor(random.integers(-spread, spread + 1, (8, 600)).astype(np.int8), random.random((2, 600)) < 0.9)
    codes = random.choice([0, 3, 255], (TOKENS, 600)).astype(np.uint8)
    product = Product(weights_of(tensor), Sums(), level=level, emulate=True)
    assert np.diff(product.weights.ptr).min() > 128
    result = tokens_of(product.run(panels_of(codes, width=width)), TOKENS, 8)
    np.testing.assert_array_equal(result, sums_of(tensor, codes, np.zeros(8, np.int64), 0))


@pytest.mark.parametrize("level", LEVELS)
def test_signed_codes_enter_with_128_added(level):
    tensor, codes, bias = case("random")
    signed = codes.view(np.int8)
    product = Product(weights_of(tensor), Sums(), bias=bias, zero_point=128 - 3, level=level, emulate=True)
    np.testing.assert_array_equal(
        tokens_of(product.run(panels_of(signed)), TOKENS, 24), sums_of(tensor, signed, bias, -3)
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_a_last_group_of_fewer_rows_is_filled_up(level, rows):
    tensor, codes, bias = case("full")
    whole = weights_of(tensor)
    quads = int(whole.ptr[-(-rows // 4)])
    values = whole.values[:quads].copy()
    if rows % 4:
        values[whole.ptr[rows // 4] :, rows % 4 :] = 0
    cut = BlockWeights(
        rows=rows, columns=29, ptr=whole.ptr[: -(-rows // 4) + 1], offsets=whole.offsets[:quads], values=values
    )
    result = Product(cut, Sums(), bias=bias[:rows], level=level, emulate=True).run(panels_of(codes))
    assert result.shape[1] % 4 == 0
    np.testing.assert_array_equal(tokens_of(result, TOKENS, rows), sums_of(tensor, codes, bias, 0)[:, :rows])


@pytest.mark.parametrize("level", LEVELS)
def test_reals_are_two_binary32_products(level):
    tensor, codes, bias = case("full", extreme=True)
    bias *= 1001  # sums beyond 2^24: the conversion rounds
    random = np.random.default_rng(7)
    row_scales = random.random(24, np.float32)
    token_scales = random.random(TOKENS, np.float32)
    product = Product(
        weights_of(tensor), Reals(row_scales=row_scales), bias=bias, zero_point=128, level=level, emulate=True
    )
    result = tokens_of(product.run(panels_of(codes), token_scales=token_scales), TOKENS, 24)
    sums = sums_of(tensor, codes, bias, 128)
    assert np.abs(sums).max() > 1 << 24
    expected = sums.astype(np.float32) * row_scales * token_scales[:, None]
    np.testing.assert_array_equal(result.view(np.uint32), expected.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("pattern", ["random", "empty", "full"])
def test_codes_equal_the_specification(level, signed, pattern):
    tensor, codes, bias = case(pattern)
    random = np.random.default_rng(11)
    bias[:8] = [0, 1, -1, 2, -2, 100, -100, 3]
    # From shifts that saturate whatever is not 0 to shifts that leave nothing, with the useful ones between.
    shifts = np.array([-47, -17, -16, -15, -3, -1, 0, 1, 2, 5, 9, 10, 11, 12, 13, 15, 20, 25, 30, 31, 32, 33, 40, 62])
    low, high = (-128, 127) if signed else (0, 255)
    constants = Requantizer(
        multipliers=random.integers(1 << 14, 1 << 15, 24).astype(np.int32),
        shifts=shifts.astype(np.int32),
        zero_point=low + 77,
        code_min=low + 5,
        code_max=high - 3,
    )
    product = Product(
        weights_of(tensor),
        Codes(requantizer=constants, signed=signed),
        bias=bias,
        zero_point=100,
        level=level,
        emulate=True,
    )
    result = tokens_of(product.run(panels_of(codes)), TOKENS, 24)
    sums = sums_of(tensor, codes, bias, 100)
    expected = [
        [
            requantize_scalar(
                int(sums[t, r]),
                int(constants.multipliers[r]),
                int(shifts[r]),
                constants.zero_point,
                constants.code_min,
                constants.code_max,
            )
            for r in range(24)
        ]
        for t in range(TOKENS)
    ]
    assert result.dtype == (np.int8 if signed else np.uint8)
    np.testing.assert_array_equal(result, np.array(expected))


def test_results_feed_the_next_product():
    first, codes, bias = case("random", rows=32, columns=32)
    second, _, _ = case("random", rows=32, columns=32, seed=6)
    constants = Requantizer.of(np.full(32, 1e-3), 128, 0, 255)
    middle = Product(weights_of(first), Codes(requantizer=constants), bias=bias[:32]).run(panels_of(codes))
    result = Product(weights_of(second), Sums(), zero_point=128).run(middle)
    np.testing.assert_array_equal(
        tokens_of(result, TOKENS, 32), sums_of(second, tokens_of(middle, TOKENS, 32), np.zeros(32, np.int64), 128)
    )


@pytest.mark.parametrize(("level", "output"), OUTPUTS)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("width", [32, 16, 1])
def test_narrow_panels_give_the_same_results(level, pattern, output, width):
    tensor, codes, bias = case(pattern, extreme=output == "f32")
    random = np.random.default_rng(3)
    scales = random.random(TOKENS, np.float32) if output == "f32" else None
    low = -128 if output == "s8" else 0
    requantizer = Requantizer.of(np.exp(random.normal(-7, 3, 24)), low + 99, low, low + 255)
    epilogue = {
        "s32": Sums(),
        "f32": Reals(row_scales=random.random(24, np.float32)),
        "u8": Codes(requantizer=requantizer),
        "s8": Codes(requantizer=requantizer, signed=True),
    }[output]
    product = Product(weights_of(tensor), epilogue, bias=bias, zero_point=7, level=level, emulate=True)
    wide = product.run(panels_of(codes), token_scales=scales)
    narrow = product.run(panels_of(codes, width=width), token_scales=scales)
    assert narrow.shape == (-(-TOKENS // width), 24, width)
    np.testing.assert_array_equal(tokens_of(narrow, TOKENS, 24), tokens_of(wide, TOKENS, 24))


@pytest.mark.parametrize("level", [best_level(), Level.PORTABLE])
@pytest.mark.parametrize("width", [64, 32])
def test_threads_share_rows_and_panels(level, width):
    threads = min(3, available_threads())
    tensor, codes, bias = case("ragged", rows=44)
    product = Product(weights_of(tensor), Sums(), bias=bias, level=level, emulate=True)
    for tokens in (5, 64, TOKENS):
        result = product.run(panels_of(codes[:tokens], width=width), threads=threads)
        np.testing.assert_array_equal(tokens_of(result, tokens, 44), sums_of(tensor, codes[:tokens], bias, 0))
    with pytest.raises(ValueError, match="threads must be 1 to"):
        product.run(panels_of(codes), threads=available_threads() + 1)
    with pytest.raises(ValueError, match="threads must be 1 to"):
        product.run(panels_of(codes), threads=0)


@pytest.mark.parametrize("level", LEVELS)
def test_no_tokens_give_no_results(level):
    tensor, _, _ = case("random")
    result = Product(weights_of(tensor), Sums(), level=level, emulate=True).run(panels_of(np.empty((0, 29), np.uint8)))
    assert result.shape == (0, 24, 64)


def test_sums_beyond_32_bits_are_refused():
    tensor, _, bias = case("full", columns=4096, extreme=True)
    bias[3] = (1 << 31) - 1
    with pytest.raises(LayoutError, match="row 3 can reach"):
        Product(weights_of(tensor), Sums(), bias=bias)


def sections():
    return {
        "rows": 8,
        "columns": 8,
        "ptr": np.array([0, 1, 2]),
        "offsets": np.array([[0, 64, 128, 192], [0, 0, 0, 448]], np.int32),
        "values": np.ones((2, 4, 4), np.int8),
    }


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ptr", np.array([0, 2, 1]), "ptr must rise"),
        ("ptr", np.array([0, 1]), "ptr must be"),
        ("ptr", np.array([1, 1, 2]), "rise"),
        ("ptr", np.array([0, 1, 3]), "rise"),
        ("offsets", np.array([[0, 64, 128, 192], [0, 0, 0, 512]], np.int32), "offsets must hold"),
        ("offsets", np.array([[0, 64, 128, -64], [0, 0, 0, 448]], np.int32), "offsets must hold"),
        ("offsets", np.array([[0, 64, 128, 190], [0, 0, 0, 448]], np.int32), "offsets must hold"),
        ("offsets", np.zeros((2, 4), np.int64), "offsets must be"),
        ("values", np.ones((3, 4, 4), np.int8), "values must be"),
        ("values", np.ones((2, 4, 8), np.int8)[:, :, ::2], "values must be"),
        ("rows", 0, "nothing to multiply"),
    ],
)
def test_sections_that_could_lead_a_kernel_astray_are_refused(name, value, message):
    BlockWeights(**sections())
    with pytest.raises(LayoutError, match=message):
        BlockWeights(**{**sections(), name: value})


def test_arrays_that_do_not_fit_are_refused_before_anything_is_written():
    tensor, codes, _ = case("random")
    product = Product(weights_of(tensor), Sums())
    panels = panels_of(codes)
    with pytest.raises(TypeError, match="activations must be an array of uint8"):
        product.run(panels.view(np.int8))
    with pytest.raises(ValueError, match="C-contiguous"):
        product.run(panels[:, ::-1])
    with pytest.raises(ValueError, match="29 or more"):
        product.run(aligned_empty((2, 28, 64), np.uint8))
    with pytest.raises(ValueError, match="64-byte boundary"):
        product.run(aligned_empty((2 * 29 * 64 + 64,), np.uint8)[16 : 16 + 2 * 29 * 64].reshape(2, 29, 64))
    for out, error in (
        (aligned_empty((2, 24, 64), np.int64), TypeError),
        (aligned_empty((2, 28, 64), np.int32), ValueError),
        (aligned_empty((4, 24, 64), np.int32)[::2], ValueError),
    ):
        with pytest.raises(error, match="out"):
            product.run(panels, out=out)
    frozen = aligned_empty((2, 24, 64), np.int32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        product.run(panels, out=frozen)
    with pytest.raises(ValueError, match="belong to Reals"):
        product.run(panels, token_scales=np.ones(TOKENS, np.float32))


def test_wrong_epilogues_are_refused():
    tensor, codes, _ = case("random")
    weights = weights_of(tensor)
    with pytest.raises(ValueError, match="finite"):
        Product(weights, Reals(row_scales=np.full(24, np.nan, np.float32)))
    with pytest.raises(ValueError, match="row_scales must be"):
        Product(weights, Reals(row_scales=np.ones(23, np.float32)))
    with pytest.raises(ValueError, match="multipliers must be"):
        Product(
            weights,
            Codes(
                requantizer=Requantizer(
                    multipliers=np.zeros(24, np.int32),
                    shifts=np.zeros(24, np.int32),
                    zero_point=0,
                    code_min=0,
                    code_max=255,
                )
            ),
        )
    with pytest.raises(ValueError, match="codes must lie"):
        Product(weights, Codes(requantizer=Requantizer.of(np.full(24, 1e-3), 0, -128, 127)))
    with pytest.raises(ValueError, match="zero_point"):
        Product(weights, Sums(), zero_point=256)
    with pytest.raises(ValueError, match="bias"):
        Product(weights, Sums(), bias=np.zeros(24))
    product = Product(weights, Reals(row_scales=np.ones(24, np.float32)))
    with pytest.raises(ValueError, match="token_scales"):
        product.run(panels_of(codes), token_scales=np.ones(64, np.float32))
    with pytest.raises(ValueError, match="token_scales must be finite"):
        product.run(panels_of(codes), token_scales=np.full(TOKENS, np.inf, np.float32))


def aligned_case(rows=24, columns=30, seed=2, density=0.4):
    """Weights in aligned 4x4 blocks, codes [TOKENS, columns], a bias."""
    random = np.random.default_rng(seed)
    blocks = random.random((-(-rows // 4), -(-columns // 4))) < density
    mask = np.repeat(np.repeat(blocks, 4, axis=0), 4, axis=1)[:rows, :columns]
    matrix = np.where(mask, random.integers(-128, 128, (rows, columns)), 0).astype(np.int8)
    return matrix, random.integers(0, 256, (TOKENS, columns)).astype(np.uint8), random.integers(-9999, 9999, rows)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("rows", "columns", "density"), [(24, 30, 0.4), (24, 32, 1), (5, 3, 1), (8, 8, 0)])
@pytest.mark.parametrize("width", [64, 16, 1])
def test_aligned_weights_equal_numpy(level, rows, columns, density, width):
    matrix, codes, bias = aligned_case(rows, columns, density=density)
    weights = BlockWeights.from_matrix(matrix)
    assert len(weights.offsets) == (density == 1) * -(-rows // 4) * -(-columns // 4) or density == 0.4
    product = Product(weights, Sums(), bias=bias, zero_point=9, level=level, emulate=True)
    result = product.run(interleaved(panels_of(codes, width=width)))
    np.testing.assert_array_equal(
        tokens_of(result, TOKENS, rows), bias + (codes.astype(int) - 9) @ matrix.T.astype(int)
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("width", [64, 16, 1])
def test_interleaved_results_are_the_plain_ones_in_another_order(level, aligned, width):
    matrix, codes, bias = aligned_case()
    random = np.random.default_rng(1)
    if aligned:
        weights, panels = BlockWeights.from_matrix(matrix), interleaved(panels_of(codes, width=width))
    else:
        weights, panels = weights_of(case("random", columns=30)[0]), panels_of(codes, width=width)
    requantizer = Requantizer.of(np.exp(random.normal(-7, 3, 24)), 99, 3, 250)
    plain = Product(weights, Codes(requantizer=requantizer), bias=bias, level=level, emulate=True).run(panels)
    other = Product(
        weights, Codes(requantizer=requantizer, interleaved=True), bias=bias, level=level, emulate=True
    ).run(panels)
    np.testing.assert_array_equal(other, interleaved(plain))


def test_interleaving_puts_four_inputs_of_a_token_side_by_side():
    codes = np.random.default_rng(0).integers(0, 256, (TOKENS, 7)).astype(np.uint8)
    result = interleaved(panels_of(codes))
    assert result.shape == (2, 2, 256)
    for token in range(TOKENS):
        lane, j, i = token % 64 // 16, token % 16 // 4, token % 4
        dword = 16 * j + 4 * lane + i
        padded = np.append(codes[token], 0).reshape(2, 4)
        np.testing.assert_array_equal(result[token // 64, :, 4 * dword : 4 * dword + 4], padded)
