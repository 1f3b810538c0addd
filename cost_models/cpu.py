"""CPU estimates: the machine's own kernels where they were timed, else peaks times the share that kernels reach.

Peaks are measured, or a specification with wider bounds. Kernels are timed with their weights in the cache; where a
model's weights do not fit it, a layer takes no less than reading them from memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sparsefab.cost_models.assumptions import assumptions
from sparsefab.cost_models.capability import activation_key, format_key
from sparsefab.cost_models.cpu_fit import cpu_fits, padded_tokens
from sparsefab.cost_models.kv import PLAIN_BYTES, cache_bytes
from sparsefab.cost_models.layers import (
    Options,
    Priced,
    Shapes,
    plan_for,
    price_rest,
    routed,
    shapes_of,
)
from sparsefab.cost_models.result import Figure, LayerEstimate, LayerPlan, Provenance, Support, Uses
from sparsefab.errors import TargetError
from sparsefab.formats.catalog import get_format
from sparsefab.formats.ints import IntFormat
from sparsefab.formats.layout import GroupRows, RowMajor, Vnni4x1, VnniNM, storage_layout
from sparsefab.formats.sparsity import NM, Block, Dense
from sparsefab.formats.tensors import TensorSpec
from sparsefab.targets import Device, MeasuredCpu, Quantity
from sparsefab.workload import Activation, Attention, Embedding, Norm, Phase, Workload

__all__ = ["Route", "price_cpu", "route"]

ASSUMED = "cost_models/data/assumptions.toml"
_FLOAT_BYTES = 4.0
_MASKED_DENSITY = 0.5  # up to it the kernels keep N:M packed; its twin is in kernels_cpu/layer_weights.py
_CACHE_GAIN = (
    1.8  # L3 against DRAM reads, one thread each (Emerald Rapids, own measurement): bound when weights fit the cache
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How the CPU runs a layer: kernel, bytes of its weights, share of the dense work."""

    kernel: str
    support: Support
    integer: bool
    weight_bytes: float
    work: float
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rates:
    """Peaks of the machine as (value, fast end, slow end), and their tier."""

    int8_op_per_s: tuple[float, float, float]
    fp32_op_per_s: tuple[float, float, float]
    bytes_per_s: tuple[float, float, float]
    cache_bytes: float
    tier: Provenance
    note: str


def _rates(device: Device, options: Options) -> _Rates:
    if options.measured is not None:
        peaks = max(options.measured.peaks, key=lambda item: item.threads)
        # where no kernel was timed, shares of peak of other machines' kernels stand in, as for a specification
        slow = 1.0 if cpu_fits(options.measured) else assumptions().cpu.specification_spread.value
        return _Rates(
            int8_op_per_s=(peaks.int8_op_per_s, peaks.int8_op_per_s, peaks.int8_op_per_s / slow),
            fp32_op_per_s=(peaks.fp32_op_per_s, peaks.fp32_op_per_s, peaks.fp32_op_per_s / slow),
            bytes_per_s=(peaks.memory_bytes_per_s, peaks.memory_bytes_per_s, peaks.memory_bytes_per_s / slow),
            cache_bytes=float(options.measured.last_level_cache_bytes or 0),
            tier=Provenance.CALIBRATED,
            note=f"peaks measured on {options.measured.name}, {options.measured.date}, {peaks.threads} threads",
        )
    if device.cpu is None:
        raise TargetError(f"{device.name} is not a CPU")
    spec, spread = device.cpu, assumptions().cpu.specification_spread.value
    low, high = spec.clock_hz.bounds

    def ends(per_cycle: float) -> tuple[float, float, float]:
        rate = per_cycle * spec.cores
        return rate * spec.clock_hz.value, rate * high, rate * low / spread

    bandwidth = device.memory.bandwidth_bytes_per_s.value
    int8, most = spec.int8_op_per_cycle_per_core.value, assumptions().cpu.kernel_int8_op_per_cycle.value
    note = "; int8 products on AMX tiles or AVX512-VNNI, whichever takes less time" if int8 > most else ""
    return _Rates(
        int8_op_per_s=ends(min(int8, most)),
        fp32_op_per_s=ends(spec.fp32_op_per_cycle_per_core.value),
        bytes_per_s=(bandwidth * 0.85, bandwidth, bandwidth / spread),
        cache_bytes=0.0,
        tier=Provenance.MODELLED,
        note=f"from specifications, not measured{note}",
    )


