"""Decode attention on a GPU: reading the key/value cache once a step."""

from sparsefab.cost_models.assumptions import assumptions
from sparsefab.cost_models.result import Figure, Provenance
from sparsefab.targets import Device
from sparsefab.workload import Attention, Phase

__all__ = ["decode_attention_seconds"]


def decode_attention_seconds(
    device: Device, layer: Attention, phase: Phase, kv_bytes: float
) -> tuple[Figure, Provenance, str]:
    """Return the time of one layer's attention in a decode step, its tier and a note.

    kv_bytes : float        Bytes a cached value (2 for fp16, 1 for fp8 and int8).
    """
    moved = phase.batch * layer.kv_values(phase.context) * kv_bytes
    share, launch = assumptions().gpu.elementwise_efficiency, assumptions().gpu.elementwise_launch_s
    stream = moved / device.memory.bandwidth_bytes_per_s.value
    figure = Figure.of(
        stream / share.value + launch.value,
        stream / share.bounds[1] + launch.bounds[0],
        stream / share.bounds[0] + 2.0 * launch.bounds[1],
    )
    return figure, Provenance.ASSUMED, "cache read at an assumed share of the bandwidth"
