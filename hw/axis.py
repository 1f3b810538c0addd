"""AXI4-Stream ports around the chain, for a designer who places it in a Vivado block diagram.

Written as Verilog text: it is wiring and vendor attributes only. Bytes of each beat, lowest first:

    s_axis_weights   a beat as packed by `formats.Chain`: dsps bytes of weights, or dsps pairs of bytes with
                     arch.matrix_vector, then indices, two a byte; tlast ends a tile
    s_axis_acts      segment x lanes bytes of activations, a byte of index, the mask of segments and with
                     arch.matrix_vector above it the bit `vector`; tlast completes a bank
    m_axis_sums      lanes x 4 bytes, signed; tlast as on the weights
"""

from typing import Final

from sparsefab.arch import ChainArch

__all__ = ["AXIS_TOP", "axis_bytes", "axis_wrapper"]

AXIS_TOP: Final = "axis_top"
_SUM_BITS: Final = 32


def axis_bytes(arch: ChainArch) -> dict[str, int]:
    """Bytes of tdata of each stream."""
    return {
        "weights": arch.weight_rows * arch.dsps + -(-arch.dsps * arch.index_bits // 8),
        "acts": arch.segment * arch.lanes + 1 + -(-(arch.segments + int(arch.matrix_vector)) // 8),
        "sums": arch.lanes * _SUM_BITS // 8,
    }


def axis_wrapper(arch: ChainArch) -> str:
    """Write the module `axis_top`, which instantiates `top`.

    Raises
    ------
    ValueError                 If a sum is wider than 32 bits.
    """
    if arch.sum_bits > _SUM_BITS:
        raise ValueError(f"sum_bits must be at most {_SUM_BITS} for AXI4-Stream ports, not {arch.sum_bits}")
    size = axis_bytes(arch)
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
    streams = ",\n".join(
        [
            _stream("s_axis_weights", size["weights"], "input"),
            _stream("s_axis_acts", size["acts"], "input"),
            _stream("m_axis_sums", size["sums"], "output"),
        ]
    )
    return f"""\
module {AXIS_TOP} (
  (* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 aclk CLK" *)
  (* X_INTERFACE_PARAMETER = "ASSOCIATED_BUSIF s_axis_weights:s_axis_acts:m_axis_sums, ASSOCIATED_RESET aresetn" *)
  input wire aclk,
  (* X_INTERFACE_INFO = "xilinx.com:signal:reset:1.0 aresetn RST" *)
  (* X_INTERFACE_PARAMETER = "POLARITY ACTIVE_LOW" *)
  input wire aresetn,
{streams}
);
  wire [{arch.lanes * arch.sum_bits}:0] sums;
  top chain (
    .clk(aclk),
    .rst(~aresetn),
    .weights__payload({{s_axis_weights_tlast, {indices}, {weights}}}),
    .weights__valid(s_axis_weights_tvalid),
    .weights__ready(s_axis_weights_tready),
    .acts__payload({{s_axis_acts_tlast, {mask}, {index}, {pairs}}}),
    .acts__valid(s_axis_acts_tvalid),
    .acts__ready(s_axis_acts_tready),
    .sums__payload(sums),
    .sums__valid(m_axis_sums_tvalid),
    .sums__ready(m_axis_sums_tready)
  );
  assign m_axis_sums_tdata = {{{sums}}};
  assign m_axis_sums_tlast = sums[{arch.lanes * arch.sum_bits}];
endmodule
"""


def _slices(name: str, count: int, stride: int, bits: int) -> str:
    """The low `bits` of each of `count` fields, joined."""
    if bits == stride:
        return f"{name}[0 +: {count * stride}]"
    return "{" + ", ".join(f"{name}[{field * stride} +: {bits}]" for field in reversed(range(count))) + "}"


def _stream(name: str, nbytes: int, direction: str) -> str:
    """Ports of one stream with the attributes that tie them to one interface."""
    forward, backward = ("input", "output") if direction == "input" else ("output", "input")
    role = "slave" if direction == "input" else "master"
    ports = [
        ("tdata", forward, f"[{8 * nbytes - 1}:0] "),
        ("tvalid", forward, ""),
        ("tready", backward, ""),
        ("tlast", forward, ""),
    ]
    lines = []
    for port, way, width in ports:
        if port == "tdata":
            lines.append(f'  (* X_INTERFACE_MODE = "{role}" *)\n')
        end = "" if port == "tlast" else ",\n"
        lines.append(
            f'  (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 {name} {port.upper()}" *)\n'
            f"  {way} wire {width}{name}_{port}{end}"
        )
    return "".join(lines)