def _least_work(kernel: str, device: Device, options: Options) -> float:
    """Share of a matrix's products that take a kernel as long as all of them take on AMX tiles; 1 without AMX.

    Tiles multiply dense, at eight times the rate, so that weights of fewer zeros than this share are multiplied so.
    Kernels that were timed on a machine are fitted as they choose themselves.
    """
    own, measured = assumptions().cpu, options.measured
    most, rate = own.kernel_int8_op_per_cycle.value, 0.0
    if measured is not None:
        rate = own.tile_int8_op_per_cycle.value if measured.isa == "avx512-amx" and not cpu_fits(measured) else 0.0
    elif device.cpu is not None:
        rate = device.cpu.int8_op_per_cycle_per_core.value
    shares = {"dense_int8": own.dense_int8_of_peak, "block_4x1": own.block_4x1_of_peak}
    if rate <= most or kernel not in shares:
        return 1.0
    return shares[kernel].value * most / (own.tiles_of_peak.value * min(rate, own.tile_int8_op_per_cycle.value))


def _shares(measured: MeasuredCpu | None) -> dict[str, Quantity]:
    """Share of peak by kernel: of this machine's fit, or the median of a few timed kernels, or assumed."""
    own = assumptions().cpu
    shares = {
        "fp32": own.float_of_peak, "block_4x1": own.block_4x1_of_peak, "dense_int8": own.dense_int8_of_peak,
        "dequantize_int8": own.dequantize_of_peak,
    }  # fmt: skip
    if measured is None:
        return shares
    fits = cpu_fits(measured)
    peaks = {item.threads: item for item in measured.peaks}
    for kernel in shares:
        if kernel in fits:
            shares[kernel] = Quantity(value=fits[kernel].curve.compute_efficiency, source="measured")
            continue
        reached = [
            2.0 * sample.rows * sample.columns * sample.density * sample.tokens / sample.seconds
            / (peaks[sample.threads].fp32_op_per_s if kernel == "fp32" else peaks[sample.threads].int8_op_per_s)
            for sample in measured.kernels
            if sample.kernel == kernel and sample.threads in peaks
        ]  # fmt: skip
        if reached:
            low, value, high = (float(part) for part in np.quantile(reached, [0.05, 0.5, 0.95]))
            shares[kernel] = Quantity(value=value, source="measured", low=low, high=high)
    return shares


@lru_cache(maxsize=4096)
def route(spec: TensorSpec | None, activation: str, rows: int, columns: int) -> Route:
    """Return how a CPU runs a layer.

    Raises
    ------
    TargetError             If no kernel takes these activations; says which do.
    """
    acts = activation_key(activation)
    if spec is None:
        if acts != "fp16":
            raise TargetError(f"absent: no kernel multiplies float weights with {activation} activations")
        return Route(
            kernel="fp32",
            support=Support.NATIVE,
            integer=False,
            weight_bytes=_FLOAT_BYTES * rows * columns,
            work=1.0,
        )
    stored = float(sum(storage_layout(spec).section_bytes(spec).values()))
    sparse_note = "" if isinstance(spec.pattern, Dense) else "sparsity saves bytes, not work: multiplied as dense"
    if acts == "fp16":
        return Route(
            kernel="fp32",
            support=Support.EMULATED if sparse_note else Support.DEQUANTIZED,
            integer=False,
            weight_bytes=stored,
            work=1.0,
            note=sparse_note,
        )
    if not acts.lstrip("u").startswith("int") or get_format(activation).bits > 8:
        raise TargetError(
            f"absent: CPU kernels take float, int8 or uint8 activations (or narrower integers), not {activation}"
        )
    if not isinstance(spec.format, IntFormat) and not spec.format.decode_table().fits(8):
        raise TargetError(
            f"absent: {spec.format.name} values need more than 8 bits in fixed point, the int8 kernels take s8; "
            "use float activations"
        )
    per_row = spec.group_size >= spec.columns and not spec.outliers  # outliers have a kernel only beside group scales
    if isinstance(spec.pattern, Block) and (spec.pattern.rows, spec.pattern.columns) == (4, 1) and per_row:
        size = float(sum(Vnni4x1().section_bytes(spec).values()))
        return Route(
            kernel="block_4x1",
            support=Support.NATIVE if spec.format.bits == 8 else Support.EMULATED,
            integer=True,
            weight_bytes=size,
            work=spec.density,
            note="" if spec.format.bits == 8 else f"{format_key(spec.format)} weights stored as int8",
        )
    plain = spec.format.bits == 8 and isinstance(spec.format, IntFormat) and per_row
    if plain:
        masked = isinstance(spec.pattern, NM) and spec.density <= _MASKED_DENSITY
        label = Support.EMULATED if sparse_note else Support.NATIVE
        size = float(sum((VnniNM() if masked else RowMajor()).section_bytes(spec).values()))
        note = "sparsity not exploited: stored and multiplied as dense" if sparse_note and not masked else sparse_note
        return Route(kernel="dense_int8", support=label, integer=True, weight_bytes=size, work=1.0, note=note)
    grouped = isinstance(storage_layout(spec), GroupRows) and not per_row  # kept groups are read and multiplied alone
    notes = [
        "" if grouped else sparse_note,
        "outliers: their bytes are priced, not their sums" if spec.outliers else "",
    ]
    label = Support.DEQUANTIZED if isinstance(spec.format, IntFormat) and not sparse_note else Support.EMULATED
    return Route(
        kernel="dequantize_int8",
        support=Support.DEQUANTIZED if grouped else label,
        integer=True,
        weight_bytes=stored,
        work=spec.density if grouped else 1.0,
        note="; ".join(filter(None, notes)),
    )


