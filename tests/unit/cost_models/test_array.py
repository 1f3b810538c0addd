"""Cycles of the array: against counts from the RTL, against a cycle-by-cycle twin of its control, and in its limits."""

from pathlib import Path

import numpy as np
import pytest

from sparsefab.arch import AcceleratorArch, ChainArch
from sparsefab.cost_models.array import array_cycles, chain_cycles
from sparsefab.cost_models.published import rtl_counts


def one(value: float) -> np.ndarray:
    return np.array([float(value)])


def twin(chain: ChainArch, rows: int, tiles: int, passes: int) -> int:
    """Step the chain's bank control cycle by cycle: one activation beat and one weight beat a cycle, two banks."""
    total_tiles = tiles * passes
    refill, free_delay = chain.fill_beats(), chain.segment + 1
    filled_at: list[int] = []  # cycle after which a tile's bank may be read
    freed_at: list[int] = []
    filling = written = beats = reading = cycle = 0
    end = 0
    while reading < total_tiles:
        # a bank can be written if it was never used or its tile has left the skewed DSPs
        free = filling < 2 or (len(freed_at) > filling - 2 and freed_at[filling - 2] < cycle)
        wrote = filling < total_tiles and free
        if reading < len(filled_at) and filled_at[reading] < cycle:
            beats += 1
            if beats == rows:
                freed_at.append(cycle + free_delay)
                reading, beats, end = reading + 1, 0, cycle
        if wrote:
            written += 1
            if written == refill:
                filled_at.append(cycle + 1)
                filling, written = filling + 1, 0
        cycle += 1
    return end + 1 + chain.latency_cycles + 1  # the output FIFO


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
        assert got == pytest.approx(twin(chain, rows, tiles, passes), rel=0.01, abs=4)


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


def arch(chains: int) -> AcceleratorArch:
    return AcceleratorArch(cores=1, chains_per_core=chains, chain=ChainArch(dsps=64), clock_hz=225e6, hbm_channels=8)


def test_one_chain_of_an_array_is_a_chain() -> None:
    alone = chain_cycles(ChainArch(dsps=64), one(640), one(512), one(16), one(3))
    array = array_cycles(arch(1), one(640), one(512), one(16), one(3), one(1))
    assert array.total[0] == alone.total[0]


def test_chains_share_the_work() -> None:
    shape = (one(4096), one(4096), one(16), one(1), one(1))
    cycles = [float(array_cycles(arch(chains), *shape).total[0]) for chains in (1, 2, 4, 8, 16, 32)]
    assert cycles == sorted(cycles, reverse=True)
    # never below the weight beats, and close to them while rows are plenty
    for chains, total in zip((1, 2, 4, 8, 16, 32), cycles, strict=True):
        floor = 4096 / chains * np.ceil(4096 / 64)
        assert floor <= total <= 1.15 * floor + 400


def test_sparsity_saves_beats_in_proportion() -> None:
    dense = array_cycles(arch(8), one(4096), one(4096), one(16), one(1), one(1))
    half = array_cycles(arch(8), one(4096), one(4096), one(8), one(1), one(1))
    quarter = array_cycles(arch(8), one(4096), one(4096), one(4), one(1), one(1))
    assert dense.beats[0] == 2 * half.beats[0] == 4 * quarter.beats[0]
