"""AXI4-Stream ports around a block, for a designer who places it in a Vivado block diagram.

Written as Verilog text: it is wiring and vendor attributes only. Input streams become s_axis_<stream>, output streams
m_axis_<stream>, other ports stay. tdata is the stream's payload, filled up to whole bytes; where the payload's highest
bit is a field `last`, that bit is tlast. tkeep says whether a beat is whole or null: an input beat whose lowest byte is
not kept is taken and dropped, output beats are whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from amaranth.hdl import Shape
from amaranth.lib import stream, wiring
from amaranth.lib.data import StructLayout

__all__ = ["AXIS_TOP", "AxisStream", "axis_module", "axis_streams", "axis_wrapper"]

AXIS_TOP: Final = "axis_top"


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisStream:
    """A stream of a block, as AXI4-Stream.

    name : str
    output : bool              The block is its source.
    payload_bits : int         With `last`.
    last : bool                The payload's highest bit is tlast.
    data_bytes : int           Of tdata.
    """

    name: str
    output: bool
    payload_bits: int
    last: bool
    data_bytes: int

    @property
    def port(self) -> str:
        """Prefix of its ports."""
        return f"{'m' if self.output else 's'}_axis_{self.name}"

    @property
    def data_bits(self) -> int:
        """Bits of the payload that tdata holds, before it is filled up."""
        return self.payload_bits - int(self.last)


def axis_streams(component: wiring.Component) -> tuple[AxisStream, ...]:
    """The streams of a block, one field after the other without gaps."""
    found = []
    for name, member in component.signature.members.items():
        if member.is_signature and isinstance(member.signature, stream.Signature):
            shape = member.signature.members["payload"].shape
            bits = Shape.cast(shape).width
            last = isinstance(shape, StructLayout) and "last" in shape.members and shape["last"].offset == bits - 1
            found.append(
                AxisStream(
                    name=name,
                    output=member.flow == wiring.Out,
                    payload_bits=bits,
                    last=last,
                    data_bytes=-(-(bits - int(last)) // 8),
                )
            )
    return tuple(found)


def axis_wrapper(component: wiring.Component) -> str:
    """Write the module `axis_top`, which instantiates `top`: payloads without gaps."""
    streams = axis_streams(component)
    payloads, data = {}, {}
    for each in streams:
        inside = each.data_bits
        if each.output:
            space = 8 * each.data_bytes - inside
            data[each.name] = (f"{{{space}'h0, " if space else "{") + f"{each.name}[{inside - 1}:0]}}"
        else:
            payloads[each.name] = f"{each.port}_tdata[{inside - 1}:0]"
    held = {
        name: Shape.cast(member.shape).width for name, member in component.signature.members.items() if member.is_port
    }
    return axis_module(streams, payloads=payloads, data=data, held=held)


def axis_module(
    streams: Sequence[AxisStream], *, payloads: dict[str, str], data: dict[str, str], held: dict[str, int]
) -> str:
    """Write the module `axis_top`.

    Parameters
    ----------
    streams : AxisStreams
    payloads : {input stream: expression}   Its payload without `last`, of <port>_tdata.
    data : {output stream: expression}      tdata, of the payload, which is called as the stream is.
    held : {port: bits}                     Inputs that are no streams.
    """
    ports = [_stream(each) for each in streams]
    ports += [f"  input wire {f'[{bits - 1}:0] ' if bits > 1 else ''}{name}" for name, bits in held.items()]
    wires, connections, assigns = [], [".clk(aclk)", ".rst(~aresetn)"], []
    for each in streams:
        name, port = each.name, each.port
        if each.output:
            wires.append(f"  wire [{each.payload_bits - 1}:0] {name};")
            connections += [f".{name}__payload({name})", f".{name}__valid({port}_tvalid)"]
            assigns.append(f"  assign {port}_tdata = {data[name]};")
            assigns.append(f"  assign {port}_tkeep = {{{each.data_bytes}{{1'b1}}}};")
            if each.last:
                assigns.append(f"  assign {port}_tlast = {name}[{each.payload_bits - 1}];")
        else:
            payload = f"{{{port}_tlast, {payloads[name]}}}" if each.last else payloads[name]
            connections += [f".{name}__payload({payload})", f".{name}__valid({port}_tvalid & {port}_tkeep[0])"]
        connections.append(f".{name}__ready({port}_tready)")
    connections += [f".{name}({name})" for name in held]
    busses = ":".join(each.port for each in streams)
    return "\n".join(
        [
            f"module {AXIS_TOP} (",
            '  (* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 aclk CLK" *)',
            f'  (* X_INTERFACE_PARAMETER = "ASSOCIATED_BUSIF {busses}, ASSOCIATED_RESET aresetn" *)',
            "  input wire aclk,",
            '  (* X_INTERFACE_INFO = "xilinx.com:signal:reset:1.0 aresetn RST" *)',
            '  (* X_INTERFACE_PARAMETER = "POLARITY ACTIVE_LOW" *)',
            "  input wire aresetn,",
            ",\n".join(ports),
            ");",
            *wires,
            "  top block (",
            ",\n".join(f"    {connection}" for connection in connections),
            "  );",
            *assigns,
            "endmodule",
            "",
        ]
    )


def _stream(each: AxisStream) -> str:
    """Ports of one stream with the attributes that tie them to one interface."""
    forward, backward = ("output", "input") if each.output else ("input", "output")
    ports = [
        ("tdata", forward, f"[{8 * each.data_bytes - 1}:0] "),
        ("tkeep", forward, f"[{each.data_bytes - 1}:0] "),
        *([("tlast", forward, "")] if each.last else []),
        ("tvalid", forward, ""),
        ("tready", backward, ""),
    ]
    lines = [
        f'  (* X_INTERFACE_INFO = "xilinx.com:interface:axis:1.0 {each.port} {port.upper()}" *)\n'
        f"  {way} wire {width}{each.port}_{port}"
        for port, way, width in ports
    ]
    role = "master" if each.output else "slave"
    return f'  (* X_INTERFACE_MODE = "{role}" *)\n' + ",\n".join(lines)
