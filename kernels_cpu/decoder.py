"""A compressed LLaMA-type decoder ready to run: packed weights, a cache of keys and values, buffers kept.

    plan = DecoderPlan(compressed)
    logits = plan.feed(prompt_ids)                 # in buckets of up to 64 tokens; logits of the last one
    logits = plan.feed(np.array([token]))          # one more, against the cache
    plan.forget()                                  # start anew

The linear layers are exact integers, as in the bit-true evaluation; norms, rotations, softmax and the gate are float32
in an order of their own. Logits are those of the executor to float32's accuracy until one code rounds the other way;
others follow it. How far that goes is the model's own: BOUND is above what a relative change of 1e-6 of the embeddings
does to the bit-true logits of SmolLM2-135M in int8 (0.095 of their range; this plan's are off by 0.065).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import LayoutError
from sparsefab.kernels_cpu.decoder_products import Linears, Shared
from sparsefab.kernels_cpu.decoder_steps import attend, gate, normalize, quantize
from sparsefab.kernels_cpu.panels import aligned_zeros
from sparsefab.kernels_cpu.threads import check_threads
from sparsefab.models.compress import CompressedModel
from sparsefab.models.evaluate.decoder_graph import DecoderBlock, RmsNorm, find_decoder

__all__ = ["BOUND", "DecoderPlan"]

Floats = NDArray[np.float32]

BOUND = 0.15  # of the range of a token's logits
_BUCKET = 64  # tokens at once
_ROOM = 64  # tokens that a cache begins with; it doubles


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layer:
    """One block: layers that read one input in one product."""

    names: DecoderBlock
    project: Linears
    out: Linears
    open: Linears
    down: Linears


class DecoderPlan:
    """A decoder and the tokens it has read.

    Parameters
    ----------
    compressed : CompressedModel
    threads : int                    At most `available_threads()`; for large products.

    Raises
    ------
    ValueError                       If `threads` cannot be had here.
    ModelError                       If the graph is no LLaMA-type decoder, or layers are not int8 with dynamic int8.
    LayoutError                      If widths are no multiples of 16, or no kernel holds the weights.
    """

    def __init__(self, compressed: CompressedModel, *, threads: int = 1) -> None:
        check_threads(threads)
        self.graph = find_decoder(compressed.model)
        graph, self._width = self.graph, self.graph.words.shape[1]
        if self._width % 16 or graph.head_width % 16:
            raise LayoutError(f"{self._width} channels and heads of {graph.head_width} must be multiples of 16")
        shared = self._shared = Shared()
        self._layers = [
            _Layer(
                names=block,
                project=Linears(compressed, (block.query, block.key, block.value), threads=threads, shared=shared),
                out=Linears(compressed, (block.out,), threads=threads, shared=shared),
                open=Linears(compressed, (block.gate, block.up), threads=threads, shared=shared),
                down=Linears(compressed, (block.down,), threads=threads, shared=shared),
            )
            for block in graph.blocks
        ]
        self._head = Linears(compressed, (graph.head,), threads=threads, shared=shared)
        inner = self._layers[0].down.columns
        mixed = graph.heads * graph.head_width
        if any(layer.down.columns != inner or inner % 16 for layer in self._layers):
            raise LayoutError(f"the inner width {inner} must be a multiple of 16, the same in all blocks")
        self._x = aligned_zeros((_BUCKET, self._width), np.float32)
        self._mixed = aligned_zeros((_BUCKET, mixed), np.float32)
        self._codes = {size: aligned_zeros((_BUCKET, size), np.uint8) for size in {self._width, mixed, inner}}
        self._scales = aligned_zeros((_BUCKET,), np.float32)
        self._scratch = aligned_zeros((max(self._width, inner) + 16,), np.float32)
        self._keys = self._values = self._scores = np.zeros((0, 0, 0, 0), np.float32)
        self._grow(min(_ROOM, -(-graph.context // 16) * 16))
        self._position = 0

    @property
    def position(self) -> int:
        """Tokens read so far."""
        return self._position

    @property
    def context(self) -> int:
        """Tokens it may read."""
        return self.graph.context

    @property
    def kernels(self) -> dict[str, str]:
        """The kernel of each layer."""
        found = {self.graph.head: self._head.name}
        for layer in self._layers:
            names = layer.names
            found |= dict.fromkeys((names.query, names.key, names.value), layer.project.name)
            found |= {names.out: layer.out.name, names.down: layer.down.name}
            found |= dict.fromkeys((names.gate, names.up), layer.open.name)
        return found

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights and of the embedding table."""
        return self.graph.words.nbytes + sum(linears.nbytes for linears in self._all_linears())

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the cache and of the buffers."""
        buffers = [self._keys, self._values, self._scores, self._x, self._mixed, self._scratch, *self._codes.values()]
        return sum(buffer.nbytes for buffer in buffers) + self._shared.nbytes

    def forget(self) -> None:
        """Drop what was read."""
        self._position = 0

    def feed(self, ids: NDArray[np.integer]) -> Floats:
        """Read some more tokens and return the logits float32[vocabulary] after the last.

        Raises
        ------
        ValueError                   If there is no token, one is not in the vocabulary, or they exceed the context.
        """
        if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
            raise ValueError(f"ids must be integers [tokens], at least one, not {ids.dtype} of {ids.shape}")
        if ids.min() < 0 or ids.max() >= len(self.graph.words):
            raise ValueError(f"token ids must be 0 to {len(self.graph.words) - 1}, not {ids.min()} to {ids.max()}")
        if self._position + len(ids) > self.context:
            raise ValueError(f"a sequence may have {self.context} tokens, not {self._position + len(ids)}")
        last = self._x[:1]
        for start in range(0, len(ids), _BUCKET):
            last = self._read(ids[start : start + _BUCKET])
        head = self._x[:1]
        head[:] = last
        logits: Floats = self._head.run(*self._normalized(head, None, self.graph.norm, self._head.offset))[0]
        return logits.copy()

    def _read(self, ids: NDArray[np.integer]) -> Floats:
        """Read a bucket; return what leaves the last block for its last token, float32[1, width]."""
        count, position = len(ids), self._position
        while position + count > self._keys.shape[3]:
            self._grow(2 * self._keys.shape[3])
        x, mixed = self._x[:count], self._mixed[:count]
        x[:] = self.graph.words[ids]
        added: Floats | None = None
        for index, layer in enumerate(self._layers):
            codes = self._normalized(x, added, layer.names.attention_norm, layer.project.offset)
            projected = layer.project.run(*codes)
            attend(projected, self.graph.cos, self.graph.sin, position, self._keys[index], self._values[index],
                   self.graph.heads, mixed, self._scores)  # fmt: skip
            target, scales = self._codes[mixed.shape[1]][:count], self._scales[:count]
            quantize(mixed, target, scales, layer.out.offset, self._scratch)
            codes = self._normalized(x, layer.out.run(target, scales), layer.names.output_norm, layer.open.offset)
            both = layer.open.run(*codes)
            target = self._codes[both.shape[1] // 2][:count]
            gate(both, target, scales, layer.down.offset, self._scratch)
            added = layer.down.run(target, scales)
        self._position += count
        return x[-1:] if added is None else x[-1:] + added[-1:]

    def _normalized(
        self, x: Floats, added: Floats | None, norm: RmsNorm, offset: int
    ) -> tuple[NDArray[np.uint8], Floats]:
        codes, scales = self._codes[self._width][: len(x)], self._scales[: len(x)]
        normalize(x, added, norm.gain, np.float32(norm.epsilon), codes, scales, offset, self._scratch)
        return codes, scales

    def _grow(self, room: int) -> None:
        """Make the cache hold `room` tokens, a multiple of 16; what it holds stays."""
        graph, blocks = self.graph, len(self.graph.blocks)
        keys = aligned_zeros((blocks, graph.kv_heads, graph.head_width, room), np.float32)
        values = aligned_zeros((blocks, graph.kv_heads, room, graph.head_width), np.float32)
        if self._keys.size:
            keys[..., : self._keys.shape[3]] = self._keys
            values[:, :, : self._values.shape[2]] = self._values
        self._keys, self._values = keys, values
        self._scores = aligned_zeros((room + 16,), np.float32)

    def _all_linears(self) -> Iterator[Linears]:
        for layer in self._layers:
            yield from (layer.project, layer.out, layer.open, layer.down)
        yield self._head
