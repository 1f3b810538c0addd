"""What an exploration produces: evaluations of recipes, costs on targets, and the points made of both.

A `Job` is one recipe to evaluate, a `Case` one target, phase, batch and context to price it for. An `Evaluation` is a
finished job, a `Point` is an evaluation priced for a case: one row of `points.parquet`. A figure that is not known is
None, never zero. Each has a content key, so that two runs which ask for the same thing find each other's results.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "Accuracy",
    "Better",
    "Case",
    "Cost",
    "Device",
    "Evaluation",
    "Fidelity",
    "Interval",
    "Job",
    "LayerError",
    "Phase",
    "Point",
    "Provenance",
    "Status",
    "Support",
    "content_key",
]

Better = Literal["lower", "higher"]
Device = Literal["fpga", "cpu", "gpu"]
Phase = Literal["prefill", "decode"]
Fidelity = Literal["screen", "full"]
Status = Literal["ok", "failed", "absent"]
Support = Literal["native", "dequantized", "emulated", "absent"]
Provenance = Literal["measured here", "measured elsewhere", "calibrated", "modelled", "assumed"]


def content_key(**parts: object) -> str:
    """Hash named parts into 32 hexadecimal digits; equal parts give equal keys on every machine and in every order."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure with the bounds it is believed to lie in: low <= value <= high, all finite."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if not all(math.isfinite(number) for number in (self.value, self.low, self.high)):
            raise ValueError(f"an interval must be finite, not {self.value} [{self.low}, {self.high}]")
        if not self.low <= self.value <= self.high:
            raise ValueError(f"an interval must have low <= value <= high, not {self.value} [{self.low}, {self.high}]")

    def __neg__(self) -> "Interval":
        """The same figure with the opposite sign, its bounds exchanged."""
        return Interval(value=-self.value, low=-self.high, high=-self.low)

    def overlaps(self, other: "Interval") -> bool:
        """Whether the two cannot be told apart."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One recipe to evaluate on one slice of data.

    `model_hash` identifies the weights, `data_hash` the slice, `evaluator` the version of the code that gives the
    result. The key leaves out the recipe's name: the same text under another name is the same evaluation.
    """

    model: str
    model_hash: str
    recipe: str
    recipe_text: str
    data_hash: str
    evaluator: str
    fidelity: Fidelity = "screen"
    seed: int = 0

    @property
    def key(self) -> str:
        """Content key of the evaluation."""
        return content_key(
            model=self.model,
            model_hash=self.model_hash,
            recipe=self.recipe_text,
            data=self.data_hash,
            evaluator=self.evaluator,
            fidelity=self.fidelity,
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """What the evaluation of a recipe found; without a metric (None) only its bytes are known, from shapes alone.

    `delta` is value minus baseline with its paired-bootstrap interval, in the metric's own unit. `weight_bytes` counts
    the packed weights with all their metadata, and what stays in float. `details` is whatever pricing needs to know
    about the compressed model (JSON values); it travels with the evaluation through the store.
    """

    metric: str | None
    better: Better | None
    accuracy: Interval | None
    baseline: float | None
    delta: Interval | None
    protocol: str
    weight_bytes: int | None = None
    bits_per_weight: float | None = None
    float_layers: tuple[str, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        judged = (self.metric, self.better, self.accuracy, self.baseline, self.delta)
        if any(part is None for part in judged) and any(part is not None for part in judged):
            raise ValueError("metric, better, accuracy, baseline and delta must be given together or not at all")
        _check_json("details", self.details)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A finished job: its accuracy, or the reason why there is none."""

    job: Job
    accuracy: Accuracy | None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.accuracy is None and not self.reason:
            raise ValueError("reason must say why an evaluation has no accuracy")

    @property
    def failed(self) -> bool:
        """Whether there is no accuracy."""
        return self.accuracy is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One target and use to price a recipe for.

    `cost_hash` identifies the device file and the cost model's version, `arch` is the accelerator on an FPGA as TOML
    text, or empty where the cost model chooses; `kv` the key/value cache as `cost_models.kv` reads it, or empty for
    the device's own format.
    """

    target: str
    device: Device
    phase: Phase
    batch: int
    context: int
    cost_hash: str
    arch: str = ""
    kv: str = ""

    def __post_init__(self) -> None:
        for name, value in (("batch", self.batch), ("context", self.context)):
            if value < 1:
                raise ValueError(f"{name} must be positive, not {value}")

    def key(self, job: Job) -> str:
        """Content key of the point that `job` gives here."""
        return content_key(
            evaluation=job.key,
            target=self.target,
            phase=self.phase,
            batch=self.batch,
            context=self.context,
            cost=self.cost_hash,
            arch=self.arch,
            kv=self.kv,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a recipe costs in a case.

    What the figures count is a token, or what `item` says: an encoder may count sequences, a CNN images. `memory_bytes`
    is what must be resident on the device. `status` 'absent' with a `reason` says that the device has no kernel for the
    recipe; then there are no figures. Resources are of an FPGA only. `terms` keeps what the figures were made of (JSON
    values).
    """

    status: Status = "ok"
    reason: str = ""
    item: str = "token"
    latency_s: Interval | None = None
    throughput_tokens_per_s: Interval | None = None
    energy_per_token_j: Interval | None = None
    power_w: Interval | None = None
    price_per_million_tokens_usd: Interval | None = None
    memory_bytes: Interval | None = None
    lut: Interval | None = None
    ff: Interval | None = None
    dsp: Interval | None = None
    bram18: Interval | None = None
    uram: Interval | None = None
    support: Support | None = None
    provenance: Provenance = "modelled"
    terms: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_json("terms", self.terms)
        if self.status != "ok" and not self.reason:
            raise ValueError(f"reason must say why a cost is {self.status}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A recipe on a target in a phase, at a batch and a context: accuracy and cost with their bounds and origin."""

    key: str
    model: str
    recipe: str
    recipe_text: str
    target: str
    device: Device
    phase: Phase
    batch: int
    context: int
    fidelity: Fidelity
    status: Status
    reason: str
    metric: str | None
    better: Better | None
    accuracy: Interval | None
    baseline: float | None
    delta: Interval | None
    item: str
    latency_s: Interval | None
    throughput_tokens_per_s: Interval | None
    energy_per_token_j: Interval | None
    power_w: Interval | None
    price_per_million_tokens_usd: Interval | None
    memory_bytes: Interval | None
    weight_bytes: int | None
    bits_per_weight: float | None
    lut: Interval | None
    ff: Interval | None
    dsp: Interval | None
    bram18: Interval | None
    uram: Interval | None
    support: Support | None
    provenance: Provenance
    protocol: str | None
    data_hash: str
    float_layers: tuple[str, ...]
    terms: Mapping[str, object]
    arch: str = ""
    kv: str = ""

    @classmethod
    def of(cls, evaluation: Evaluation, case: Case, cost: Cost) -> "Point":
        """Join an evaluation and its cost in a case; a failed evaluation makes a failed point whatever the cost."""
        job, found = evaluation.job, evaluation.accuracy
        return cls(
            key=case.key(job),
            model=job.model,
            recipe=job.recipe,
            recipe_text=job.recipe_text,
            target=case.target,
            device=case.device,
            phase=case.phase,
            batch=case.batch,
            context=case.context,
            fidelity=job.fidelity,
            status="failed" if found is None else cost.status,
            reason=evaluation.reason if found is None else cost.reason,
            metric=found.metric if found else None,
            better=found.better if found else None,
            accuracy=found.accuracy if found else None,
            baseline=found.baseline if found else None,
            delta=found.delta if found else None,
            item=cost.item,
            latency_s=cost.latency_s,
            throughput_tokens_per_s=cost.throughput_tokens_per_s,
            energy_per_token_j=cost.energy_per_token_j,
            power_w=cost.power_w,
            price_per_million_tokens_usd=cost.price_per_million_tokens_usd,
            memory_bytes=cost.memory_bytes,
            weight_bytes=found.weight_bytes if found else None,
            bits_per_weight=found.bits_per_weight if found else None,
            lut=cost.lut,
            ff=cost.ff,
            dsp=cost.dsp,
            bram18=cost.bram18,
            uram=cost.uram,
            support=cost.support,
            provenance=cost.provenance,
            protocol=found.protocol if found else None,
            data_hash=job.data_hash,
            float_layers=found.float_layers if found else (),
            terms=dict(cost.terms),
            arch=case.arch,
            kv=case.kv,
        )

    @property
    def loss(self) -> Interval | None:
        """How much worse than the baseline, whichever way the metric counts: positive is worse."""
        if self.delta is None:
            return None
        return self.delta if self.better == "lower" else -self.delta


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """One layer under one recipe: ||W - W'|| / ||W||, and what it takes."""

    recipe: str
    layer: str
    relative_error: float
    bits_per_weight: float


def _check_json(name: str, value: Mapping[str, object]) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must hold JSON values only: {error}") from error