def price_cpu(
    workload: Workload, plans: Mapping[str, LayerPlan], device: Device, phase: Phase, options: Options
) -> Priced:
    """Price the layers of one phase on a CPU.

    Raises
    ------
    TargetError             If a layer's format has no kernel; the message names the layer.
    """
    rates, own = _rates(device, options), assumptions().cpu
    shapes = shapes_of(workload, phase)
    routes = []
    for layer in shapes.layers:
        plan = plan_for(plans, layer)
        try:
            routes.append(route(plan.spec, plan.activation, *layer.weight_shape))
        except TargetError as error:
            raise TargetError(f"layer {layer.name}: {device.name}: {error}") from error
    weights, macs = sum(item.weight_bytes for item in routes), shapes.macs
    fits_cache = weights < 0.7 * rates.cache_bytes
    cached = _CACHE_GAIN if fits_cache else 1.0
    shares = _shares(options.measured)
    timed = _timed(shapes, routes, options.measured)
    layers: dict[str, LayerEstimate] = {}
    level = _level(device, options)
    least = {kernel: _least_work(kernel, device, options) for kernel in shares}
    for index, (layer, how) in enumerate(zip(shapes.layers, routes, strict=True)):
        tokens = (
            float(padded_tokens(how.kernel, shapes.m[index : index + 1], level)[0]) if how.integer else shapes.m[index]
        )
        operations = 2.0 * tokens * shapes.n[index] * shapes.k[index] * shapes.copies[index]
        operations *= min(how.work, least[how.kernel])
        moved = how.weight_bytes + (1.0 if how.integer else _FLOAT_BYTES) * float(shapes.inputs[index])
        work = _Work(
            kernel=how.kernel, operations=float(operations), moved=moved, share=shares[how.kernel], integer=how.integer,
            macs=float(macs[index]), support=how.support, note=how.note, resident=how.weight_bytes,
        )  # fmt: skip
        kind = "linear" if shapes.copies[index] == 1 else "convolution"
        estimate = _layer(layer.name, kind, work, rates, cached, timed.get(index), fits_cache)
        layers[layer.name] = routed(estimate, layer, float(shapes.visits[index]), options)

    def price(layer: Attention | Norm | Activation) -> LayerEstimate:
        share = own.float_of_peak
        if isinstance(layer, Attention):
            context = options.kv.tokens(phase.context) if phase.kind == "decode" else phase.context
            half = 0.5 if layer.causal and phase.kind == "prefill" else 1.0
            extra = options.kv.extra_macs(layer, phase)
            macs = float(layer.macs(phase.tokens, context))
            moved = phase.batch * options.kv.bytes_of(layer, phase.context, PLAIN_BYTES["cpu"])
            work = _Work(
                kernel="fp32", operations=2.0 * (macs * half + extra), moved=moved, share=share, integer=False,
                macs=macs + extra,
            )  # fmt: skip
            return _layer(layer.name, "attention", work, rates, 1.0)
        values = float(phase.tokens * layer.width)
        moved = 2.0 * _FLOAT_BYTES * values
        work = _Work(kernel=layer.kind, operations=10.0 * values, moved=moved, share=share, integer=False)
        return _layer(layer.name, "elementwise", work, rates, _CACHE_GAIN)

    layers |= price_rest(workload, price)
    embedding = sum(
        _FLOAT_BYTES * layer.rows * layer.width for layer in workload.layers if isinstance(layer, Embedding)
    )
    if timed:
        notes = [rates.note, "kernels timed here on one thread, scaled by the measured peaks"]
        sources = [f"{len(options.measured.kernels) if options.measured else 0} kernels timed on this machine"]
    else:
        calibrate = "; `sparsefab bench cpu --calibrate` times the kernels" if options.measured else ""
        notes, sources = [rates.note, f"shares of peak: {ASSUMED}{calibrate}"], ["kernel shares of measured peaks"]
    return Priced(
        layers=tuple(layers[layer.name] for layer in workload.layers if layer.name in layers),
        resident_bytes=embedding + cache_bytes(workload, phase, options.kv, PLAIN_BYTES["cpu"]),
        sources=tuple(sources),
        notes=tuple(notes),
    )


