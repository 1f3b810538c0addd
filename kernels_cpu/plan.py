"""A compressed BERT-type encoder compiled once: weights packed, constants checked, buffers kept from call to call.

    plan = EncoderPlan(calibrate_encoder(compressed, feeds), threads=2)
    outputs = plan.run({"input_ids": ids, "attention_mask": mask})          # last_hidden_state, embedding

Nothing is compiled for a length: the kept tokens of all sequences lie one after another, each sequence from a multiple
of 16 on, in panels of 64 tokens (one of 32 where that is enough); masked tokens are left out, so that a batch of
unequal sequences costs what its tokens cost. The bits are those of `QuantizedEncoder.run`.
"""

import platform
from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.formats import StaticScale
from sparsefab.kernels_cpu.attention import BLOCK
from sparsefab.kernels_cpu.encoder import BLOCK_RECORD, PARTS, encoder
from sparsefab.kernels_cpu.encoder_buffers import EncoderBuffers
from sparsefab.kernels_cpu.encoder_products import encoder_products
from sparsefab.kernels_cpu.features import Level
from sparsefab.kernels_cpu.layer import LAYER
from sparsefab.kernels_cpu.normalize import NORM
from sparsefab.kernels_cpu.panels import aligned_zeros
from sparsefab.kernels_cpu.placement import Placement
from sparsefab.kernels_cpu.threads import check_threads
from sparsefab.models.evaluate.encoder import QuantizedEncoder
from sparsefab.models.evaluate.encoder_graph import Block, Norm

__all__ = ["EncoderPlan"]

Feeds = Mapping[str, NDArray[Any]]

# Of a block's products (queries, keys and values in one; out; up; down), the kind: codes, codes by a table, reals.
_KINDS = (0, 2, 1, 2)
# A float is rounded to a code by way of 2^22; what enters that must stay below.
_ROUNDABLE = 1 << 21


