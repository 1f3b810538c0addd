"""What an estimate is: figures with bounds, terms kept apart, provenance, sources; the same for every target."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from sparsefab.workload import Phase

if TYPE_CHECKING:
    from sparsefab.formats.tensors import TensorSpec

__all__ = ["Estimate", "Figure", "LayerEstimate", "LayerPlan", "Provenance", "Support", "Uses", "report_json"]


class Provenance(StrEnum):
    """Where a number comes from, best first."""

    MEASURED_HERE = "measured here"
    MEASURED_ELSEWHERE = "measured elsewhere"
    CALIBRATED = "calibrated"
    MODELLED = "modelled"
    ASSUMED = "assumed"

    @staticmethod
    def of_sum(parts: "Iterable[tuple[Provenance, float]]") -> "tuple[Provenance, str]":
        """Return the tier of a sum and its make-up in words.

        The tier is the best one such that it and better ones cover three quarters of the sum.
        """
        shares = dict.fromkeys(Provenance, 0.0)
        for tier, amount in parts:
            shares[tier] += amount
        total = sum(shares.values())
        if total <= 0.0:
            return Provenance.ASSUMED, "nothing timed"
        words = ", ".join(f"{share / total:.0%} {tier.value}" for tier, share in shares.items() if share > 0.0)
        covered = 0.0
        for tier, share in shares.items():
            covered += share
            if covered >= 0.75 * total:
                return tier, words
        return Provenance.ASSUMED, words


class Support(StrEnum):
    """How a device runs a format. ABSENT is never priced: the models raise TargetError instead."""

    NATIVE = "native"
    DEQUANTIZED = "dequantized"
    EMULATED = "emulated"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A value between two bounds; the unit is in the name of what holds it."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"a figure needs low <= value <= high, not {self.low:g}, {self.value:g}, {self.high:g}")

    @staticmethod
    def exact(value: float) -> "Figure":
        """A counted number: no spread."""
        return Figure(value=value, low=value, high=value)

    @staticmethod
    def of(a: float, b: float, c: float) -> "Figure":
        """Make a figure of the value `a` and two bounds in either order, widened to hold the value."""
        return Figure(value=a, low=min(a, b, c), high=max(a, b, c))

    def plus(self, other: "Figure") -> "Figure":
        """Sum with the bounds added: errors taken as fully correlated, which is the cautious reading."""
        return Figure(value=self.value + other.value, low=self.low + other.low, high=self.high + other.high)

    def times(self, factor: "float | Figure") -> "Figure":
        """Product with a non-negative factor."""
        other = Figure.exact(factor) if isinstance(factor, int | float) else factor
        return Figure(value=self.value * other.value, low=self.low * other.low, high=self.high * other.high)

    def per(self, numerator: float) -> "Figure":
        """numerator / figure: a latency into a rate."""
        return Figure(value=numerator / self.value, low=numerator / self.high, high=numerator / self.low)

    def to_json(self) -> dict[str, float]:
        """{value, low, high}."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlan:
    """How one layer is compressed, as a cost model needs it.

    spec : TensorSpec | None        None: the weights stay in float.
    activation : str                Format name of the activations ('int8', 'uint8', 'e4m3'), or 'float'.
    """

    spec: "TensorSpec | None" = None
    activation: str = "float"


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """Busy seconds at data-sheet bandwidth and peak, bytes moved in a pass, bytes of weights resident."""

    memory_s: float = 0.0
    compute_s: float = 0.0
    traffic_bytes: float = 0.0
    resident_bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerEstimate:
    """One layer of an estimate. Terms are busy times of overlapping units: the latency is not their sum.

    terms_s : compute, one term a memory level ('hbm', 'dram'), launch, fill, special functions; what applies.
    uses : what the layer adds to the board's power and memory.
    """

    name: str
    kind: str
    support: Support
    kernel: str
    latency_s: Figure
    terms_s: Mapping[str, float]
    memory_bytes: float
    macs: float
    provenance: Provenance
    note: str = ""
    uses: Uses = field(default_factory=Uses)

    @property
    def bound(self) -> str:
        """The largest term."""
        return max(self.terms_s, key=lambda term: self.terms_s[term]) if self.terms_s else "none"

    def renamed(self, name: str) -> "LayerEstimate":
        """Return the same estimate for an equal layer."""
        return replace(self, name=name)

    def visited(self, share: float, resident: float, link_bytes_per_s: "Figure") -> "LayerEstimate":
        """Return the expected cost of a routed expert.

        Parameters
        ----------
        share : float                   Of the passes in which a token reaches it; the rest costs nothing.
        resident : float                Probability that its weights are in the device's memory; else they are fetched.
        link_bytes_per_s : Figure       Rate at which they come from the host.
        """
        fetched = share * (1.0 - resident) * self.uses.resident_bytes
        link = Figure(
            value=fetched / link_bytes_per_s.value,
            low=fetched / link_bytes_per_s.high,
            high=fetched / link_bytes_per_s.low,
        )
        terms = {name: seconds * share for name, seconds in self.terms_s.items()}
        uses = Uses(
            memory_s=self.uses.memory_s * share,
            compute_s=self.uses.compute_s * share,
            traffic_bytes=self.uses.traffic_bytes * share,
            resident_bytes=self.uses.resident_bytes * resident,
        )
        return replace(
            self,
            latency_s=self.latency_s.times(share).plus(link),
            terms_s=terms | ({"link": link.value} if fetched else {}),
            memory_bytes=self.memory_bytes * share,
            macs=self.macs * share,
            note="; ".join(part for part in (self.note, f"routed: reached in {share:.0%} of passes") if part),
            uses=uses,
        )

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "support": self.support.value,
            "kernel": self.kernel,
            "latency_s": self.latency_s.to_json(),
            "terms_s": dict(self.terms_s),
            "bound": self.bound,
            "memory_bytes": self.memory_bytes,
            "macs": self.macs,
            "provenance": self.provenance.value,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The cost of one phase of one workload on one target.

    Parameters
    ----------
    latency_s : Figure              One pass: a decode step of the whole batch, or a prefill.
    throughput_tokens_per_s : Figure    Tokens (images for a CNN) of all sequences together.
    energy_per_token_j : Figure     Board energy a token; `static_energy_per_token_j` is the part drawn at rest.
    memory_bytes : Figure           Weights with all metadata, caches and activations that must be resident.
    traffic_bytes : float           Read and written in one pass.
    price_per_million_tokens_usd : Figure | None    None without a dated price.
    resources : Mapping[str, Figure]                FPGA blocks used; empty elsewhere.
    terms_s : Mapping[str, float]   Sums over the layers' terms.
    """

    target: str
    workload: str
    phase: Phase
    latency_s: Figure
    throughput_tokens_per_s: Figure
    energy_per_token_j: Figure
    static_energy_per_token_j: float
    power_w: Figure
    memory_bytes: Figure
    traffic_bytes: float
    terms_s: Mapping[str, float]
    provenance: Provenance
    price_per_million_tokens_usd: Figure | None = None
    resources: Mapping[str, Figure] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    layers: tuple[LayerEstimate, ...] = ()

    def to_json(self, *, layers: bool = True) -> dict[str, object]:
        """Plain values for JSON; figures are {value, low, high}."""
        price = self.price_per_million_tokens_usd
        result: dict[str, object] = {
            "target": self.target,
            "workload": self.workload,
            "phase": {"kind": self.phase.kind, "batch": self.phase.batch, "context": self.phase.context},
            "latency_s": self.latency_s.to_json(),
            "throughput_tokens_per_s": self.throughput_tokens_per_s.to_json(),
            "energy_per_token_j": self.energy_per_token_j.to_json(),
            "static_energy_per_token_j": self.static_energy_per_token_j,
            "power_w": self.power_w.to_json(),
            "memory_bytes": self.memory_bytes.to_json(),
            "traffic_bytes": self.traffic_bytes,
            "price_per_million_tokens_usd": None if price is None else price.to_json(),
            "resources": {name: figure.to_json() for name, figure in self.resources.items()},
            "terms_s": dict(self.terms_s),
            "provenance": self.provenance.value,
            "sources": list(self.sources),
            "notes": list(self.notes),
        }
        if layers:
            result["layers"] = [layer.to_json() for layer in self.layers]
        return result


def report_json(decode: Estimate | None, prefill: Estimate, *, layers: bool = False) -> dict[str, object]:
    """Join both phases as `sparsefab estimate --json` prints them.

    The top level is decode per token, `prefill` its own object. A model without a decode phase (encoder, CNN) has its
    one pass at the top level as well. `energy` carries the field names of MLCommons inference PR 2587.
    """
    top = prefill if decode is None else decode
    prefill_j = prefill.energy_per_token_j.times(prefill.phase.tokens)
    energy: dict[str, object] = {
        "backend": "model",
        "prefill_energy_joules": prefill_j.to_json(),
        "energy_per_token_joules": top.energy_per_token_j.to_json(),
        "static_energy_per_token_joules": top.static_energy_per_token_j,
    }
    if decode is not None:
        energy["generation_energy_joules"] = decode.energy_per_token_j.times(decode.phase.batch).to_json()
    return {**top.to_json(layers=layers), "prefill": prefill.to_json(layers=layers), "energy": energy}
