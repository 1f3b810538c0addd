"""The blocks that `sparsefab emit` and `sparsefab verify` know by name: one entry each.

A new block adds its entry here, and its checks to `sparsefab.sim.checks`; emission, lint, the comparison of its two
netlists and the command line follow from the entry.
"""

from typing import Final

from sparsefab.arch import AccumulatorArch, ArrayArch, ChainArch
from sparsefab.hw.accumulate import AccumulateUnit
from sparsefab.hw.array import ChainArray
from sparsefab.hw.chain import SparseChain
from sparsefab.hw.chain_axis import chain_axis_wrapper
from sparsefab.hw.dequantize.arch import DequantizeArch
from sparsefab.hw.dequantize.dequantizer import Dequantizer
from sparsefab.hw.emit import Block
from sparsefab.hw.minifloat.dot import BlockDot, DotArch
from sparsefab.hw.minifloat.mac import Mac, MacArch
from sparsefab.hw.pack4 import NibbleArch, NibbleChain
from sparsefab.hw.requantize import RequantizeArch, RequantizeUnit
from sparsefab.registry import Registry

__all__ = ["ACCUMULATE", "ARRAY", "BLOCKS", "CHAIN", "DEQUANTIZE", "MAC", "MX_DOT", "PACK4", "REQUANTIZE"]

# two lanes of 36 bits and 512 rows are one BRAM36
_ARRAY: Final = ArrayArch(
    chains=4,
    chain=ChainArch(dsps=64, accumulator_bits=36),
    accumulators=AccumulatorArch(multiplier_bits=8),
)

CHAIN: Final = Block(
    name="chain",
    description="sparse DSP chain: weight beats times activations that stay in the DSPs' banks",
    default=ChainArch(dsps=64),
    component=SparseChain,
    axis=chain_axis_wrapper,
    label=lambda arch: f"chain-{arch.dsps}{'-ends' if arch.ends else ''}",
)

PACK4: Final = Block(
    name="pack4",
    description="outer products of two int4 rows and two int4 tokens, four products a DSP, summed down a cascade",
    default=NibbleArch(),
    component=NibbleChain,
    label=lambda arch: f"pack4-{arch.dsps}",
)

REQUANTIZE: Final = Block(
    name="requantize",
    description="accumulators to codes, one DSP a lane",
    default=RequantizeArch(),
    component=lambda arch, body, placer: RequantizeUnit(
        accumulator_bits=arch.accumulator_bits, lanes=arch.lanes, body=body, placer=placer
    ),
    label=lambda arch: f"requantize-{arch.accumulator_bits}x{arch.lanes}",
)

DEQUANTIZE: Final = Block(
    name="dequantize",
    description="memory beats of compressed weights to the chain's weight beats",
    default=DequantizeArch(),
    component=Dequantizer,
    label=lambda arch: f"dequantize-{arch.format}-{arch.dsps}x{arch.slots}",
)

ACCUMULATE: Final = Block(
    name="accumulate",
    description="partial sums of chains, scaled by group, added up over tiles",
    default=_ARRAY,
    component=lambda arch, body, placer: AccumulateUnit(
        chain=arch.chain, arch=arch.accumulators, chains=arch.chains, body=body, placer=placer
    ),
    label=lambda arch: f"accumulate-{arch.chains}",
)

ARRAY: Final = Block(
    name="array",
    description="chains that share activations, rows spread over them, with their accumulators",
    default=_ARRAY,
    component=ChainArray,
    label=lambda arch: f"array-{arch.chains}x{arch.chain.dsps}",
)

MAC: Final = Block(
    name="mac",
    description="one exact multiply-accumulate of any two number formats, with conversion back if asked",
    default=MacArch(),
    component=Mac,
    label=lambda arch: f"mac-{arch.a}-{arch.b}" + (f"-{arch.result}" if arch.result else ""),
)

MX_DOT: Final = Block(
    name="mxdot",
    description="dot products of OCP MX blocks, exact inside a block, shared exponents across",
    default=DotArch(),
    component=BlockDot,
    label=lambda arch: f"mxdot-{arch.a}-{arch.b}",
)

_ALL: Final = (
    CHAIN,
    PACK4,
    ACCUMULATE,
    ARRAY,
    REQUANTIZE,
    DEQUANTIZE,
    MAC,
    MX_DOT,
)
BLOCKS: Final = Registry(kind="block", builtins={block.name: block for block in _ALL}, error=ValueError)
