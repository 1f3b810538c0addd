"""Cycles of the array: against counts from the RTL, against a cycle-by-cycle twin of its control, and in its limits."""

from pathlib import Path

import numpy as np
import pytest

from sparsefab.arch import AcceleratorArch, AccumulatorArch, ArrayArch, ChainArch
from sparsefab.cost_models.array import accelerator_cycles, array_cycles, chain_cycles
from sparsefab.cost_models.published import rtl_counts
from sparsefab.cost_models.validate_rtl import ArrayCount, array_counts


def one(value: float) -> np.ndarray:
    return np.array([float(value)])


def twin(chain: ChainArch, refill: int, lengths: list[int]) -> int:
    """Step the chain's bank control cycle by cycle: one activation beat and one weight beat a cycle, two banks.

    `lengths` are the weight beats of the tiles, `refill` the activation beats of each. Returns the cycles up to the
    last weight beat.
    """
    free_delay = chain.segment + 1
    filled_at: list[int] = []  # cycle after which a tile's bank may be read
    freed_at: list[int] = []
    filling = written = beats = reading = cycle = 0
    end = 0
    while reading < len(lengths):
        # a bank can be written if it was never used or its tile has left the skewed DSPs
        free = filling < 2 or (len(freed_at) > filling - 2 and freed_at[filling - 2] < cycle)
        wrote = filling < len(lengths) and free
        if reading < len(filled_at) and filled_at[reading] < cycle:
            beats += 1
            if beats == lengths[reading]:
                freed_at.append(cycle + free_delay)
                reading, beats, end = reading + 1, 0, cycle
        if wrote:
            written += 1
            if written == refill:
                filled_at.append(cycle + 1)
                filling, written = filling + 1, 0
        cycle += 1
    return end + 1


@pytest.mark.parametrize("counted", rtl_counts().cycles.counted)
def test_counts_from_the_rtl(counted: tuple[int, ...]) -> None:
    dsps, rows, columns, slots, tokens, cycles = counted
    got = chain_cycles(ChainArch(dsps=dsps), one(rows), one(columns), one(slots), one(tokens))
    assert got.total[0] == pytest.approx(cycles, rel=0.02)
    assert got.total[0] == pytest.approx(got.beats[0] + got.fill[0])


