"""The blocks that `sparsefab emit` and `sparsefab verify` know by name: one entry each.

A new block adds its entry here, and its checks to `sparsefab.sim.checks`; emission, lint, the comparison of its two
netlists and the command line follow from the entry.
"""

from typing import Final

from sparsefab.arch import ChainArch
from sparsefab.hw.dequantize.arch import DequantizeArch
from sparsefab.hw.emit import Block, chain_verilog, dequantize_verilog, requantize_verilog
from sparsefab.hw.requantize import RequantizeArch
from sparsefab.registry import Registry

__all__ = ["BLOCKS", "CHAIN", "DEQUANTIZE", "REQUANTIZE"]

CHAIN: Final = Block(
    name="chain",
    description="sparse DSP chain: weight beats times activations that stay in the DSPs' banks",
    default=ChainArch(dsps=64),
    verilog=lambda arch, primitives: chain_verilog(arch, primitives=primitives),
    axis=lambda arch, primitives: chain_verilog(arch, primitives=primitives, axis=True),
    label=lambda arch: f"chain-{arch.dsps}",
)

REQUANTIZE: Final = Block(
    name="requantize",
    description="accumulators to codes, one DSP a lane",
    default=RequantizeArch(),
    verilog=lambda arch, primitives: requantize_verilog(
        accumulator_bits=arch.accumulator_bits, lanes=arch.lanes, primitives=primitives
    ),
    label=lambda arch: f"requantize-{arch.accumulator_bits}x{arch.lanes}",
)

DEQUANTIZE: Final = Block(
    name="dequantize",
    description="memory beats of compressed weights to the chain's weight beats",
    default=DequantizeArch(),
    verilog=lambda arch, primitives: dequantize_verilog(arch, primitives=primitives),
    label=lambda arch: f"dequantize-{arch.format}-{arch.dsps}x{arch.slots}",
)

_ALL: Final = (
    CHAIN,
    REQUANTIZE,
    DEQUANTIZE,
)
BLOCKS: Final = Registry(kind="block", builtins={block.name: block for block in _ALL}, error=ValueError)
