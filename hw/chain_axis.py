"""The chain's AXI4-Stream ports: fields begin at bytes, so that memory holds them as `formats.Chain` packs them.

Bytes of each beat, lowest first:

    s_axis_weights   a beat as packed by `formats.Chain`: dsps bytes of weights, or dsps pairs of bytes with
                     arch.matrix_vector, then indices, two a byte; tlast ends a tile
    s_axis_acts      segment x lanes bytes of activations, a byte of index, the mask of segments and with
                     arch.matrix_vector above it the bit `vector`; tlast completes a bank
    m_axis_sums      lanes x 4 bytes, signed; tlast as on the weights
"""

from typing import Final

from sparsefab.arch import ChainArch
from sparsefab.hw.axis import AxisStream, axis_module
from sparsefab.hw.chain import acts_layout, sums_layout, weights_layout

__all__ = ["axis_bytes", "chain_axis_wrapper"]

_SUM_BITS: Final = 32


def axis_bytes(arch: ChainArch) -> dict[str, int]:
    """Bytes of tdata of each stream."""
    return {
        "weights": arch.weight_rows * arch.dsps + -(-arch.dsps * arch.index_bits // 8),
        "acts": arch.segment * arch.lanes + 1 + -(-(arch.segments + int(arch.matrix_vector)) // 8),
        "sums": arch.lanes * _SUM_BITS // 8,
    }


def chain_axis_wrapper(arch: ChainArch) -> str:
    """Write the module `axis_top`, which instantiates `top`.

    Raises
    ------
    ValueError                 If a sum is wider than 32 bits, or rows end inside beats.
    """
    if arch.ends:
        raise ValueError("ends must be False for AXI4-Stream ports, not True: a beat of m_axis_sums is a sum a lane")
    if arch.sum_bits > _SUM_BITS:
        raise ValueError(f"sum_bits must be at most {_SUM_BITS} for AXI4-Stream ports, not {arch.sum_bits}")
    size = axis_bytes(arch)
    layouts = {"weights": weights_layout(arch), "acts": acts_layout(arch), "sums": sums_layout(arch)}
    streams = [
        AxisStream(name=name, output=name == "sums", payload_bits=layout.size, last=True, data_bytes=size[name])
        for name, layout in layouts.items()
    ]
    rows = arch.weight_rows * arch.dsps
    weights = _slices("s_axis_weights_tdata", rows, 8, arch.weight_bits)
    indices = f"s_axis_weights_tdata[{8 * rows} +: {arch.dsps * arch.index_bits}]"
    pairs = _slices("s_axis_acts_tdata", arch.segment * arch.lanes, 8, arch.activation_bits)
    low = 8 * arch.segment * arch.lanes
    index = f"s_axis_acts_tdata[{low} +: {arch.index_bits}]"
    mask = f"s_axis_acts_tdata[{low + 8} +: {arch.segments + int(arch.matrix_vector)}]"
    extension = _SUM_BITS - arch.sum_bits
    sums = ", ".join(
        (f"{{{extension}{{sums[{lane * arch.sum_bits + arch.sum_bits - 1}]}}}}, " if extension else "")
        + f"sums[{lane * arch.sum_bits} +: {arch.sum_bits}]"
        for lane in reversed(range(arch.lanes))
    )
    return axis_module(
        streams,
        payloads={"weights": f"{{{indices}, {weights}}}", "acts": f"{{{mask}, {index}, {pairs}}}"},
        data={"sums": f"{{{sums}}}"},
        held={},
    )


def _slices(name: str, count: int, stride: int, bits: int) -> str:
    """The low `bits` of each of `count` fields, joined."""
    if bits == stride:
        return f"{name}[0 +: {count * stride}]"
    return "{" + ", ".join(f"{name}[{field * stride} +: {bits}]" for field in reversed(range(count))) + "}"
