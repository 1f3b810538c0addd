"""Vectors of the blocks that `hw.blocks` knows by name: random, short, with every corner that the stimuli reach."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from sparsefab.arch import ArrayArch, ChainArch
from sparsefab.hw.axis import AXIS_TOP
from sparsefab.hw.emit import TOP
from sparsefab.sim.array_streams import accumulate_streams, array_streams
from sparsefab.sim.beats import BeatFormat
from sparsefab.sim.dequantize import dequantize_vectors
from sparsefab.sim.dot import dot_stimuli
from sparsefab.sim.mac import mac_stimuli
from sparsefab.sim.pack4 import nibble_stimuli
from sparsefab.sim.ports import has_port, port_bits
from sparsefab.sim.products import Product, random_product
from sparsefab.sim.requantize import requantize_vectors
from sparsefab.sim.stimuli import SLOTS, random_stimuli
from sparsefab.sim.streams import StreamVectors

__all__ = ["VECTORS", "block_vectors", "chain_vectors"]

_BEATS: Final = 96  # weight beats of a chain: every N of N:16 in every mode
_SCALE_BITS: Final = 8  # of the group scales that `random_product` draws


def block_vectors(
    block: str, parameters: Any, *, axis: Mapping[str, str] | None = None, seed: int = 0
) -> StreamVectors | None:
    """Draw vectors for a block; None where the block has none.

    Parameters
    ----------
    block : str                      A name of `hw.blocks`.
    parameters : dataclass           Of its kind.
    axis : {module: text} | None     Its Verilog with AXI4-Stream ports: payloads are tdata, tlast above it.
    """
    if block not in VECTORS:
        return None
    if axis is None:
        return VECTORS[block](parameters, seed)
    if block == "chain":
        return chain_vectors(parameters, seed=seed, axis=True)
    return _at_axis_ports(VECTORS[block](parameters, seed), axis)


def _at_axis_ports(vectors: StreamVectors, modules: Mapping[str, str]) -> StreamVectors:
    """The same beats at the ports of `hw.axis.axis_wrapper`: payloads filled up to bytes, `last` above them."""

    def widen(prefix: str, side: dict[str, list[int]]) -> dict[str, list[int]]:
        found = {}
        for name, payloads in side.items():
            port = f"{prefix}_axis_{name}"
            last = has_port(modules[AXIS_TOP], f"{port}_tlast")
            inside = port_bits(modules[TOP], f"{name}__payload") - int(last)
            outside = port_bits(modules[AXIS_TOP], f"{port}_tdata")
            found[name] = [word & ((1 << inside) - 1) | word >> inside << outside for word in payloads]
        return found

    return replace(vectors, inputs=widen("s", vectors.inputs), outputs=widen("m", vectors.outputs))


def chain_vectors(arch: ChainArch, *, seed: int, axis: bool = False, beats: int = _BEATS) -> StreamVectors:
    """Random weight beats and banks in, the reference's sums out."""
    stimuli = random_stimuli(arch, beats=beats, slots=SLOTS, seed=seed)
    bits = BeatFormat.axis(arch) if axis else BeatFormat.stream(arch)
    return StreamVectors(
        inputs={"acts": bits.acts(stimuli), "weights": bits.weights(stimuli)},
        outputs={"sums": bits.sums(stimuli)},
        measured=("weights",),
    )


def _products(arch: ArrayArch, seed: int) -> list[Product]:
    """Rows that do not fill the chains, three tiles, the last one short, an odd token; a group scale for each tile.

    Where chains have both modes a second product takes rows two by two.
    """
    slots = 4
    tile = arch.chain.dsps // slots * arch.chain.block
    return [
        random_product(
            rows=6 * arch.chains + (0 if pairs else 1),
            columns=2 * tile + arch.chain.block,
            slots=slots,
            tokens=1 if pairs else 3,
            dsps=arch.chain.dsps,
            group_size=tile if arch.accumulators.multiplier_bits >= _SCALE_BITS else None,
            pairs=pairs,
            seed=seed,
        )
        for pairs in (False, True)[: arch.chain.weight_rows]
    ]


VECTORS: Final[dict[str, Callable[[Any, int], StreamVectors]]] = {
    "chain": lambda arch, seed: chain_vectors(arch, seed=seed),
    "pack4": lambda arch, seed: StreamVectors.through(*nibble_stimuli(arch, beats=60, seed=seed)),
    "array": lambda arch, seed: array_streams(arch, *_products(arch, seed)),
    "accumulate": lambda arch, seed: accumulate_streams(arch, *_products(arch, seed)),
    "requantize": lambda arch, seed: requantize_vectors(arch, beats=200, seed=seed),
    "dequantize": lambda arch, seed: dequantize_vectors(arch, rows=12, seed=seed),
    "mac": lambda arch, seed: StreamVectors.through(*mac_stimuli(arch, sums=60, seed=seed)),
    "mxdot": lambda arch, seed: StreamVectors.through(*dot_stimuli(arch, sums=24, seed=seed)),
}
