"""How long the innermost loops of the kernels for few tokens take at least, by the ports that their instructions need.

    loops = product_loops(weights, width=16, panels=1)       [(loop, rounds)]
    sum(loop.cycles * rounds for loop, rounds in loops)

The ports are those of Intel's cores from Golden Cove on while 512-bit vectors are in flight.  In a cycle begin six
instructions; three loads, two of them of 512 bits, broadcasts to so many included; two vector instructions (p0 and p5);
one that moves elements (p5).  Counted is the code that LLVM emits, and a test counts it again.
"""

from dataclasses import dataclass

import numpy as np

from sparsefab.kernels_cpu.gemv_groups import side_of
from sparsefab.kernels_cpu.group_weights import GroupWeights
from sparsefab.kernels_cpu.lane_weights import LaneWeights
from sparsefab.kernels_cpu.masked import MaskedWeights
from sparsefab.kernels_cpu.tile_weights import TileWeights
from sparsefab.kernels_cpu.weights import BlockWeights

__all__ = [
    "GROUP_LOOPS",
    "LOOPS",
    "Loop",
    "busiest",
    "group_loops",
    "lane_loops",
    "product_loops",
    "tile_loops",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Instructions of one round of a loop.

    Attributes
    ----------
    unit : str                   What the loop goes through.
    units : int                  Of these in a round.
    instructions, loads, wide_loads, vectors, shuffles : int   As above; a shuffle is also a vector instruction.
    vector_ports : int           Three where no instruction has more than 256 bits.
    tiles : int                  Products of AMX tiles, 16 rows by 16 tokens by 64 inputs, 16 cycles each.
    """

    unit: str
    units: int
    instructions: int
    loads: int
    wide_loads: int
    vectors: int
    shuffles: int
    vector_ports: int = 2
    tiles: int = 0

    @property
    def needs(self) -> dict[str, float]:
        """Cycles that a unit takes at least, by what it waits for."""
        cycles = {
            "instructions": self.instructions / 6,
            "loads": self.loads / 3,
            "512-bit loads": self.wide_loads / 2,
            "vector instructions": self.vectors / self.vector_ports,
            "shuffles": float(self.shuffles),
            "tile products": 16.0 * self.tiles,
        }
        return {name: value / self.units for name, value in cycles.items()}

    @property
    def cycles(self) -> float:
        """Cycles that a unit takes at least."""
        return max(self.needs.values())

    @property
    def limit(self) -> str:
        """What a unit waits for, in words: '4.7 cycles for a quad: loads'."""
        needs = self.needs
        name = max(needs, key=lambda each: needs[each])
        return f"{needs[name]:.1f} cycles for {self.unit}: {name}"


# By gathered or aligned inputs and the width of panels; and the loop that expands a tile of N:M weights.
LOOPS = {
    ("gathered", 1): Loop(
        unit="a quad", units=4, instructions=88, loads=40, wide_loads=0, vectors=8, shuffles=4, vector_ports=3
    ),
    ("gathered", 16): Loop(unit="a quad", units=2, instructions=44, loads=28, wide_loads=8, vectors=16, shuffles=4),
    ("aligned", 1): Loop(
        unit="a quad", units=4, instructions=24, loads=15, wide_loads=0, vectors=4, shuffles=0, vector_ports=3
    ),
    ("aligned", 16): Loop(unit="a quad", units=2, instructions=24, loads=15, wide_loads=10, vectors=8, shuffles=0),
    ("masked", 1): Loop(unit="a tile", units=2, instructions=16, loads=8, wide_loads=4, vectors=8, shuffles=6),
    ("expanded", 16): Loop(unit="a tile", units=1, instructions=9, loads=5, wide_loads=1, vectors=3, shuffles=3),
}
_TILE = Loop(unit="a tile's product", units=1, instructions=1, loads=0, wide_loads=0, vectors=0, shuffles=0, tiles=1)
_EXPANDED_ROW = Loop(unit="64 inputs of a row", units=1, instructions=4, loads=2, wide_loads=1, vectors=3, shuffles=3)
_UNPACKING = {3: 29, 4: 12, 8: 0}  # vector instructions for the codes of 32 inputs
_JOINING = 2  # for a group's sum, where it fits 16 bits
# Of 4-bit codes in groups of 16, by tokens side by side and whether each group has a zero point.
GROUP_LOOPS = {
    (1, False): Loop(unit="four groups", units=2, instructions=55, loads=25, wide_loads=5, vectors=22, shuffles=6),
    (4, False): Loop(unit="four groups", units=1, instructions=47, loads=14, wide_loads=6, vectors=25, shuffles=10),
    (16, False): Loop(unit="four groups", units=1, instructions=107, loads=26, wide_loads=18, vectors=73, shuffles=10),
    (1, True): Loop(unit="four groups", units=2, instructions=59, loads=27, wide_loads=7, vectors=24, shuffles=8),
    (4, True): Loop(unit="four groups", units=1, instructions=50, loads=15, wide_loads=7, vectors=26, shuffles=11),
    (16, True): Loop(unit="four groups", units=1, instructions=110, loads=27, wide_loads=19, vectors=74, shuffles=11),
}
_PASSES = (16, 8, 4, 2, 1)  # tokens at a time

Rounds = list[tuple[Loop, int]]


def product_loops(weights: BlockWeights | MaskedWeights, *, width: int, panels: int) -> Rounds:
    """Return what a product of up to 16 tokens goes through on 512-bit registers: loops, and units of each."""
    if isinstance(weights, BlockWeights):
        return [(LOOPS["aligned" if weights.aligned else "gathered", width], len(weights.offsets) * panels)]
    tiles = weights.groups * weights.tiles
    if width == 1:
        return [(LOOPS["masked", 1], tiles * panels)]
    quads = weights.groups * -(-weights.columns // 4)
    return [(LOOPS["aligned", 16], quads * panels), (LOOPS["expanded", 16], tiles)]


def tile_loops(tiles: TileWeights, *, tokens: int) -> Rounds:
    """Return what AMX goes through: products of tiles or, beside them, expanding rows, whichever takes longer."""
    blocks = len(tiles.starts) * tiles.steps  # of 32 rows and 64 inputs
    products, rows = (_TILE, 2 * blocks * -(-tokens // 16)), (_EXPANDED_ROW, 32 * blocks if tiles.shared else 0)
    return [max(products, rows, key=lambda each: each[0].cycles * each[1])]


def lane_loops(weights: LaneWeights, *, tokens: int) -> Rounds:
    """Return what a product of group-quantized weights goes through: 32 inputs of 16 rows, by passes of tokens."""
    blocks, groups, parts, _ = weights.values.shape
    result, left = [], tokens
    for count in _PASSES:
        passes, left = divmod(left, count)
        if passes:
            joined = -(-_JOINING * count // parts)
            vectors = 8 * count + _UNPACKING[weights.bits] + joined
            wide = 8 * count + weights.bits
            loop = Loop(
                unit="32 inputs of 16 rows", units=1, instructions=vectors + 3 * weights.bits, wide_loads=wide,
                loads=wide + 2 * weights.bits, vectors=vectors, shuffles=0,
            )  # fmt: skip
            result.append((loop, passes * blocks * groups * parts))
    return result


def group_loops(weights: GroupWeights, *, tokens: int) -> Rounds:
    """Return what a product of group-sparse weights goes through; nothing where the loops were not counted."""
    if weights.bits != 4 or weights.units != 1:
        return []
    side = side_of(tokens)
    rounds = int((-(-np.diff(weights.pointers.astype(np.int64)) // 4)).sum())
    return [(GROUP_LOOPS[side, weights.asymmetric], rounds * -(-tokens // side))]


def busiest(loops: Rounds) -> str:
    """Return what most of the time is spent on, in words."""
    return max(loops, key=lambda each: each[0].cycles * each[1])[0].limit