class EncoderPlan:
    """An encoder ready to run.

    Parameters
    ----------
    source : QuantizedEncoder        What it means.
    threads : int                    At most `available_threads()`; panels are shared out among them.
    level : Level | None             Instruction set of the products; None takes the best one that runs here.
    emulate : bool                   As for `Product`: for tests, slow.

    Raises
    ------
    ValueError                       If `threads` or `level` cannot be had here.
    ModelError                       If the shapes or scales are beyond what the kernels hold; the message says which.
    """

    def __init__(
        self, source: QuantizedEncoder, *, threads: int = 1, level: Level | None = None, emulate: bool = False
    ) -> None:
        check_threads(threads)
        self.source = source
        self._threads = threads
        _check_shapes(source)
        graph = source.graph
        self._products = [
            product for block in graph.blocks for product in encoder_products(source, block, level, emulate)
        ]
        self._keep: list[NDArray[Any]] = [*_norm_arrays(graph.norm)]
        self._norm = np.zeros(1, NORM)
        self._fill_norm(self._norm[0], graph.norm, source.input_scale(graph.blocks[0].query))
        self._blocks = np.zeros(len(graph.blocks), BLOCK_RECORD)
        self._scales = aligned_zeros((len(graph.blocks), 2, 64), np.float32)
        for index, block in enumerate(graph.blocks):
            self._fill_block(index, block)
        self._buffers: dict[int, EncoderBuffers] = {}
        self._chosen: dict[int, tuple[NDArray[np.void], NDArray[np.uint8], list[tuple[Any, ...]]]] = {}

    def run(self, feeds: Feeds) -> dict[str, NDArray[np.float32]]:
        """Run a batch.

        Parameters
        ----------
        feeds : input_ids, attention_mask integers[batch, sequence]     Tokens whose mask is 0 are left out.

        Returns
        -------
        last_hidden_state float32[batch, sequence, width] (masked tokens: 0), embedding float32[batch, width]

        Raises
        ------
        ValueError                   If an input is missing, has another shape, or names what the tables do not hold.
        """
        ids, mask = self._checked(feeds)
        placed = Placement.of(ids, mask)
        buffers = self._buffers_for(placed)
        embedding = np.zeros((len(ids), self.source.graph.width), np.float32)
        self._call(placed, buffers, embedding)
        hidden = np.zeros((*ids.shape, self.source.graph.width), np.float32)
        rows, columns = np.nonzero(mask)
        panel, lane = np.divmod(placed.slots[rows, columns], placed.width)
        hidden[rows, columns] = buffers.x[panel, lane // BLOCK, :, lane % BLOCK]
        return {"last_hidden_state": hidden, "embedding": embedding}

    def embed(self, feeds: Feeds) -> NDArray[np.float32]:
        """Run a batch and return its embeddings alone, float32[batch, width]."""
        ids, mask = self._checked(feeds)
        placed = Placement.of(ids, mask)
        embedding = np.zeros((len(ids), self.source.graph.width), np.float32)
        self._call(placed, self._buffers_for(placed), embedding)
        return embedding

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights, constants and embedding tables."""
        graph, total = self.source.graph, 0
        for product in self._products:
            total += sum(array.nbytes for array in product.prepared(64)[2].values())
        return total + graph.words.nbytes + graph.places.nbytes + self._scales.nbytes

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the buffers that calls so far needed."""
        return sum(buffers.nbytes for buffers in self._buffers.values())

    @property
    def kernels(self) -> dict[str, str]:
        """The kernel of each layer."""
        blocks = self.source.graph.blocks
        return {name: f"4x1 blocks, {self.level.value}" for block in blocks for name in block.layers}

    @property
    def level(self) -> Level:
        """Instruction set of the products."""
        return self._products[0].level

    def profile(self, feeds: Feeds, *, calls: int = 10) -> dict[str, float]:
        """Run a batch some times and return each part's share of the time, all threads together.

        Raises
        ------
        ValueError                   Where no cycle counter can be read: elsewhere than on x86.
        """
        if platform.machine() not in ("x86_64", "AMD64", "amd64"):
            raise ValueError(f"a profile needs x86's cycle counter, which {platform.machine()} does not have")
        ids, mask = self._checked(feeds)
        placed = Placement.of(ids, mask)
        buffers = self._buffers_for(placed)
        embedding = np.zeros((len(ids), self.source.graph.width), np.float32)
        spent = np.zeros((self._threads, len(PARTS)), np.int64)
        self._call(placed, buffers, embedding, spent)
        spent[:] = 0
        for _ in range(calls):
            self._call(placed, buffers, embedding, spent)
        shares = spent.sum(axis=0) / spent.sum()
        return dict(zip(PARTS, shares.tolist(), strict=True))

    def _call(
        self,
        placed: Placement,
        buffers: EncoderBuffers,
        embedding: NDArray[np.float32],
        spent: NDArray[np.int64] | None = None,
    ) -> None:
        graph = self.source.graph
        linears, choices, kernels = self._linears(placed.width)
        linears["scratch"] = buffers.portable.ctypes.data
        linears["room"], linears["room_bytes"] = buffers.room.ctypes.data, buffers.room.shape[1]
        model = (graph.words, graph.places, self._norm, self._blocks, linears, choices, self._scales,
                 graph.blocks[0].heads)  # fmt: skip
        held = (buffers.x, buffers.arranged, *buffers.of_tasks)
        compiled = encoder(*kernels, lanes=placed.width, parallel=self._threads > 1)
        if self._threads == 1:
            compiled(model, placed.tokens, held, embedding, spent)
            return
        before = numba.get_num_threads()
        numba.set_num_threads(self._threads)
        try:
            compiled(model, placed.tokens, held, embedding, spent)
        finally:
            numba.set_num_threads(before)

    def _linears(self, width: int) -> tuple[NDArray[np.void], NDArray[np.uint8], list[tuple[Any, ...]]]:
        """Records of all products for panels of a width, which kernel of its kind each takes, and the kernels.

        Chosen once for each width: to choose takes longer than a short sequence.
        """
        if width in self._chosen:
            return self._chosen[width]
        records, choices = np.zeros(len(self._products), LAYER), np.zeros(len(self._products), np.uint8)
        kinds: list[list[Any]] = [[], [], []]  # what `encoder` calls project, expand, multiply
        for index, product in enumerate(self._products):
            compiled, record, _ = product.prepared(width)
            known = kinds[_KINDS[index % len(_KINDS)]]
            if compiled not in known:
                known.append(compiled)
            records[index], choices[index] = record[0], known.index(compiled)
        self._chosen[width] = records, choices, [tuple(known) for known in kinds]
        return self._chosen[width]

    def _buffers_for(self, placed: Placement) -> EncoderBuffers:
        """Buffers that hold at least so many panels of that width, and attention's longest sequence."""
        panels, longest = len(placed.ids), -(-int(placed.lengths.max(initial=1)) // BLOCK) * BLOCK
        held = self._buffers.get(placed.width)
        if held is None or held.panels < panels or held.longest < longest:
            if held is not None:
                panels, longest = max(panels, held.panels), max(longest, held.longest)
            block = self.source.graph.blocks[0]
            inner = self.source.layer(block.up).tensor.shape[0]
            held = EncoderBuffers.of(
                width=self.source.graph.width, inner=inner, panels=panels, lanes=placed.width,
                longest=longest, tasks=self._threads,
                room=max(product.room_bytes(placed.width) for product in self._products),
            )  # fmt: skip
            self._buffers[placed.width] = held
        return held

    def _checked(self, feeds: Feeds) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        graph = self.source.graph
        for name in ("input_ids", "attention_mask"):
            if name not in feeds:
                raise ValueError(f"input {name!r} is missing")
            array = feeds[name]
            if array.dtype.kind not in "iu" or array.ndim != 2:
                raise ValueError(f"{name} must be integers [batch, sequence], not {array.dtype} of {array.shape}")
        ids, mask = np.asarray(feeds["input_ids"], np.int64), np.asarray(feeds["attention_mask"]) != 0
        if ids.shape != mask.shape or not ids.size:
            raise ValueError(f"input_ids {ids.shape} and attention_mask {mask.shape} must have one shape, not empty")
        if ids.shape[1] > graph.context:
            raise ValueError(f"a sequence may have {graph.context} tokens, not {ids.shape[1]}")
        kept = ids[mask]
        if kept.size and (kept.min() < 0 or kept.max() >= len(graph.words)):
            raise ValueError(f"token ids must be 0 to {len(graph.words) - 1}, not {kept.min()} to {kept.max()}")
        return ids, mask

    def _fill_norm(self, record: Any, norm: Norm, codes: StaticScale) -> None:
        gain, bias = _norm_arrays(norm)
        self._keep += [gain, bias]
        inverse = 1 / codes.scale
        reach = (np.abs(gain).max() * np.sqrt(len(gain)) + np.abs(bias).max()) * inverse
        if not reach < _ROUNDABLE:
            raise ModelError(f"normalized values of {reach:.3g} steps are beyond the {_ROUNDABLE} that can be rounded")
        record["gain"], record["bias"] = gain.ctypes.data, bias.ctypes.data
        record["share"], record["epsilon"] = 1 / len(gain), norm.epsilon
        record["inverse_scale"], record["zero_point"] = inverse, codes.zero_point

    def _fill_block(self, index: int, block: Block) -> None:
        source, record = self.source, self._blocks[index]
        softmax = source.softmax(index)
        for name in ("coarse", "multiplier", "fraction_bits"):
            record["attention"][name] = getattr(softmax, name)
        ratio = source.ratio(index)
        if not 128 * ratio < _ROUNDABLE:
            raise ModelError(f"block {index}: values of {128 * ratio:.3g} steps are beyond what can be rounded")
        record["attention"]["ratio"] = ratio
        record["attention"]["zero_point"] = source.input_scale(block.out).zero_point
        self._fill_norm(record["attention_norm"], block.attention_norm, source.input_scale(block.up))
        following = source.graph.blocks[min(index + 1, len(self._blocks) - 1)]
        self._fill_norm(record["output_norm"], block.output_norm, source.input_scale(following.query))
        self._scales[index, 0] = source.input_scale(block.out).scale
        self._scales[index, 1] = source.input_scale(block.down).scale


def _norm_arrays(norm: Norm) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.ascontiguousarray(norm.gain, np.float32), np.ascontiguousarray(norm.bias, np.float32)


def _check_shapes(source: QuantizedEncoder) -> None:
    graph = source.graph
    for block in graph.blocks:
        if graph.width % block.heads or graph.width // block.heads % 4:
            raise ModelError(f"{block.heads} heads of {graph.width} channels: a head must be a multiple of 4 wide")
        if block.heads != graph.blocks[0].heads:
            raise ModelError("all blocks of a compiled encoder have the same number of heads")
        inner = source.layer(block.up).tensor.shape[0]
        if inner % 4 or inner != source.layer(graph.blocks[0].up).tensor.shape[0]:
            raise ModelError(f"the inner width {inner} must be a multiple of 4, the same in all blocks")
