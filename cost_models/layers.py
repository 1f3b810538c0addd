"""Weight layers of a workload as arrays, and the sums that every model makes of its layers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sparsefab.arch import AcceleratorArch
from sparsefab.cost_models.anchors import Calibration
from sparsefab.cost_models.assumptions import Configuration, assumptions
from sparsefab.cost_models.energy import power, price_per_million_tokens
from sparsefab.cost_models.kv import KvCache
from sparsefab.cost_models.result import Estimate, Figure, LayerEstimate, LayerPlan, Provenance, Uses
from sparsefab.targets import Device, MeasuredCpu
from sparsefab.workload import Activation, Attention, Convolution, Linear, Norm, Phase, Workload

__all__ = ["Options", "Priced", "Shapes", "assemble", "plan_for", "price_rest", "routed", "shapes_of", "total"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What an estimate may be told beside the workload, the plans and the device.

    kv : KvCache                        Format and compression of the key/value cache; default: the device's own.
    arch : AcceleratorArch | None       Accelerator on an FPGA; None: the largest that fits the board.
    measured : MeasuredCpu | None       Peaks of the CPU that is estimated; None: its specification.
    calibration : str | Configuration | None    A configuration fitted to a published point, by name ('flightllm').
    resident_experts : float            Share of the routed experts in the device's memory; others are fetched from the
                                        host when a token reaches them.
    anchors : Calibration | None        Products measured by the user; they go before the shipped ones.
    """

    kv: KvCache = field(default_factory=KvCache)
    arch: AcceleratorArch | None = None
    measured: MeasuredCpu | None = None
    calibration: str | Configuration | None = None
    resident_experts: float = 1.0
    anchors: Calibration | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.resident_experts <= 1.0:
            raise ValueError(f"resident_experts must lie in [0, 1], not {self.resident_experts}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shapes:
    """Products [m, k] x [k, n] of the weight layers, `copies` of each (groups of a convolution); float64[layers]."""

    layers: tuple[Linear | Convolution, ...]
    m: Floats
    n: Floats
    k: Floats
    copies: Floats
    inputs: Floats = field(default_factory=lambda: np.zeros(0))
    visits: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def macs(self) -> Floats:
        """Dense multiply-adds of each layer, when it is reached."""
        return self.m * self.n * self.k * self.copies


def shapes_of(workload: Workload, phase: Phase) -> Shapes:
    """Return the products of a phase; a convolution has one row an output pixel.

    `inputs` counts the values each layer reads once: m * k for a linear layer, the feature map for a convolution.
    `visits` is the share of passes in which any token reaches a layer, 1 but for routed experts, whose `m` is the mean
    number of tokens in such a pass (tokens choose independently).
    """
    layers = tuple(workload.weight_layers())
    rows = []
    for layer in layers:
        out, columns = layer.weight_shape
        if isinstance(layer, Linear):
            # the output projection is read at the last position of a sequence only
            tokens = phase.batch if layer.head and workload.family == "decoder" else phase.tokens
            visits = 1.0 - (1.0 - layer.active) ** tokens
            each = tokens * layer.active / visits
            rows.append((each, out, columns, 1, each * columns, visits))
        else:
            pixels = phase.tokens * layer.out_height * layer.out_width
            area = layer.stride[0] * layer.stride[1]
            inputs = min(pixels * columns * layer.groups, pixels * area * layer.in_channels)
            rows.append((pixels, out // layer.groups, columns, layer.groups, inputs, 1.0))
    table = np.asarray(rows, np.float64).reshape(-1, 6).T
    return Shapes(layers=layers, m=table[0], n=table[1], k=table[2], copies=table[3], inputs=table[4], visits=table[5])


def plan_for(plans: Mapping[str, LayerPlan], layer: Linear | Convolution) -> LayerPlan:
    """Return a layer's plan, float if it has none; checks that the plan's matrix is this layer's.

    Raises
    ------
    ValueError              If plan and layer differ in shape.
    """
    plan = plans.get(layer.name, LayerPlan())
    if plan.spec is not None and (plan.spec.rows, plan.spec.columns) != layer.weight_shape:
        raise ValueError(
            f"plans[{layer.name!r}] is of shape {(plan.spec.rows, plan.spec.columns)}, "
            f"the layer of {layer.weight_shape}"
        )
    return plan


def price_rest(
    workload: Workload, price: Callable[[Attention | Norm | Activation], LayerEstimate]
) -> dict[str, LayerEstimate]:
    """Price the layers without weights, each distinct one once: blocks repeat."""
    known: dict[tuple[object, ...], LayerEstimate] = {}
    result = {}
    for layer in workload.layers:
        if isinstance(layer, Attention):
            key: tuple[object, ...] = (layer.heads, layer.kv_heads, layer.head_dim, layer.causal)
        elif isinstance(layer, Norm | Activation):
            key = (type(layer), layer.width, layer.kind)
        else:
            continue
        if key not in known:
            known[key] = price(layer)
        result[layer.name] = known[key].renamed(layer.name)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """The layers of a workload priced on a device, before they are summed.

    resident_bytes : float          Held beside the weights of the layers: embeddings and caches.
    """

    layers: tuple[LayerEstimate, ...]
    resident_bytes: float
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    resources: Mapping[str, Figure] = field(default_factory=dict)


def routed(estimate: LayerEstimate, layer: Linear | Convolution, visits: float, options: Options) -> LayerEstimate:
    """Return the expected cost of a routed expert; any other layer as it is."""
    if isinstance(layer, Convolution) or layer.active >= 1.0:
        return estimate
    link = assumptions().placement.link_bytes_per_s
    return estimate.visited(visits, options.resident_experts, Figure.of(link.value, *link.bounds))


def assemble(device: Device, workload: Workload, phase: Phase, priced: Priced) -> Estimate:
    """Sum layers into an estimate: latency, throughput, power, energy, price. Bounds add: errors fully correlated."""
    layers = priced.layers
    uses = Uses(
        memory_s=sum(layer.uses.memory_s for layer in layers),
        compute_s=sum(layer.uses.compute_s for layer in layers),
        traffic_bytes=sum(layer.uses.traffic_bytes for layer in layers),
        resident_bytes=sum(layer.uses.resident_bytes for layer in layers) + priced.resident_bytes,
    )
    latency = Figure(
        value=sum(layer.latency_s.value for layer in layers),
        low=sum(layer.latency_s.low for layer in layers),
        high=sum(layer.latency_s.high for layer in layers),
    )
    terms: dict[str, float] = {}
    for layer in layers:
        for name, seconds in layer.terms_s.items():
            terms[name] = terms.get(name, 0.0) + seconds
    tier, made_of = Provenance.of_sum((layer.provenance, layer.latency_s.value) for layer in layers)
    return total(device, workload, phase, priced, latency, uses, terms, (tier, made_of))


def total(
    device: Device,
    workload: Workload,
    phase: Phase,
    priced: Priced,
    latency: Figure,
    uses: Uses,
    terms: Mapping[str, float],
    tier: tuple[Provenance, str],
) -> Estimate:
    """Return the estimate of sums over layers: what follows from a latency and what it used."""
    watts, static_w, how = power(device, uses.memory_s / latency.value, uses.compute_s / latency.value)
    tokens = phase.tokens
    rate = latency.per(tokens)
    note = f"board power is {how}; energy carries at least +-30 %"
    over = uses.resident_bytes / device.memory.capacity_bytes.value
    full = [f"needs {over:.1f} times the memory of one device; priced as if it fitted"] if over > 1.0 else []
    return Estimate(
        target=device.name,
        workload=workload.name,
        phase=phase,
        latency_s=latency,
        throughput_tokens_per_s=rate,
        energy_per_token_j=watts.times(latency).times(1.0 / tokens),
        static_energy_per_token_j=static_w * latency.value / tokens,
        power_w=watts,
        memory_bytes=Figure.exact(uses.resident_bytes),
        traffic_bytes=uses.traffic_bytes,
        terms_s=terms,
        provenance=tier[0],
        price_per_million_tokens_usd=price_per_million_tokens(device, rate, watts),
        resources=priced.resources,
        sources=tuple(dict.fromkeys([*priced.sources, *device.sources.values()])),
        notes=(*device.notes, f"latency: {tier[1]}", *priced.notes, note, *full),
        layers=priced.layers,
    )
