"""A compressed BERT-type encoder compiled once: weights packed, constants checked, buffers kept from call to call.

    plan = EncoderPlan(calibrate_encoder(compressed, feeds), threads=2)
    outputs = plan.run({"input_ids": ids, "attention_mask": mask})          # last_hidden_state, embedding

Nothing is compiled for a length: the kept tokens of all sequences lie one after another, each sequence from a multiple
of 16 on, in panels of 64 tokens (one of 32 where that is enough); masked tokens are left out, so that a batch of
unequal sequences costs what its tokens cost. The bits are those of `QuantizedEncoder.run`.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError, ModelError
from sparsefab.formats import QuantTensor, StaticScale, Vnni4x1, pack
from sparsefab.formats.requantize import Requantizer
from sparsefab.kernels_cpu.attention import BLOCK, scratch_bytes
from sparsefab.kernels_cpu.encoder import BLOCK_RECORD, PARTS, encoder
from sparsefab.kernels_cpu.features import Level
from sparsefab.kernels_cpu.layer import LAYER
from sparsefab.kernels_cpu.normalize import NORM
from sparsefab.kernels_cpu.panels import aligned_zeros
from sparsefab.kernels_cpu.spmm import BlockWeights, Codes, Product, Reals
from sparsefab.kernels_cpu.threads import check_threads
from sparsefab.models.evaluate.encoder import ENTERING, PROJECTED, QuantizedEncoder, gelu_table, requantizer_of
from sparsefab.models.evaluate.encoder_graph import Block, Norm
from sparsefab.models.evaluate.runner import static_bias

__all__ = ["EncoderPlan"]

Feeds = Mapping[str, NDArray[Any]]

# Of a block's products (queries, keys and values in one; out; up; down), the kind: codes, codes by a table, reals.
_KINDS = (0, 2, 1, 2)
# A float is rounded to a code by way of 2^22; what enters that must stay below.
_ROUNDABLE = 1 << 21
# The power of two of a score is made in the exponent of a float, which must not run out.
_LARGEST_UNIT = 64.0


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
        self._products = [product for block in graph.blocks for product in _products(source, block, level, emulate)]
        self._keep: list[NDArray[Any]] = [*_norm_arrays(graph.norm)]
        self._norm = np.zeros(1, NORM)
        self._fill_norm(self._norm[0], graph.norm, source.input_scale(graph.blocks[0].query))
        self._blocks = np.zeros(len(graph.blocks), BLOCK_RECORD)
        self._scales = aligned_zeros((len(graph.blocks), 2, 64), np.float32)
        for index, block in enumerate(graph.blocks):
            self._fill_block(index, block)
        self._buffers: dict[int, _Buffers] = {}

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
        placed = _Placed.of(ids, mask)
        buffers = self._buffers_for(placed)
        embedding = np.zeros((len(ids), self.source.graph.width), np.float32)
        self._call(placed, buffers, embedding)
        hidden = np.zeros((*ids.shape, self.source.graph.width), np.float32)
        rows, columns = np.nonzero(mask)
        panel, lane = np.divmod(placed.slots[rows, columns], placed.width)
        hidden[rows, columns] = buffers.x[panel, :, lane]
        return {"last_hidden_state": hidden, "embedding": embedding}

    def embed(self, feeds: Feeds) -> NDArray[np.float32]:
        """Run a batch and return its embeddings alone, float32[batch, width]."""
        ids, mask = self._checked(feeds)
        placed = _Placed.of(ids, mask)
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
        placed = _Placed.of(ids, mask)
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
        placed: "_Placed",
        buffers: "_Buffers",
        embedding: NDArray[np.float32],
        spent: NDArray[np.int64] | None = None,
    ) -> None:
        graph = self.source.graph
        linears, choices, kernels = self._linears(placed.width)
        linears["scratch"] = buffers.portable.ctypes.data
        model = (graph.words, graph.places, self._norm, self._blocks, linears, choices, self._scales,
                 graph.blocks[0].heads)  # fmt: skip
        held = (buffers.x, buffers.projected, *buffers.of_tasks)
        compiled = encoder(*kernels, parallel=self._threads > 1)
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
        """Records of all products for panels of a width, which kernel of its kind each takes, and the kernels."""
        records, choices = np.zeros(len(self._products), LAYER), np.zeros(len(self._products), np.uint8)
        kinds: list[list[Any]] = [[], [], []]  # what `encoder` calls project, expand, multiply
        for index, product in enumerate(self._products):
            compiled, record, _ = product.prepared(width)
            known = kinds[_KINDS[index % len(_KINDS)]]
            if compiled not in known:
                known.append(compiled)
            records[index], choices[index] = record[0], known.index(compiled)
        return records, choices, [tuple(known) for known in kinds]

    def _buffers_for(self, placed: "_Placed") -> "_Buffers":
        """Buffers that hold at least so many panels of that width, and attention's longest sequence."""
        panels, longest = len(placed.ids), -(-int(placed.lengths.max(initial=1)) // BLOCK) * BLOCK
        held = self._buffers.get(placed.width)
        if held is None or held.panels < panels or held.longest < longest:
            if held is not None:
                panels, longest = max(panels, held.panels), max(longest, held.longest)
            block = self.source.graph.blocks[0]
            inner = self.source.layer(block.up).tensor.shape[0]
            held = _Buffers.of(
                self.source.graph.width, inner, block.heads, panels, placed.width, longest, self._threads
            )
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
        record["attention"]["unit"], record["attention"]["least"] = source.unit(index), source.least(index)
        if not source.unit(index) < _LARGEST_UNIT:
            raise ModelError(f"block {index}: one unit of a score is {source.unit(index):.3g} octaves, too many")
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Placed:
    """Where each kept token of a batch lies: token slots, panel by panel.

    slots : int64[batch, sequence]      Slot of a kept token; anything for the others.
    """

    width: int
    ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    firsts: NDArray[np.int64]
    lasts: NDArray[np.int64]
    slots: NDArray[np.int64]

    @classmethod
    def of(cls, ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> "_Placed":
        lengths = mask.sum(axis=1, dtype=np.int64)
        room = -(-lengths // BLOCK) * BLOCK
        ends = np.cumsum(room)
        starts = ends - room
        width = 32 if ends[-1] <= 32 else 64
        panels = max(1, -(-int(ends[-1]) // width))
        slots = starts[:, None] + np.cumsum(mask, axis=1) - 1
        flat_ids, positions = np.full(panels * width, -1, np.int32), np.zeros(panels * width, np.int32)
        flat_ids[slots[mask]] = ids[mask]
        positions[slots[mask]] = np.nonzero(mask)[1]
        edges = width * np.arange(panels + 1)
        return cls(
            width=width,
            ids=flat_ids.reshape(panels, width),
            positions=positions.reshape(panels, width),
            starts=starts,
            lengths=lengths,
            firsts=np.searchsorted(ends, edges[:-1], side="right"),
            lasts=np.searchsorted(starts, edges[1:], side="left"),
            slots=slots,
        )

    @property
    def tokens(self) -> tuple[NDArray[Any], ...]:
        """What the kernel takes."""
        return self.ids, self.positions, self.starts, self.lengths, self.firsts, self.lasts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Buffers:
    """Memory of a plan for panels of one width; see `encoder.encoder`."""

    x: NDArray[np.float32]
    projected: NDArray[np.int8]
    of_tasks: tuple[NDArray[Any], ...]
    portable: NDArray[np.int32]
    longest: int

    @classmethod
    def of(cls, width: int, inner: int, heads: int, panels: int, lanes: int, longest: int, tasks: int) -> "_Buffers":
        scratch = -(-scratch_bytes(longest, width // heads) // 64) * 64
        hidden = aligned_zeros((tasks, inner, lanes), np.int8)
        return cls(
            x=aligned_zeros((panels, width, lanes), np.float32),
            projected=aligned_zeros((2, panels, 3 * width, lanes), np.int8),
            of_tasks=(
                aligned_zeros((tasks, width, lanes), np.uint8),
                aligned_zeros((tasks, width, lanes), np.uint8),
                hidden,
                hidden.view(np.uint8),
                aligned_zeros((tasks, width, lanes), np.float32),
                aligned_zeros((tasks, scratch), np.uint8),
            ),
            portable=aligned_zeros((tasks, 4, 64), np.int32),
            longest=longest,
        )

    @property
    def panels(self) -> int:
        """How many it holds."""
        return len(self.x)

    @property
    def nbytes(self) -> int:
        """All of it; the two views of the inner codes are one."""
        parts: tuple[NDArray[Any], ...] = (self.x, self.projected, *self.of_tasks, self.portable)
        return sum(int(part.nbytes) for part in parts) - int(self.of_tasks[3].nbytes)


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


def _products(source: QuantizedEncoder, block: Block, level: Level | None, emulate: bool) -> list[Product]:
    """The products of a block: queries, keys and values in one, out, up, down."""
    index = source.graph.blocks.index(block)
    scales = source.scales[index]
    entering = requantizer_of(source.layer(block.up), scales.gelu, ENTERING)
    table = gelu_table(scales.gelu, source.input_scale(block.down), tanh=block.tanh)
    first = [(block.query, scales.query), (block.key, scales.key), (block.value, scales.value)]
    projections = [
        (name, requantizer_of(source.layer(name), StaticScale(scale=scale, zero_point=0), PROJECTED))
        for name, scale in first
    ]
    return [
        _coded(source, projections, level, emulate, None),
        _real(source, block.out, level, emulate),
        _coded(source, [(block.up, entering)], level, emulate, table),
        _real(source, block.down, level, emulate),
    ]


def _coded(
    source: QuantizedEncoder,
    parts: list[tuple[str, Requantizer]],
    level: Level | None,
    emulate: bool,
    table: NDArray[np.uint8] | None,
) -> Product:
    """One product of layers that read the same codes, their rows one after another."""
    first = parts[0][1]
    requantizer = Requantizer(
        multipliers=np.concatenate([constants.multipliers for _, constants in parts]),
        shifts=np.concatenate([constants.shifts for _, constants in parts]),
        zero_point=first.zero_point,
        code_min=first.code_min,
        code_max=first.code_max,
    )
    weights = _stacked([_weights(source.layer(name).tensor) for name, _ in parts])
    return Product(
        weights,
        Codes(requantizer=requantizer, signed=True, table=table),
        bias=np.concatenate([_bias(source, name) for name, _ in parts]),
        zero_point=source.input_scale(parts[0][0]).zero_point,
        level=level,
        emulate=emulate,
    )


def _real(source: QuantizedEncoder, name: str, level: Level | None, emulate: bool) -> Product:
    tensor = source.layer(name).tensor
    return Product(
        _weights(tensor),
        Reals(row_scales=tensor.accumulator_scale),
        bias=_bias(source, name),
        zero_point=source.input_scale(name).zero_point,
        level=level,
        emulate=emulate,
    )


def _bias(source: QuantizedEncoder, name: str) -> NDArray[np.int64]:
    return static_bias(source.layer(name), source.compressed.model.bias(name))


def _weights(tensor: QuantTensor) -> BlockWeights:
    """A matrix in 4x1 blocks whatever its pattern: all layers of a plan read one layout of activations."""
    if tensor.group_multipliers is not None:
        raise LayoutError("block kernels hold one scale a row, not group multipliers")
    return BlockWeights.from_packed(pack(tensor, Vnni4x1()))


def _stacked(parts: list[BlockWeights]) -> BlockWeights:
    """Matrices of whole groups of rows, one below the other."""
    if len(parts) == 1:
        return parts[0]
    counts = np.cumsum([0, *(part.ptr[-1] for part in parts)])
    ptr = [parts[0].ptr[:1], *(part.ptr[1:] + count for part, count in zip(parts, counts, strict=False))]
    return BlockWeights(
        rows=sum(part.rows for part in parts),
        columns=parts[0].columns,
        ptr=np.concatenate(ptr),
        offsets=np.concatenate([part.offsets for part in parts]),
        values=np.concatenate([part.values for part in parts]),
    )
