"""Vectors of the blocks that `hw.blocks` knows by name: random, short, with every corner that the stimuli reach."""

from collections.abc import Callable
from typing import Any, Final

from sparsefab.arch import ArrayArch, ChainArch
from sparsefab.sim.beats import BeatFormat
from sparsefab.sim.dequantize import dequantize_vectors
from sparsefab.sim.dot import dot_stimuli
from sparsefab.sim.mac import mac_stimuli
from sparsefab.sim.products import Product, accumulate_streams, array_streams, random_product
from sparsefab.sim.requantize import requantize_vectors
from sparsefab.sim.stimuli import SLOTS, random_stimuli
from sparsefab.sim.streams import StreamVectors

__all__ = ["VECTORS", "block_vectors", "chain_vectors"]

_BEATS: Final = 96  # weight beats of a chain: every N of N:16 in every mode
_SCALE_BITS: Final = 8  # of the group scales that `random_product` draws


def block_vectors(block: str, parameters: Any, *, axis: bool = False, seed: int = 0) -> StreamVectors | None:
    """Draw vectors for a block; None where the block has none, or has no AXI4-Stream form of them.

    Parameters
    ----------
    block : str                      A name of `hw.blocks`.
    parameters : dataclass           Of its kind.
    axis : bool                      Payloads are bytes as `hw.axis` has them, tlast above.
    """
    if axis:
        return chain_vectors(parameters, seed=seed, axis=True) if block == "chain" else None
    return VECTORS[block](parameters, seed) if block in VECTORS else None


def chain_vectors(arch: ChainArch, *, seed: int, axis: bool = False, beats: int = _BEATS) -> StreamVectors:
    """Random weight beats and banks in, the reference's sums out."""
    stimuli = random_stimuli(arch, beats=beats, slots=SLOTS, seed=seed)
    bits = BeatFormat.axis(arch) if axis else BeatFormat.stream(arch)
    return StreamVectors(
        inputs={"acts": bits.acts(stimuli), "weights": bits.weights(stimuli)},
        outputs={"sums": bits.sums(stimuli)},
        measured=("weights",),
    )


def _product(arch: ArrayArch, seed: int) -> Product:
    """Rows that do not fill the chains, three tiles, the last one short, an odd token; a group scale for each tile."""
    slots = 4
    tile = arch.chain.dsps // slots * arch.chain.block
    return random_product(
        rows=6 * arch.chains + 1,
        columns=2 * tile + arch.chain.block,
        slots=slots,
        tokens=3,
        dsps=arch.chain.dsps,
        group_size=tile if arch.accumulators.multiplier_bits >= _SCALE_BITS else None,
        seed=seed,
    )


VECTORS: Final[dict[str, Callable[[Any, int], StreamVectors]]] = {
    "chain": lambda arch, seed: chain_vectors(arch, seed=seed),
    "array": lambda arch, seed: array_streams(arch, _product(arch, seed)),
    "accumulate": lambda arch, seed: accumulate_streams(arch, _product(arch, seed)),
    "requantize": lambda arch, seed: requantize_vectors(arch, beats=200, seed=seed),
    "dequantize": lambda arch, seed: dequantize_vectors(arch, rows=12, seed=seed),
    "mac": lambda arch, seed: StreamVectors.through(*mac_stimuli(arch, sums=60, seed=seed)),
    "mxdot": lambda arch, seed: StreamVectors.through(*dot_stimuli(arch, sums=24, seed=seed)),
}
