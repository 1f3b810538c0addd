"""Key/value caches: their format, what of them is kept, and what keeping less costs in extra work.

    KvCache.from_text("int4,group=64")              quantized, an fp16 scale and zero point a group
    KvCache.from_text("gear")                       a named scheme, at its paper's main setting
    KvCache.from_text("kvmerger,keep=0.35")         the same, changed

Extra work is counted in multiply-adds of the algorithms as published, not measured: no kernel of them was timed.
"""

from dataclasses import dataclass, fields, replace
from math import ceil

from sparsefab.errors import FormatError, TargetError
from sparsefab.formats.catalog import get_format
from sparsefab.workload import Attention, Phase, Workload

__all__ = ["PLAIN_BYTES", "SCHEMES", "KvCache", "cache_bytes"]

#: Bytes of a cached value in the device's own format, by its kind: fp16, fp32, int8.
PLAIN_BYTES = {"gpu": 2.0, "cpu": 4.0, "fpga": 1.0}

_SCALE_BYTES = 4.0  # fp16 scale and zero point of a group
_OUTLIER_BYTES = 4.0  # fp16 value and 16-bit index
_FLOATS = {"fp16": 2.0, "bf16": 2.0, "float16": 2.0, "bfloat16": 2.0, "fp32": 4.0, "float32": 4.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCache:
    """How keys and values of decoders are kept between steps; the defaults keep everything as the device does.

    Parameters
    ----------
    format : str | None         Of the stored values; None: the device's own (fp16 GPU, fp32 CPU, int8 FPGA).
    group : int | None          Values that share an fp16 scale and zero point; None: a scale a token and head.
    keep : float                Share of the tokens that is kept, the rest evicted or merged into their neighbours.
    budget : int | None         Most tokens that are kept.
    rank : float                Share of the channels that is kept (low-rank keys and values; the projection back is
                                absorbed into queries and outputs, so keys are stored before their rotation).
    window : int                Newest tokens that stay whole, in the device's own format.
    residual_rank : int         Rank a head of a low-rank correction of the quantization error.
    outliers : float            Share of the values that is kept apart, as fp16 with a 16-bit index.
    merge : bool                Tokens are merged by the similarity of their keys, which a prefill computes.
    """

    format: str | None = None
    group: int | None = None
    keep: float = 1.0
    budget: int | None = None
    rank: float = 1.0
    window: int = 0
    residual_rank: int = 0
    outliers: float = 0.0
    merge: bool = False

    def __post_init__(self) -> None:
        for name in ("keep", "rank"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"kv {name} must lie in (0, 1], not {getattr(self, name)}")
        if not 0.0 <= self.outliers < 1.0:
            raise ValueError(f"kv outliers must lie in [0, 1), not {self.outliers}")
        for name in ("group", "budget"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"kv {name} must be positive, not {value}")
        if self.window < 0 or self.residual_rank < 0:
            raise ValueError("kv window and residual_rank must not be negative")

    @staticmethod
    def from_text(text: str) -> "KvCache":
        """Read 'NAME[,key=value...]': NAME is a format or one of SCHEMES.

        Raises
        ------
        TargetError             If a part is unknown or out of range.
        """
        name, *parts = (part.strip() for part in text.split(","))
        cache = SCHEMES.get(name)
        if cache is None:
            cache = KvCache(format=name)
            try:
                cache.value_bytes(1.0)
            except FormatError as error:
                raise TargetError(f"kv: {error} (or a scheme: {', '.join(SCHEMES)})") from error
        kinds = {field.name: str(field.type) for field in fields(KvCache)}
        changes: dict[str, object] = {}
        for part in parts:
            key, _, value = part.partition("=")
            if key not in kinds or not value:
                raise TargetError(f"kv: {part!r} is not key=value with a key of {', '.join(kinds)}")
            try:
                changes[key] = _read(kinds[key], value)
            except ValueError as error:
                raise TargetError(f"kv: {key}: {error}") from error
        try:
            result = replace(cache, **changes)  # type: ignore[arg-type]  # read by the fields' kinds just above
            result.value_bytes(1.0)
        except ValueError as error:
            raise TargetError(str(error)) from error
        return result

    def value_bytes(self, plain: float) -> float:
        """Bytes of one stored value without scales; `plain` in the device's own format."""
        if self.format is None:
            return plain
        return _FLOATS[self.format] if self.format in _FLOATS else get_format(self.format).bits / 8.0

    def tokens(self, context: int) -> int:
        """Tokens that are kept of a context."""
        kept = max(1, ceil(context * self.keep))
        return kept if self.budget is None else min(kept, self.budget)

    def bytes_of(self, layer: Attention, context: int, plain: float) -> float:
        """Bytes of one sequence's cache in one layer, scales, indices and corrections included."""
        kept = self.tokens(context)
        whole = min(self.window, kept)
        packed, values = kept - whole, 2.0 * layer.kv_heads * layer.head_dim
        # formats of 16 bits and more need no scale
        scales = 0.0
        if self.value_bytes(plain) < 2.0 and self.format is not None:
            scales = 0.0 if self.group is None else _SCALE_BYTES / self.group
        stored = self.rank * (self.value_bytes(plain) + scales + self.outliers * _OUTLIER_BYTES)
        correction = 2.0 * self.residual_rank * 2.0 * layer.kv_heads * (packed + layer.head_dim if packed else 0)
        return whole * values * plain + packed * values * stored + correction

    def extra_macs(self, layer: Attention, phase: Phase) -> float:
        """Multiply-adds of one pass over all sequences beside QK and PV on the kept tokens."""
        if not layer.causal:
            return 0.0
        kept = self.tokens(phase.context)
        packed, width = max(kept - self.window, 0), layer.kv_heads * layer.head_dim
        if phase.kind == "decode":
            narrow = self.rank * width
            absorbed = 2.0 * layer.heads * (packed * max(narrow - layer.head_dim, 0.0) + narrow * layer.head_dim)
            low_rank = absorbed if self.rank < 1.0 else 0.0
            correction = 2.0 * layer.heads * self.residual_rank * (packed + layer.head_dim)
            return phase.batch * (low_rank + correction + 2.0 * layer.heads * self.outliers * packed * layer.head_dim)
        tokens = float(phase.tokens)
        compress = 2.0 * tokens * width * width * self.rank if self.rank < 1.0 else 0.0
        correction = 2.0 * 4.0 * tokens * width * self.residual_rank  # one subspace iteration for keys, one for values
        return compress + correction + (tokens * width if self.merge else 0.0)


#: Published schemes at the setting of their main table.
SCHEMES = {
    # GEAR (arXiv 2403.05527): 4-bit backbone, rank-4 correction a head, 2 % outliers, groups of 64
    "gear": KvCache(format="int4", group=64, residual_rank=4, outliers=0.02),
    # CSKV (arXiv 2409.10593): 80 % of the channels compressed away, a window of 32 tokens kept whole
    "cskv": KvCache(rank=0.2, window=32),
    # KVMerger (arXiv 2407.08454): half of the tokens kept, the rest merged by key similarity
    "kvmerger": KvCache(keep=0.5, merge=True),
    # EMS (arXiv 2412.08521): evict then merge into 256 tokens
    "ems": KvCache(budget=256, merge=True),
}


def cache_bytes(workload: Workload, phase: Phase, kv: KvCache, plain: float) -> float:
    """Bytes of the caches of all sequences of a phase."""
    return phase.batch * sum(
        kv.bytes_of(layer, phase.context, plain) for layer in workload.attentions() if layer.causal
    )


def _read(kind: str, value: str) -> object:
    if "bool" in kind:
        if value not in ("true", "false"):
            raise ValueError(f"must be true or false, not {value!r}")
        return value == "true"
    if "int" in kind:
        return int(value)
    return float(value) if "float" in kind else value