@pytest.mark.parametrize("dsps", [8, 32, 64])
def test_the_control_twin(dsps: int) -> None:
    chain, rng = ChainArch(dsps=dsps), np.random.default_rng(dsps)
    for _ in range(25):
        rows, blocks, tokens = int(rng.integers(1, 300)), int(rng.integers(1, 20)), int(rng.integers(1, 6))
        slots = int(rng.choice([1, 2, 4, 8]))
        tiles = -(-blocks // (dsps // slots))
        passes = -(-tokens // 2)
        got = float(chain_cycles(chain, one(rows), one(blocks * 16), one(slots), one(tokens)).total[0])
        stepped = twin(chain, chain.fill_beats(), [rows] * (tiles * passes)) + chain.latency_cycles + 1  # the FIFO
        assert got == pytest.approx(stepped, rel=0.01, abs=4)


@pytest.mark.parametrize("count", array_counts())
def test_counts_of_arrays(count: ArrayCount) -> None:
    assert count.predicted == pytest.approx(count.cycles, rel=0.02)


def test_what_was_counted() -> None:
    counts = array_counts()
    assert len(counts) >= 30
    assert {count.vector for count in counts} == {False, True}
    assert len({count.array.chains for count in counts}) >= 5
    held = [count.array.chains * count.array.accumulators.rows for count in counts]
    assert any(count.shape[0] > 2 * rows for count, rows in zip(counts, held, strict=True))


@pytest.mark.parametrize("dsps", [16, 64])
def test_rows_beyond_the_accumulators(dsps: int) -> None:
    """Tiles in parts, the last part shorter: many more than the model follows."""
    chain, rng = ChainArch(dsps=dsps), np.random.default_rng(dsps)
    for _ in range(20):
        held, beats = 16 * int(rng.integers(1, 12)), int(rng.integers(1, 600))
        slots, tiles, passes = int(rng.choice([1, 4, 8, 16])), int(rng.integers(1, 20)), int(rng.integers(1, 9))
        array = ArrayArch(chains=1, chain=chain, accumulators=AccumulatorArch(rows=held))
        words, together, used = chain.tile_fill(slots, tiles * chain.blocks_per_tile(slots))
        parts = [min(held, beats - low) for low in range(0, beats, held)]
        lengths = [part for _ in range(passes) for part in parts for _ in range(tiles)]
        columns = tiles * chain.tile_inputs(slots)
        got = array_cycles(array, one(beats), one(columns), one(slots), one(passes))
        assert got.beats[0] == sum(lengths)
        stepped = twin(chain, words * -(-used // together), lengths) + chain.latency_cycles + 1 + 7
        assert float(got.total[0]) == pytest.approx(stepped, abs=4)


@pytest.mark.cocotb
@pytest.mark.parametrize(("rows", "columns", "slots"), [(44, 96, 4), (30, 64, 16)])
def test_the_rtl_itself(tmp_path: Path, rows: int, columns: int, slots: int) -> None:
    from sparsefab.formats import QuantTensor, pack
    from sparsefab.formats.catalog import get_format
    from sparsefab.formats.layout import Chain
    from sparsefab.formats.sparsity import NM, Dense
    from sparsefab.sim.run import verify_chain

    rng, chain = np.random.default_rng(1), ChainArch(dsps=16)
    rank = rng.random((rows, columns // 16, 16)).argsort(-1).argsort(-1)
    mask = None if slots == 16 else (rank < slots).reshape(rows, columns)
    codes = np.where(True if mask is None else mask, rng.integers(-127, 128, (rows, columns)), 0).astype(np.int16)
    tensor = QuantTensor(codes=codes, format=get_format("int8"), row_scales=np.ones(rows, np.float32),
                         group_size=columns,
                         pattern=Dense() if mask is None else NM(slots, 16), mask=mask)  # fmt: skip
    report = verify_chain(chain, build_dir=tmp_path, packed=pack(tensor, Chain(dsps=16, slots=slots)),
                          activations=rng.integers(-128, 128, (2, columns)))  # fmt: skip
    plain = next(run for run in report.runs if "plain" in run.name)
    got = chain_cycles(chain, one(rows), one(columns), one(slots), one(2))
    assert plain.cycles == pytest.approx(float(got.total[0]), rel=0.02)


def arch(cores: int, chains: int, **chain: bool) -> AcceleratorArch:
    return AcceleratorArch(
        cores=cores, chains_per_core=chains, chain=ChainArch(dsps=64, **chain), clock_hz=225e6, hbm_channels=24
    )


YES, NO = np.array([True]), np.array([False])


def cycles(accelerator: AcceleratorArch, *shape: float, paired: np.ndarray = YES) -> float:
    rows, columns, slots, tokens, copies = map(one, shape)
    return float(accelerator_cycles(accelerator, rows, columns, slots, tokens, copies, paired).total[0])


def test_cores_share_the_rows_or_the_copies() -> None:
    whole = cycles(arch(1, 4), 4096, 1024, 16, 2, 1)
    assert cycles(arch(2, 4), 8192, 1024, 16, 2, 1) == whole
    assert cycles(arch(3, 4), 4096, 1024, 16, 2, 3) == whole
    # five copies on three cores: two rounds, which are as many passes
    assert cycles(arch(3, 4), 4096, 1024, 16, 2, 5) == cycles(arch(1, 4), 4096, 1024, 16, 4, 1)


def test_chains_share_the_rows_down_to_a_refill() -> None:
    shape = (4096, 4096, 16, 2, 1)
    found = [cycles(arch(1, chains), *shape) for chains in (1, 2, 4, 8, 16, 32)]
    assert found == sorted(found, reverse=True)
    for chains, total in zip((1, 2, 4, 8, 16, 32), found, strict=True):
        floor = 64 * 4096 / chains
        assert floor <= total <= 1.01 * floor + 200
    # 4:16, where a bank is 16 words of 8 segments: 16 tiles of 16 beats last 128 cycles each
    assert cycles(arch(1, 32), 512, 4096, 4, 2, 1) >= 16 * 128


def test_the_mode_is_chosen() -> None:
    one_token = (8192, 1024, 16, 1, 1)
    both, matrix = arch(1, 4), arch(1, 4, matrix_vector=False)
    assert cycles(both, *one_token) < 0.6 * cycles(matrix, *one_token)
    assert cycles(both, *one_token, paired=NO) == cycles(matrix, *one_token)
    # three tokens are two passes of pairs or three of single ones, which take half as long
    assert cycles(both, 8192, 1024, 16, 3, 1) < 0.8 * cycles(matrix, 8192, 1024, 16, 3, 1)
    # where activations take longer than the weights, single tokens do not help
    assert cycles(both, 64, 1024, 4, 4, 1) == cycles(matrix, 64, 1024, 4, 4, 1)


def test_sparsity_saves_beats_in_proportion() -> None:
    dense, half, quarter = (
        accelerator_cycles(arch(1, 8), one(4096), one(4096), one(slots), one(2), one(1), YES) for slots in (16, 8, 4)
    )
    assert dense.beats[0] == 2 * half.beats[0] == 4 * quarter.beats[0]


@pytest.mark.slow
@pytest.mark.cocotb
def test_arrays_counted_again(tmp_path: Path) -> None:
    """Three of the committed counts, and one with the modules that compute."""
    from sparsefab.sim.array_cycles import count_cycles, random_counts

    shapes = random_counts(0, 5)
    for place, count in enumerate(array_counts()):
        if place in (1, 9, 33):
            assert count_cycles(shapes[place], build_dir=tmp_path) == count.cycles
        if place == 8:
            assert count_cycles(shapes[place], build_dir=tmp_path, values=True) == count.cycles