def _level(device: Device, options: Options) -> str:
    """Level of instructions that the kernels take on a machine, in their own words."""
    if options.measured is not None:
        return options.measured.isa
    known = {"avx2": "avx2", "amx": "avx512-amx"}
    return "avx2" if device.cpu is None else known.get(device.cpu.isa, "avx512-vnni")


def _timed(
    shapes: Shapes, routes: Sequence[Route], measured: MeasuredCpu | None
) -> dict[int, tuple[float, float, float]]:
    """Time of each layer, by its index, whose kernel has a fit on this machine: (value, low, high) in seconds."""
    if measured is None or not measured.kernels:
        return {}
    peaks, result = max(measured.peaks, key=lambda item: item.threads), {}
    for kernel, fit in cpu_fits(measured).items():
        rows = [index for index, how in enumerate(routes) if how.kernel == kernel]
        if not rows:
            continue
        work = np.array([routes[index].work for index in rows])
        table = np.stack([shapes.n[rows], shapes.k[rows], shapes.m[rows], work], axis=1)
        distinct, place = np.unique(table, axis=0, return_inverse=True)  # blocks repeat
        times = np.stack(fit.seconds(distinct, peaks), axis=1)[place.reshape(-1)] * shapes.copies[rows][:, None]
        for index, (value, low, high) in zip(rows, times.tolist(), strict=True):
            result[index] = (value, low, high)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """Operations and bytes of one layer, and the share of the peak that its kernel reaches."""

    kernel: str
    operations: float
    moved: float
    share: Quantity
    integer: bool
    macs: float = 0.0
    support: Support = Support.NATIVE
    note: str = ""
    resident: float = 0.0


def _layer(
    name: str,
    kind: str,
    work: _Work,
    rates: _Rates,
    cached: float,
    timed: tuple[float, float, float] | None = None,
    fits_cache: bool = False,
) -> LayerEstimate:
    """Time one layer; `cached` is what the last-level cache may gain on its bytes (1: nothing).

    `timed` is the kernel's own time (value, low, high) with its weights in the cache, None to go by shares of peak.
    """
    own = assumptions().cpu
    peak = rates.int8_op_per_s if work.integer else rates.fp32_op_per_s
    reach = (work.share.value, work.share.bounds[1], work.share.bounds[0])
    stream = (own.memory_of_peak.value, own.memory_of_peak.bounds[1] * cached, own.memory_of_peak.bounds[0])
    call = (own.call_s.value, own.call_s.bounds[0], own.call_s.bounds[1])
    if kind == "elementwise":
        call = (0.0, 0.0, own.call_s.bounds[1])
    compute = [work.operations / (peak[end] * reach[end]) for end in range(3)]
    memory = [work.moved / (rates.bytes_per_s[end] * stream[end]) for end in range(3)]
    if timed is None:
        value, low, high = (max(compute[end], memory[end]) + call[end] for end in range(3))
    else:
        value, low, high = (max(timed[end], 0.0 if fits_cache else memory[end]) for end in range(3))
    uses = Uses(
        memory_s=work.moved / rates.bytes_per_s[0],
        compute_s=compute[0],
        traffic_bytes=work.moved,
        resident_bytes=work.resident,
    )
    # peaks times a share of another machine's kernels are a model, whoever measured the peaks
    tier = rates.tier if timed is not None or work.share.source == "measured" else Provenance.MODELLED
    return LayerEstimate(
        name=name, kind=kind, support=work.support, kernel=work.kernel, latency_s=Figure.of(value, low, high),
        terms_s={"compute": compute[0], "dram": memory[0], "launch": call[0]}, memory_bytes=work.moved, macs=work.macs,
        provenance=tier, note=work.note, uses=uses,
    )  # fmt: skip
