"""Attention and rotary positions, as in operator set 23."""

from dataclasses import dataclass

import numpy as np

from sparsefab.models.operators.attributes import (
    Array,
    Attributes,
    Inputs,
    Operator,
    integer,
    number,
    optional,
    required,
)

__all__ = ["ATTENTION"]

_ROWS = 128
"""Queries computed at once: a causal product skips the keys after them, and the scores stay in the cache."""

_ATTENTION_ATTRIBUTES = {"is_causal", "kv_num_heads", "q_num_heads", "scale", "softcap", "softmax_precision"}


def _rotary(inputs: Inputs, attributes: Attributes) -> Array:
    """Rotate pairs of channels by the angle of the position; x is [batch, heads, sequence, head] or 3-D."""
    x, cos, sin, positions = required(inputs, 0), required(inputs, 1), required(inputs, 2), optional(inputs, 3)
    heads = _split_heads(x, integer(attributes, "num_heads", 0))
    if positions is not None:
        cos, sin = cos[positions], sin[positions]
    cos, sin = cos[:, None], sin[:, None]  # the same for every head
    width = integer(attributes, "rotary_embedding_dim", 0) or heads.shape[-1]
    half = width // 2
    y = heads.copy()
    if integer(attributes, "interleaved", 0):
        first, second, out_first, out_second = (array[..., start:width:2] for array in (heads, y) for start in (0, 1))
    else:
        first, second, out_first, out_second = (
            array[..., start : start + half] for array in (heads, y) for start in (0, half)
        )
    np.subtract(first * cos, second * sin, out=out_first)
    np.add(second * cos, first * sin, out=out_second)
    return _join_heads(y) if x.ndim == 3 else y


def _attention(inputs: Inputs, attributes: Attributes) -> Array | tuple[Array, ...]:
    """Scaled dot-product attention with shared key/value heads, mask, causality and a key/value cache."""
    query, key, value = (required(inputs, index) for index in range(3))
    mask, past_key, past_value = (optional(inputs, index) for index in range(3, 6))
    if optional(inputs, 6) is not None:
        raise ValueError("input nonpad_kv_seqlen is not supported")
    unknown = sorted(set(attributes) - _ATTENTION_ATTRIBUTES)
    if unknown:
        raise ValueError(f"attribute {unknown[0]} is not supported")
    q = _split_heads(query, integer(attributes, "q_num_heads", 0))
    k = _split_heads(key, integer(attributes, "kv_num_heads", 0))
    v = _split_heads(value, integer(attributes, "kv_num_heads", 0))
    if past_key is not None and past_value is not None:
        k, v = np.concatenate([past_key, k], 2), np.concatenate([past_value, v], 2)
    scores = _Scores(
        scale=np.float32(number(attributes, "scale", q.shape[-1] ** -0.5)),
        cap=np.float32(number(attributes, "softcap", 0.0)),
        mask=mask,
        past=k.shape[2] - q.shape[2] if past_key is not None else 0,
        causal=bool(integer(attributes, "is_causal", 0)),
    )
    y = np.empty((q.shape[0], q.shape[2], q.shape[1], v.shape[-1]), np.float32)
    for start in range(0, q.shape[2], _ROWS):
        rows = slice(start, min(start + _ROWS, q.shape[2]))
        y[:, rows] = scores.attend(q, k, v, rows).transpose(0, 2, 1, 3)
    joined = y.reshape(*y.shape[:2], -1) if query.ndim == 3 else y.transpose(0, 2, 1, 3)
    return joined, k, v


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scores:
    """How the scores of queries and keys come about."""

    scale: np.float32
    cap: np.float32
    mask: Array | None
    past: int
    causal: bool

    def attend(self, q: Array, k: Array, v: Array, rows: slice) -> Array:
        """Attend from some rows of queries: [batch, heads, rows, head]; keys that none of them sees are left out."""
        batch, heads, _, width = q.shape
        kv_heads, count = k.shape[1], rows.stop - rows.start
        keys = min(k.shape[2], rows.stop + self.past) if self.causal else k.shape[2]
        shared = (batch, kv_heads, heads // kv_heads * count)  # the queries that read one key/value head, in a row
        scaled = (q[:, :, rows] * self.scale).reshape(*shared, width)
        scores = np.matmul(scaled, k[:, :, :keys].transpose(0, 1, 3, 2)).reshape(batch, heads, count, keys)
        if self.cap:
            scores = np.tanh(scores / self.cap) * self.cap
        if self.causal:
            future = np.arange(keys) > np.arange(rows.start, rows.stop)[:, None] + self.past
            np.copyto(scores, -np.inf, where=future)
        if self.mask is not None:
            mask = self.mask if self.mask.shape[-2] == 1 else self.mask[..., rows, :]
            scores = _masked(scores, mask[..., :keys])
        top = scores.max(-1, keepdims=True)
        scores -= np.where(np.isneginf(top), np.float32(0), top)
        np.exp(scores, out=scores)
        total = scores.sum(-1, keepdims=True)
        products = np.matmul(scores.reshape(*shared, keys), v[:, :, :keys]).reshape(batch, heads, count, -1)
        products /= np.where(total == 0, np.float32(1), total)
        return np.asarray(products)


def _masked(scores: Array, mask: Array) -> Array:
    if mask.shape[-1] < scores.shape[-1]:  # keys past the end of the mask are masked out
        missing = scores.shape[-1] - mask.shape[-1]
        fill = False if mask.dtype == np.bool_ else -np.inf
        mask = np.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, missing)], constant_values=fill)
    if mask.dtype == np.bool_:
        np.copyto(scores, -np.inf, where=~mask)
        return scores
    return np.asarray(scores + mask)


def _split_heads(x: Array, heads: int) -> Array:
    """[batch, sequence, heads * head] -> [batch, heads, sequence, head]; a 4-D array is that already."""
    if x.ndim == 4:
        return x
    if heads < 1 or x.shape[2] % heads:
        raise ValueError(f"a 3-D input of {x.shape[-1]} channels needs the number of heads as attribute, not {heads}")
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(0, 2, 1, 3)


def _join_heads(x: Array) -> Array:
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


ATTENTION: dict[str, Operator] = {"Attention": _attention, "RotaryEmbedding": _rotary}
