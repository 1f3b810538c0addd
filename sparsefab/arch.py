"""Parameters of the accelerator and what follows from them: widths for the hardware, rates for the software.

A chain multiplies weight beats with stationary activations. Per DSP two int8 products share an operand, the weight with
two tokens (matrix-matrix) or the activation with two rows (matrix-vector):

    matrix   a1 << 18 + a0 times w     P = w a1 << 18 + w a0 + offset
    vector   w1 << 18 + w0 times a         '--- upper lane   '--- lower lane, kept in 0 .. 2**18 - 1 by the offset

WP486 adds the lower lane's sign bit back to the upper lane after the sum. Here the first DSP of a segment adds
2**17 - 1 through its RND operand instead, so the lower lane never borrows and no correction is left; the constants are
subtracted once, after all segments are summed. It also makes 8 products of full-range int8 exact, where a signed lane
holds 7.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["LANE_BITS", "LANE_OFFSET", "AcceleratorArch", "AccumulatorArch", "ArrayArch", "ChainArch"]

LANE_BITS: Final = 18  # distance of the two lanes: the B port's width, the lower lane's room for a segment's sum
LANE_OFFSET: Final = (1 << (LANE_BITS - 1)) - 1  # what a segment starts its lower lane with
_ACTIVATION_PIPELINE: Final = 4  # A1/D, AD, M, P


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainArch:
    """One sparse DSP chain.

    Parameters
    ----------
    dsps : int                 Length L; a multiple of `segment`.
    segment : int              DSPs in one cascade; limited by the lower lane.
    block : int                Inputs M that one activation bank holds.
    lanes : int                Products per DSP: tokens at a time, or rows at a time.
    matrix_vector : bool       Rows may share a DSP, tile by tile; without it only tokens do.
    ends : bool                Rows may end inside a beat, at any group of two DSPs, at most one in a segment; if not, a
                               row takes whole beats.
    banks : int                Activation banks: one is read while the other is written.
    weight_bits, activation_bits : int
                               Signed operands.
    accumulator_bits : int     Of the sum over tiles that follows the chain.
    fifo_depth : int           Sums that may wait for the consumer; sets the credits.
    column_dsps : int          DSPs of the device's shortest column inside one SLR (U280: 96): a cascade stays inside.
    """

    dsps: int
    segment: int = 8
    block: int = 16
    lanes: int = 2
    matrix_vector: bool = True
    ends: bool = False
    banks: int = 2
    weight_bits: int = 8
    activation_bits: int = 8
    accumulator_bits: int = 32
    fifo_depth: int = 32
    column_dsps: int = 96

    def __post_init__(self) -> None:
        for name in ("block", "lanes", "banks", "fifo_depth"):
            only = {"block": 16, "lanes": 2, "banks": 2, "fifo_depth": 32}[name]
            if getattr(self, name) != only:
                raise ValueError(
                    f"{name} must be {only}: the banks are 32-deep distributed RAM, not {getattr(self, name)}"
                )
        for name in ("weight_bits", "activation_bits"):
            if not 2 <= getattr(self, name) <= 8:
                raise ValueError(f"{name} must be 2 to 8, not {getattr(self, name)}")
        if not 1 <= self.segment <= self.column_dsps:
            raise ValueError(
                f"segment must be 1 to {self.column_dsps}, the DSPs of a column inside one SLR, not {self.segment}"
            )
        if self.segment > self.segment_limit:
            raise ValueError(
                f"segment must be at most {self.segment_limit}, the products of s{self.weight_bits} x "
                f"s{self.activation_bits} that {LANE_BITS} bits sum exactly, not {self.segment}"
            )
        if self.ends and self.segment % self.group:
            raise ValueError(f"segment must be a multiple of {self.group}, a group, where rows end, not {self.segment}")
        if self.dsps < 1 or self.dsps % self.segment:
            raise ValueError(f"dsps must be a positive multiple of segment = {self.segment}, not {self.dsps}")
        if self.latency_cycles + 4 > self.fifo_depth:
            raise ValueError(
                f"dsps must keep the latency of {self.latency_cycles} cycles 4 below fifo_depth = "
                f"{self.fifo_depth}, not {self.dsps}"
            )
        if not self.sum_bits <= self.accumulator_bits <= 48:
            raise ValueError(
                f"accumulator_bits must be {self.sum_bits} to 48 for {self.dsps} products a beat, "
                f"not {self.accumulator_bits}"
            )

    # hardware view

    @property
    def segments(self) -> int:
        """Cascades in the chain."""
        return self.dsps // self.segment

    @property
    def product_range(self) -> tuple[int, int]:
        """Smallest and largest product of a weight and an activation."""
        low_w, low_a = -(1 << (self.weight_bits - 1)), -(1 << (self.activation_bits - 1))
        return min(low_w * (-low_a - 1), low_a * (-low_w - 1)), low_w * low_a

    @property
    def segment_limit(self) -> int:
        """Products whose sums, whatever the operands, stay in 0 .. 2**18 - 1 once LANE_OFFSET is added."""
        low, high = self.product_range
        return min(LANE_OFFSET // -low, ((1 << LANE_BITS) - 1 - LANE_OFFSET) // high)

    @property
    def sum_range(self) -> tuple[int, int]:
        """Smallest and largest sum of one lane over the chain."""
        low, high = self.product_range
        return self.dsps * low, self.dsps * high

    @property
    def sum_bits(self) -> int:
        """Bits of one lane's signed sum over the chain."""
        low, high = self.sum_range
        return max(high.bit_length(), (-low - 1).bit_length()) + 1

    @property
    def segment_bits(self) -> int:
        """Bits of a segment's packed sum: the lower lane, and the upper lane's sum with its sign."""
        low, high = self.product_range
        return LANE_BITS + max((self.segment * high).bit_length(), (-self.segment * low - 1).bit_length()) + 1

    @property
    def group(self) -> int:
        """DSPs of a group: where a row may end."""
        return 2

    @property
    def segment_groups(self) -> int:
        """Groups of a segment."""
        return self.segment // self.group

    @property
    def head_bits(self) -> int:
        """Bits of the packed sum below a row that starts inside a segment: all groups but one."""
        low, high = self.product_range
        dsps = self.segment - self.group
        return LANE_BITS + max((dsps * high).bit_length(), (-dsps * low - 1).bit_length()) + 1

    @property
    def parts(self) -> int:
        """Parts of rows in one beat: a start in each segment makes one more."""
        return self.segments + 1 if self.ends else 1

    @property
    def weight_rows(self) -> int:
        """Weights of a DSP in one beat: those of one row, or of two."""
        return 2 if self.matrix_vector else 1

    @property
    def word_bits(self) -> int:
        """Bits of a word in an activation bank: a pair; packed for the multiplier it takes one more."""
        return self.lanes * self.activation_bits + int(self.matrix_vector)

    @property
    def index_bits(self) -> int:
        """Bits that pick one activation of a block."""
        return (self.block - 1).bit_length()

    @property
    def tree_levels(self) -> int:
        """Registered adder levels that join the segments."""
        return (self.segments - 1).bit_length()

    @property
    def latency_cycles(self) -> int:
        """From an accepted weight beat to its sum at the output FIFO's input."""
        return 1 + (self.segment - 1) + _ACTIVATION_PIPELINE + self.tree_levels + 1

    # software view

    @property
    def macs_per_cycle(self) -> int:
        """Products formed a cycle when every slot is used."""
        return self.dsps * self.lanes

    @property
    def max_inputs(self) -> int:
        """Stored weights of a row that surely fit the accumulator."""
        low, high = self.product_range
        return min(((1 << (self.accumulator_bits - 1)) - 1) // high, (1 << (self.accumulator_bits - 1)) // -low)

    def blocks_per_tile(self, slots: int) -> int:
        """Blocks of inputs that one beat covers at `slots` stored weights a block (slots:16)."""
        if not 1 <= slots <= self.block:
            raise ValueError(f"slots must be 1 to {self.block}, not {slots}")
        return self.dsps // slots

    def tile_inputs(self, slots: int) -> int:
        """Inputs that one beat covers."""
        return self.blocks_per_tile(slots) * self.block

    def fill_beats(self) -> int:
        """Activation beats that refill one bank of every DSP: a tile should last at least as many weight beats."""
        return self.segments * self.block

    def tile_fill(self, slots: int, blocks: int) -> tuple[int, int, int]:
        """Words that a DSP's bank needs, segments that are written together, segments that a tile fills.

        A tile of `blocks` blocks at `slots`:16, or as many as one beat covers, takes words * ceil(third / second)
        activation beats. A dense tile's DSP meets one input only, which lies in word 0 of its bank; else segments that
        share a block hold the same words.
        """
        filled = -(-min(blocks, self.blocks_per_tile(slots)) * slots // self.segment)
        if slots == self.block:
            return 1, 1, filled
        return self.block, slots // self.segment if slots % self.segment == 0 else 1, filled


@dataclass(frozen=True, slots=True, kw_only=True)
class AccumulatorArch:
    """The accumulators behind chains.

    Parameters
    ----------
    rows : int                 Rows that a chain sums up at a time; 512 x 72 bits are one BRAM36.
    multiplier_bits : int      Of the unsigned group scales; 0: none, and no DSP a lane.
    """

    rows: int = 512
    multiplier_bits: int = 0

    def __post_init__(self) -> None:
        if not 16 <= self.rows <= 4096:
            raise ValueError(f"rows must be 16 to 4096, not {self.rows}")
        if not 0 <= self.multiplier_bits <= 17:
            raise ValueError(
                f"multiplier_bits must be 0 to 17, what the signed B port holds unsigned, not {self.multiplier_bits}"
            )

    def bram36(self, chain: ChainArch) -> float:
        """Block RAMs behind one chain: halves of 512 x 36 bits, 1,024 x 18, 2,048 x 9 or 4,096 x 4 for both lanes."""
        width = next(bits for rows, bits in ((512, 36), (1024, 18), (2048, 9), (4096, 4)) if self.rows <= rows)
        return -(-chain.lanes * chain.accumulator_bits // width) / 2

    def max_inputs(self, chain: ChainArch) -> int:
        """Stored weights of a row that surely fit the chain's accumulator under the largest group scale."""
        return chain.max_inputs // max((1 << self.multiplier_bits) - 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayArch:
    """Chains side by side that share activations and run in step, accumulators behind them.

    Row r of a product is done by chain r mod `chains`, so that one beat holds consecutive rows; where rows come in
    pairs (matrix-vector), pair p by chain p mod `chains`.

    Parameters
    ----------
    chains : int               Chains; all alike.
    chain : ChainArch
    accumulators : AccumulatorArch
    """

    chains: int
    chain: ChainArch
    accumulators: AccumulatorArch = AccumulatorArch()

    def __post_init__(self) -> None:
        if self.chains < 1:
            raise ValueError(f"chains must be at least 1, not {self.chains}")
        if self.chain.ends:
            raise ValueError("ends must be False, not True: the accumulators take one sum of a chain a beat")

    @property
    def dsps(self) -> int:
        """DSPs of the chains and of the accumulators."""
        return self.chains * (self.chain.dsps + (self.chain.lanes if self.accumulators.multiplier_bits else 0))

    def row_beats(self, rows: int, *, vector: bool = False) -> int:
        """Weight beats of a tile of so many rows; in a `vector` tile each chain does two of them a beat."""
        return -(-rows // (self.chains * (2 if vector else 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorArch:
    """The whole accelerator: one core per SLR, each with its own chains and memory channels.

    Parameters
    ----------
    cores : int                Cores; one per SLR.
    chains_per_core : int      Chains of one core.
    chain : ChainArch          All chains are alike.
    clock_hz : float           Clock of the whole design.
    hbm_channels : int         Memory channels in use, a multiple of `cores`.
    region_dsps : int          DSPs usable in one SLR (U280, smallest SLR: 2,733).
    accumulators : AccumulatorArch
                               Behind the chains of a core.
    """

    cores: int
    chains_per_core: int
    chain: ChainArch
    clock_hz: float
    hbm_channels: int
    region_dsps: int = 2733
    accumulators: AccumulatorArch = AccumulatorArch(multiplier_bits=8)

    def __post_init__(self) -> None:
        for name in ("cores", "chains_per_core", "hbm_channels", "region_dsps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.clock_hz <= 0:
            raise ValueError(f"clock_hz must be positive, not {self.clock_hz}")
        if self.hbm_channels % self.cores:
            raise ValueError(f"hbm_channels must be a multiple of cores = {self.cores}, not {self.hbm_channels}")
        if self.dsps_per_core > self.region_dsps:
            raise ValueError(
                f"chains_per_core must be at most {self.region_dsps // self.chain.dsps}, the chains of "
                f"{self.chain.dsps} DSPs that fit one SLR of {self.region_dsps}, not {self.chains_per_core}"
            )

    @property
    def core(self) -> ArrayArch:
        """One core's chains and their accumulators."""
        return ArrayArch(chains=self.chains_per_core, chain=self.chain, accumulators=self.accumulators)

    @property
    def dsps_per_core(self) -> int:
        """DSPs of one core's chains."""
        return self.chains_per_core * self.chain.dsps

    @property
    def dsps(self) -> int:
        """DSPs of all chains."""
        return self.cores * self.dsps_per_core

    @property
    def macs_per_cycle(self) -> int:
        """Products formed a cycle when every slot of every chain is used."""
        return self.cores * self.chains_per_core * self.chain.macs_per_cycle
