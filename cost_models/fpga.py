"""FPGA estimates: cycles of the array, bytes of the layouts, channels of the memory, blocks of the table.

A layer takes the longer of its array cycles and its memory time. Weights come from memory as their smallest layout,
indices and scales included, and are expanded on chip; prefill reads them once a buffer full of activations. Special
functions run on their own lanes, in full view here; their lower bound has them hidden behind the array.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sparsefab.arch import AcceleratorArch
from sparsefab.cost_models.array import accelerator_cycles
from sparsefab.cost_models.assumptions import Configuration, assumptions
from sparsefab.cost_models.capability import activation_key
from sparsefab.cost_models.kv import PLAIN_BYTES, KvCache, cache_bytes
from sparsefab.cost_models.layers import Options, Priced, plan_for, price_rest, routed, shapes_of
from sparsefab.cost_models.resources import check_fit, largest_arch, resources
from sparsefab.cost_models.result import Figure, LayerEstimate, LayerPlan, Provenance, Support, Uses
from sparsefab.errors import TargetError
from sparsefab.formats.catalog import Format, get_format
from sparsefab.formats.ints import IntFormat
from sparsefab.formats.layout import storage_layout
from sparsefab.formats.mx import BlockFormat
from sparsefab.formats.sparsity import NM, Dense
from sparsefab.formats.tensors import TensorSpec
from sparsefab.targets import Device, FpgaSpec
from sparsefab.workload import Activation, Attention, Embedding, Norm, Phase, Workload

__all__ = ["chain_slots", "price_fpga", "support"]

Floats = NDArray[np.float64]
Bounded = tuple[float, float, float]  # value, and the values at the fast and at the slow end

_URAM_BYTES = 36_864  # 288 Kbit
_BLOCK = 16
_PLAIN_BYTES = PLAIN_BYTES["fpga"]


def chain_slots(spec: TensorSpec) -> int:
    """Stored weights a block of 16 inputs that the chain must be ready for; 16 for what is not N:M."""
    if isinstance(spec.pattern, NM):
        return max(1, _BLOCK // spec.pattern.m * spec.pattern.n)
    return _BLOCK


@lru_cache(maxsize=512)
def support(fmt: Format, asymmetric: bool, activation: str) -> tuple[Support, str]:
    """Say whether the int8 chain runs a format: (support, reason when absent).

    Native if every value(code) - zero_point, on the format's fixed-point grid, fits s8, weights and activations alike.
    """
    if asymmetric and isinstance(fmt, IntFormat) and fmt.bits > 7:
        return Support.ABSENT, f"asymmetric {fmt.name} differences need {fmt.bits + 1} bits, the chain multiplies s8"
    if not _fits(fmt):
        return Support.ABSENT, f"{fmt.name} values need more than 8 bits in fixed point, the chain multiplies s8"
    key = activation_key(activation)
    if key == "fp16":
        return Support.ABSENT, "float activations: the chain multiplies s8; give the layer an int8 activation format"
    acts = get_format(activation)
    if isinstance(acts, BlockFormat):
        return Support.ABSENT, f"{activation} activations: the chain has one activation scale a token, none a block"
    if key != "uint8" and not _fits(acts):
        return Support.ABSENT, f"{activation} activations need more than 8 bits in fixed point"
    dequantized = fmt.bits < 8
    return (Support.DEQUANTIZED if dequantized else Support.NATIVE), ""


def _fits(fmt: Format) -> bool:
    return fmt.decode_table().fits(8)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """Rates of an accelerator on a board, each as (value, fast end, slow end)."""

    arch: AcceleratorArch
    clock_hz: Bounded
    bytes_per_s: Bounded
    peak_bytes_per_s: float
    cross_penalty: float
    special_per_cycle: float
    overhead_cycles: Bounded
    buffer_bytes: float
    tier: Provenance
    notes: tuple[str, ...]


def _machine(device: Device, options: Options, board: FpgaSpec) -> _Machine:
    arch = largest_arch(device) if options.arch is None else options.arch
    check_fit(device, arch)
    if arch.clock_hz > board.dsp_ceiling_hz.value:
        raise TargetError(
            f"{device.name}: a clock of {arch.clock_hz / 1e6:.0f} MHz is above the data sheet's ceiling of "
            f"{board.dsp_ceiling_hz.value / 1e6:.0f} MHz for its DSPs"
        )
    low, high = board.clock_hz.bounds
    scale = arch.clock_hz / board.clock_hz.value
    ceiling = board.dsp_ceiling_hz.value
    clock = (arch.clock_hz, min(high * scale, ceiling), low * scale)
    fitted = _configuration(device, options.calibration)
    efficiency = board.same_channel_efficiency if fitted is None else fitted.efficiency
    channels = arch.hbm_channels * device.memory.bandwidth_bytes_per_s.value / device.memory.channels
    bounds = efficiency.bounds
    own = assumptions().fpga
    uram = sum(region.uram for region in board.regions) * board.fill_limit["uram"].value
    overhead = own.layer_overhead_cycles
    notes = [
        f"clock assumed {arch.clock_hz / 1e6:.0f} MHz ({clock[2] / 1e6:.0f}-{clock[1] / 1e6:.0f}); data sheet ceiling "
        f"of the DSP {ceiling / 1e6:.0f} MHz",
        f"{arch.hbm_channels} memory channels at {efficiency.value:.0%} of their peak",
        "uncalibrated: no board was measured in this configuration"
        if fitted is None
        else f"memory efficiency fitted to one measured decode step ({fitted.workload}, context {fitted.context})",
    ]
    if options.calibration is not None and fitted is None:
        notes.append("the calibrated configuration is fitted on another board and not used here")
    return _Machine(
        arch=arch,
        clock_hz=clock,
        bytes_per_s=(channels * efficiency.value, channels * bounds[1], channels * bounds[0]),
        peak_bytes_per_s=device.memory.bandwidth_bytes_per_s.value,
        cross_penalty=board.same_channel_efficiency.value / board.cross_channel_efficiency.value,
        special_per_cycle=own.special_lanes_per_core.value * arch.cores,
        overhead_cycles=(overhead.value, overhead.bounds[0], overhead.bounds[1]),
        buffer_bytes=own.buffer_share_of_uram.value * max(uram, 64.0) * _URAM_BYTES,
        tier=Provenance.MODELLED if fitted is None else Provenance.CALIBRATED,
        notes=tuple(notes),
    )


def _configuration(device: Device, calibration: str | Configuration | None) -> Configuration | None:
    """Return the configuration if it is fitted on this device."""
    if isinstance(calibration, str):
        known = {item.name: item for item in assumptions().configuration}
        if calibration not in known:
            raise TargetError(f"unknown calibrated configuration {calibration!r}; known: {', '.join(known)}")
        calibration = known[calibration]
    return calibration if calibration is not None and calibration.device == device.name else None


def price_fpga(
    workload: Workload, plans: Mapping[str, LayerPlan], device: Device, phase: Phase, options: Options
) -> Priced:
    """Price the layers of one phase on an FPGA board with an accelerator of chains.

    Raises
    ------
    TargetError             If the accelerator does not fit the board, or a layer's format does not run on the chain.
    """
    if device.fpga is None:
        raise TargetError(f"{device.name} is not an FPGA")
    machine = _machine(device, options, device.fpga)
    shapes = shapes_of(workload, phase)
    count = len(shapes.layers)
    slots, codes, metadata, labels = np.zeros(count), np.zeros(count), np.zeros(count), []
    paired = np.ones(count, np.bool_)
    for index, layer in enumerate(shapes.layers):
        plan = plan_for(plans, layer)
        if plan.spec is None:
            raise TargetError(
                f"layer {layer.name}: float weights are absent on {device.name}: the chain multiplies s8; "
                "give the layer a format"
            )
        label, reason = support(plan.spec.format, plan.spec.asymmetric, plan.activation)
        if plan.spec.outliers:
            label, reason = Support.ABSENT, "outliers of 15 bits, the chain multiplies s8"
        if label is Support.ABSENT:
            raise TargetError(f"layer {layer.name}: absent on {device.name}: {reason}")
        slots[index], (codes[index], metadata[index]) = chain_slots(plan.spec), _stored_bytes(plan.spec)
        exploited = isinstance(plan.spec.pattern, Dense | NM)
        paired[index] = not isinstance(plan.spec.pattern, NM) or plan.spec.pattern.rows == 2
        labels.append(
            (
                label if exploited else Support.EMULATED,
                "" if exploited else "sparsity saves bytes, not cycles: multiplied as dense",
            )
        )
    cycles = accelerator_cycles(machine.arch, shapes.n, shapes.k, slots, shapes.m, shapes.copies, paired)
    reads = np.ceil(shapes.m * shapes.k / machine.buffer_bytes) if phase.kind == "prefill" else np.ones(count)
    macs = shapes.macs
    layers: dict[str, LayerEstimate] = {}
    for index, layer in enumerate(shapes.layers):
        estimate = _layer(
            machine,
            layer.name,
            "linear" if shapes.copies[index] == 1 else "convolution",
            float(cycles.beats[index]),
            float(cycles.fill[index]),
            (float(codes[index] * reads[index]), float(metadata[index] * reads[index])),
            0.0,
            labels[index],
            float(macs[index]),
            float(codes[index] + metadata[index]),
        )
        layers[layer.name] = routed(estimate, layer, float(shapes.visits[index]), options)

    def price(layer: Attention | Norm | Activation) -> LayerEstimate:
        if isinstance(layer, Attention):
            return _attention(machine, layer, phase, options.kv)
        passes = assumptions().fpga.two_pass.value if isinstance(layer, Norm) else 1.0
        values = phase.tokens * layer.width * passes
        return _layer(machine, layer.name, "special function", 0.0, 0.0, (0.0, 0.0), values, (Support.NATIVE, ""), 0.0)

    layers |= price_rest(workload, price)
    embedding = sum(1.0 * layer.rows * layer.width for layer in workload.layers if isinstance(layer, Embedding))
    arch = machine.arch
    shape = f"{arch.cores} cores of {arch.chains_per_core} chains of {arch.chain.dsps} DSPs"
    return Priced(
        layers=tuple(layers[layer.name] for layer in workload.layers if layer.name in layers),
        resident_bytes=embedding + cache_bytes(workload, phase, options.kv, _PLAIN_BYTES),
        sources=("array cycles from the chain's dataflow", "block table: cost_models/data/fpga_blocks.toml"),
        notes=(shape, *machine.notes),
        resources=resources(arch),
    )


@lru_cache(maxsize=4096)
def _stored_bytes(spec: TensorSpec) -> tuple[float, float]:
    """Bytes of the weight codes, and of everything beside them: indices, bitmaps, multipliers, zero points, scales."""
    sections = storage_layout(spec).section_bytes(spec)
    return float(sections["codes"]), float(sum(sections.values()) - sections["codes"])


def _layer(
    machine: _Machine,
    name: str,
    kind: str,
    beats: float,
    fill: float,
    moved: tuple[float, float],
    special: float,
    label: tuple[Support, str],
    macs: float,
    resident: float = 0.0,
) -> LayerEstimate:
    """Time one layer from its cycles and bytes; `special` counts values through the special-function lanes.

    `moved`: bytes of long bursts from a core's own channels, and of short or shared reads at the cross-channel rate.
    """
    streamed = moved[0] + moved[1] * machine.cross_penalty
    ends = []
    for end in range(3):
        clock = machine.clock_hz[end]
        array = (beats + fill + (machine.overhead_cycles[end] if beats else 0.0)) / clock
        lanes = special / machine.special_per_cycle / clock
        memory = streamed / machine.bytes_per_s[end]
        ends.append(max(array, memory, lanes) if end == 1 else max(array, memory) + lanes)
    clock = machine.clock_hz[0]
    terms = {
        "compute": beats / clock,
        "hbm": streamed / machine.bytes_per_s[0],
        "fill": (fill + machine.overhead_cycles[0]) / clock if beats else 0.0,
        "special": special / machine.special_per_cycle / clock,
    }
    return LayerEstimate(
        name=name,
        kind=kind,
        support=label[0],
        kernel="chain" if beats else "special functions",
        latency_s=Figure.of(*ends),
        terms_s=terms,
        memory_bytes=moved[0] + moved[1],
        macs=macs,
        provenance=machine.tier,
        note=label[1],
        uses=Uses(
            memory_s=(moved[0] + moved[1]) / machine.peak_bytes_per_s,
            # attention is left out: board power is set by the weight layers' share of the peak
            compute_s=macs / (machine.arch.macs_per_cycle * clock) if kind != "attention" else 0.0,
            traffic_bytes=moved[0] + moved[1],
            resident_bytes=resident,
        ),
    )


def _attention(machine: _Machine, layer: Attention, phase: Phase, kv: KvCache) -> LayerEstimate:
    """QK and PV on the array as dense products with the cache as weights, softmax in two passes on its lanes.

    Extra work of the cache's compression runs on the array at its peak.
    """
    context = kv.tokens(phase.context) if phase.kind == "decode" else phase.context
    extra = kv.extra_macs(layer, phase)
    shared = layer.heads // layer.kv_heads
    queries = 1 if phase.kind == "decode" else phase.context
    causal = 0.5 if layer.causal and phase.kind == "prefill" else 1.0
    copies = np.full(2, float(phase.batch * layer.kv_heads))
    rows = np.array([context * causal, float(layer.head_dim)])
    columns = np.array([float(layer.head_dim), context * causal])
    cycles = accelerator_cycles(
        machine.arch,
        np.ceil(rows),
        np.ceil(columns),
        np.full(2, float(_BLOCK)),
        np.full(2, float(queries * shared)),
        copies,
        np.ones(2, np.bool_),
    )
    moved = (phase.batch * kv.bytes_of(layer, phase.context, _PLAIN_BYTES), 0.0)
    softmax = assumptions().fpga.two_pass.value * phase.batch * layer.heads * queries * context * causal
    return _layer(
        machine,
        layer.name,
        "attention",
        float(cycles.beats.sum()) + extra / machine.arch.macs_per_cycle,
        float(cycles.fill.sum()),
        moved,
        softmax,
        (Support.NATIVE, ""),
        float(layer.macs(phase.tokens, context)) + extra,
    )
