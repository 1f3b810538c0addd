"""GPU estimates: calibrated products where the device was measured, its neighbours' curves where not.

Products come from `gemm` fits by (device, kernel family); a device without one borrows the curves of devices that have
one, its own architecture counting three times, with wider bounds. Attention over a cache, element-wise work and the
bytes they move are added layer by layer.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sparsefab.cost_models.anchors import Calibration, load_attention, load_gemm, load_torch, product_fits
from sparsefab.cost_models.assumptions import assumptions
from sparsefab.cost_models.attention import cache_times
from sparsefab.cost_models.capability import Choice, choose_kernel
from sparsefab.cost_models.gemm import GemmFit
from sparsefab.cost_models.kv import PLAIN_BYTES, KvCache, cache_bytes
from sparsefab.cost_models.layers import Options, Priced, plan_for, price_rest, routed, shapes_of
from sparsefab.cost_models.result import Figure, LayerEstimate, LayerPlan, Provenance, Support, Uses
from sparsefab.cost_models.roofline import OUTPUT_BYTES, data_sheet_times, kernel_named
from sparsefab.errors import TargetError
from sparsefab.targets import Device, GpuSpec, load_device
from sparsefab.workload import Activation, Attention, Embedding, Norm, Phase, Workload

__all__ = ["donors", "price_gpu", "product_seconds"]

Floats = NDArray[np.float64]

_PLAIN_BYTES = PLAIN_BYTES["gpu"]


def price_gpu(
    workload: Workload, plans: Mapping[str, LayerPlan], device: Device, phase: Phase, options: Options
) -> Priced:
    """Price the layers of one phase on one GPU.

    Raises
    ------
    TargetError             If a layer's format has no kernel on the device; the message names the layer.
    """
    shapes = shapes_of(workload, phase)
    known: dict[tuple[object, ...], tuple[Choice, float]] = {}
    chosen = []
    for layer in shapes.layers:
        plan = plan_for(plans, layer)
        key = (plan.spec, plan.activation, layer.weight_shape)
        if key not in known:
            try:
                choice = choose_kernel(device, plan.spec, plan.activation)
            except TargetError as error:
                raise TargetError(f"layer {layer.name}: {error}") from error
            known[key] = choice, choice.weight_bytes(plan.spec, *layer.weight_shape)
        chosen.append(known[key])
    choices = [choice for choice, _ in chosen]
    weight_bytes = np.array([size for _, size in chosen])
    names = np.array([choice.kernel.name for choice in choices])
    macs = shapes.macs
    n, k = _tensor_core_shapes(shapes.n, shapes.k, shapes.copies)
    layers: dict[str, LayerEstimate] = {}
    for name in dict.fromkeys(names.tolist()):
        rows = np.flatnonzero(names == name)
        table = np.stack([shapes.m[rows], n[rows], k[rows], weight_bytes[rows]], axis=1)
        distinct, place = np.unique(table, axis=0, return_inverse=True)  # blocks repeat: each shape is priced once
        times, terms, tier, why = product_seconds(
            device, name, m=distinct[:, 0], n=distinct[:, 1], k=distinct[:, 2], weight_bytes=distinct[:, 3],
            anchors=options.anchors,
        )  # fmt: skip
        bandwidth = device.memory.bandwidth_bytes_per_s.value
        for position, row in zip(place, rows, strict=True):
            layer, choice = shapes.layers[row], choices[row]
            value, low, high = (float(part[position]) for part in times)
            stream_s, compute_s = float(terms[0][position]), float(terms[1][position])
            estimate = LayerEstimate(
                name=layer.name,
                kind="linear" if shapes.copies[row] == 1 else "convolution",
                support=choice.support,
                kernel=name,
                latency_s=Figure.of(value, low, high),
                terms_s={"hbm": stream_s, "compute": compute_s, "launch": float(terms[2])},
                memory_bytes=float(weight_bytes[row]),
                macs=float(macs[row]),
                provenance=tier,
                note="; ".join(part for part in (choice.note, why) if part),
                uses=Uses(
                    memory_s=stream_s,
                    compute_s=compute_s,
                    traffic_bytes=stream_s * bandwidth,
                    resident_bytes=float(weight_bytes[row]),
                ),
            )
            layers[layer.name] = routed(estimate, layer, float(shapes.visits[row]), options)

    def price(layer: Attention | Norm | Activation) -> LayerEstimate:
        if isinstance(layer, Attention):
            return _attention(device, layer, phase, options.kv)
        return _elementwise(device, layer, phase)

    layers |= price_rest(workload, price)
    embedding = sum(2.0 * layer.rows * layer.width for layer in workload.layers if isinstance(layer, Embedding))
    user = () if options.anchors is None else (options.anchors.citation,)
    return Priced(
        layers=tuple(layers[layer.name] for layer in workload.layers if layer.name in layers),
        resident_bytes=embedding + cache_bytes(workload, phase, options.kv, _PLAIN_BYTES),
        notes=(
            "framework and scheduling time between kernels is not included",
            "kernel times are those of TensorRT-LLM where calibrated",
        ),
        sources=(
            *user,
            load_gemm().citation,
            load_attention().citation,
            *(own.citation for own in load_torch()),
        ),
    )


def _tensor_core_shapes(n: Floats, k: Floats, copies: Floats) -> tuple[Floats, Floats]:
    """Join the groups of a convolution into one product as wide as the padded groups: each side at least 16."""
    grouped = copies > 1
    padded_n, padded_k = np.maximum(n, 16.0), np.maximum(k, 16.0)
    return np.where(grouped, padded_n * copies, n), np.where(grouped, padded_k, k)


def donors(device: Device, kernel: str, exclude: str | None = None) -> list[tuple[GemmFit, float]]:
    """Return the fits that speak for a device and kernel, with weights.

    The device's own fit alone if there is one (and it is not `exclude`d); else the same kernel on other devices; else a
    kernel of the same arithmetic on this device or others. Empty if nothing comparable was measured.
    """
    fits = product_fits()
    own = device.gpu.calibration if device.gpu else None
    if own != exclude and (own, kernel) in fits:
        return [(fits[str(own), kernel], 1.0)]
    family = kernel_named(kernel)
    same = [fit for (name, other), fit in fits.items() if other == kernel and name != exclude]
    alike = [
        fit
        for (name, other), fit in fits.items()
        if kernel_named(other).math == family.math and name != exclude and kernel_named(other).support == family.support
    ]
    architecture = device.gpu.architecture if device.gpu else ""
    return [(fit, 3.0 if _architecture(fit.device) == architecture else 1.0) for fit in same or alike]


def _architecture(name: str) -> str:
    spec: GpuSpec | None = load_device(name).gpu
    return spec.architecture if spec else ""


def product_seconds(
    device: Device,
    kernel: str,
    m: Floats,
    n: Floats,
    k: Floats,
    weight_bytes: Floats | None = None,
    exclude: str | None = None,
    anchors: Calibration | None = None,
) -> tuple[tuple[Floats, Floats, Floats], tuple[Floats, Floats, float], Provenance, str]:
    """Return the times of products [m, k] x [k, n] on one GPU kernel family.

    Parameters
    ----------
    m, n, k : float64[shapes]
    weight_bytes : float64[shapes] | None       As stored; None: the family's usual bits.
    exclude : str | None                        Leave this device's calibration out (validation).
    anchors : Calibration | None                The user's own, by the device's name; they go first.

    Returns
    -------
    (value, low, high) : float64[shapes] each   Seconds.
    (memory_s, compute_s, launch_s)             Data-sheet terms and the launch constant.
    Provenance, str                             Tier, and a note when it is not the device's own calibration.
    """
    memory_s, compute_s = data_sheet_times(device, kernel, m, n, k, weight_bytes)
    own = None if anchors is None else anchors.gemm.get((device.name, kernel))
    available = donors(device, kernel, exclude) if own is None else [(own, 1.0)]
    constants = assumptions().gpu
    if not available:
        assert device.gpu is not None  # data_sheet_times has checked it
        launch = device.gpu.launch_s.get(kernel, constants.elementwise_launch_s).value
        value = np.maximum(memory_s, compute_s) / 0.85 + launch
        spread = constants.light_spread.value
        note = f"no measurement of {kernel} on any device: data-sheet roofline at 0.85"
        return (value, value / spread, value * spread), (memory_s, compute_s, launch), Provenance.ASSUMED, note
    if own is not None or (
        len(available) == 1
        and available[0][0].device == (device.gpu.calibration if device.gpu else None)
        and available[0][0].kernel == kernel
    ):
        fit = available[0][0]
        note = "" if (fit.device, kernel) in load_gemm().gemm else "torch's kernel"
        return (
            fit.seconds(m, n, k, memory_s, compute_s),
            (memory_s, compute_s, fit.curve.launch_s),
            Provenance.CALIBRATED,
            note if own is None else "fitted to the user's own measurements",
        )
    total = sum(weight for _, weight in available)
    logs = np.zeros(len(m))
    for fit, weight in available:
        logs += np.log(fit.seconds(m, n, k, memory_s, compute_s)[0]) * (weight / total)
    value, spread = np.exp(logs), constants.transfer_spread.value
    launch = sum(fit.curve.launch_s * weight for fit, weight in available) / total
    names = ", ".join(f"{fit.device} {fit.kernel}" for fit, _ in available)
    return (value, value / spread, value * spread), (memory_s, compute_s, launch), Provenance.MODELLED, f"from {names}"


def _attention(device: Device, layer: Attention, phase: Phase, kv: KvCache) -> LayerEstimate:
    assert device.gpu is not None  # price_gpu is called for GPUs only
    bandwidth, peak = device.memory.bandwidth_bytes_per_s.value, device.gpu.peak_op_per_s["fp16"].value
    constants = assumptions().gpu
    extra = kv.extra_macs(layer, phase)
    share, launch = constants.prefill_attention_efficiency, constants.elementwise_launch_s
    if phase.kind == "decode":
        macs = float(layer.macs(phase.tokens, kv.tokens(phase.context)))
        compute = 2.0 * macs / peak
        moved = phase.batch * kv.bytes_of(layer, phase.context, _PLAIN_BYTES)
        figure, tier, note = _decode_attention(device, layer, phase, kv)
    else:
        macs = float(layer.macs(phase.tokens, phase.context))
        compute = 2.0 * macs * (0.5 if layer.causal else 1.0) / peak
        stored = phase.batch * kv.bytes_of(layer, phase.context, _PLAIN_BYTES)
        moved = stored + 2.0 * OUTPUT_BYTES * phase.tokens * layer.heads * layer.head_dim
        floor = moved / bandwidth / constants.elementwise_efficiency.value
        figure = Figure.of(
            max(compute / share.value, floor) + launch.value,
            max(compute / share.bounds[1], floor) + launch.bounds[0],
            max(compute / share.bounds[0], floor) + launch.bounds[1],
        )
        tier, note = Provenance.ASSUMED, "fused attention at an assumed share of the fp16 peak"
    if extra:
        seconds = 2.0 * extra / peak
        ends = zip((share.value, *reversed(share.bounds)), (launch.value, *launch.bounds), strict=True)
        figure = figure.plus(Figure.of(*(seconds / part + call for part, call in ends)))
        compute, macs, tier = compute + seconds, macs + extra, Provenance.ASSUMED
        note = "; ".join(part for part in (note, "extra work of the cache's compression at an assumed share") if part)
    return LayerEstimate(
        name=layer.name,
        kind="attention",
        support=Support.NATIVE,
        kernel="attention",
        latency_s=figure,
        terms_s={"hbm": moved / bandwidth, "compute": compute},
        memory_bytes=moved,
        macs=macs,
        provenance=tier,
        note=note,
        uses=Uses(memory_s=moved / bandwidth, traffic_bytes=moved),
    )


def _decode_attention(device: Device, layer: Attention, phase: Phase, kv: KvCache) -> tuple[Figure, Provenance, str]:
    """Time the reading of the cache: the device's own fit, or the measured ones at this device's bandwidth."""
    fits, tokens = load_attention().attention, kv.tokens(phase.context)
    value_bytes = kv.bytes_of(layer, phase.context, _PLAIN_BYTES) / layer.kv_values(tokens)
    row = [phase.batch, tokens, 0, layer.heads, layer.kv_heads, layer.head_dim, value_bytes]
    table = np.array([row], np.float64)
    memory_s, compute_s = cache_times(device, table)
    own = None if device.gpu is None else device.gpu.calibration
    chosen = [fits[own]] if own in fits else list(fits.values())
    times = [fit.seconds(table, memory_s, compute_s) for fit in chosen]
    value, low, high = (float(np.exp(np.mean([np.log(time[part][0]) for time in times]))) for part in range(3))
    narrow = "" if value_bytes in (1.0, 2.0) else "; no measured kernel reads this cache format"
    if own in fits:
        tier = Provenance.CALIBRATED if not narrow else Provenance.ASSUMED
        return Figure.of(value, low, high), tier, narrow.removeprefix("; ")
    spread = assumptions().gpu.transfer_spread.value
    names = ", ".join(fit.device for fit in chosen)
    return Figure.of(value, value / spread, value * spread), Provenance.MODELLED, f"from {names}{narrow}"


def _elementwise(device: Device, layer: Norm | Activation, phase: Phase) -> LayerEstimate:
    """Read and write once; the lower bound has it fused into a neighbour."""
    constants = assumptions().gpu
    moved = 2.0 * OUTPUT_BYTES * phase.tokens * layer.width
    stream = moved / device.memory.bandwidth_bytes_per_s.value
    share, launch = constants.elementwise_efficiency, constants.elementwise_launch_s
    figure = Figure(
        value=stream / share.value + launch.value, low=0.0, high=stream / share.bounds[0] + launch.bounds[1]
    )
    return LayerEstimate(
        name=layer.name,
        kind="elementwise",
        support=Support.NATIVE,
        kernel=layer.kind,
        latency_s=figure,
        terms_s={"hbm": stream, "launch": launch.value},
        memory_bytes=moved,
        macs=0.0,
        provenance=Provenance.ASSUMED,
        uses=Uses(memory_s=stream, traffic_bytes=moved),
    )
