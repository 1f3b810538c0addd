"""A self-checking testbench in plain Verilog, with its vectors, for whoever simulates a block without Python.

It runs the vectors four times: plain, with idle sources, with a stalling sink, with both, the stalls by a fixed
xorshift register. It prints PASS, or FAIL with the first difference, and then ends by $fatal.
"""

from collections.abc import Mapping
from typing import Any, Final

from sparsefab.hw.axis import AXIS_TOP
from sparsefab.hw.emit import TOP
from sparsefab.sim.blocks import block_vectors
from sparsefab.sim.ports import has_port, port_bits
from sparsefab.sim.report import MODES
from sparsefab.sim.streams import StreamVectors

__all__ = ["TESTBENCH", "block_testbench", "write_testbench"]

TESTBENCH: Final = "top_tb"

_DRAIN_CYCLES: Final = 400  # longer than any block's latency: a surplus beat comes out within it
_RESET_CYCLES: Final = 64  # at 4 ns: longer than the 100 ns for which the vendor's glbl.v holds all registers

_FRAME: Final = """\
// Self-checking testbench of {top}, vectors in {name}_*.hex of the working folder.
// Behavioural primitives:  iverilog -s {name} -o {name} {name}.v top.v && vvp {name}
// Vendor primitives:       xvlog -sv {name}.v && xvlog top.v $XILINX_VIVADO/data/verilog/src/glbl.v
//                          xelab -L unisims_ver -s {name} {name} glbl && xsim {name} -runall
`timescale 1ns / 1ps
module {name};
  reg clk = 0, rst = 0, running = 0;
  integer run = 0, quiet = 0;  // run[0]: sources idle, run[1]: sinks stall
  reg [127:0] mode;
  always #2 clk = ~clk;

  function [31:0] shuffled(input [31:0] x);
    reg [31:0] y;
    begin
      y = x ^ (x << 13);
      y = y ^ (y >> 17);
      shuffled = y ^ (y << 5);
    end
  endfunction

{streams}
{held}
  {top} dut (
{ports}
  );

  wire moved = {moved};

  initial begin
{reads}
{constants}
    for (run = 0; run < {runs}; run = run + 1) begin
      case (run)
{modes}
      endcase
      @(negedge clk);  // a reset that is up from the start is no event for Verilog's always @*
      running = 0;
      rst = 1;
      repeat ({reset}) @(negedge clk);
      rst = 0;
      running = 1;
      quiet = 0;
      while (quiet < {drain}) begin
        @(negedge clk);
        quiet = moved ? 0 : quiet + 1;
      end
{counts}
    end
    $display("PASS: {block}, {runs} runs of {beats} beats");
    $finish;
  end
endmodule
"""

_SOURCE: Final = """\
  reg [{top}:0] {name}_words [0:{last}], {name}_payload;
  reg {name}_valid = 0;
  reg [31:0] {name}_noise;
  integer {name}_next;
  wire {name}_ready;
  always @(posedge clk)
    if (!running) begin
      {name}_valid <= 0;
      {name}_next <= 0;
      {name}_noise <= 32'h{seed:08x};
    end else begin
      {name}_noise <= shuffled({name}_noise);
      if (!{name}_valid || {name}_ready) begin  // a beat once offered stays until it is taken
        {name}_valid <= 0;
        if ({name}_next < {count} && !(run[0] && {name}_noise[2:0] < 3)) begin
          {name}_valid <= 1;
          {name}_payload <= {name}_words[{name}_next];
          {name}_next <= {name}_next + 1;
        end
      end
    end
"""

_SINK: Final = """\
  reg [{top}:0] {name}_words [0:{last}];
  wire [{top}:0] {name}_payload;
  reg {name}_ready = 0;
  reg [31:0] {name}_noise;
  integer {name}_next = 0;
  wire {name}_valid;
  always @(posedge clk)
    if (!running) begin
      {name}_ready <= 0;
      {name}_next <= 0;
      {name}_noise <= 32'h{seed:08x};
    end else begin
      {name}_noise <= shuffled({name}_noise);
      {name}_ready <= !(run[1] && {name}_noise[2:0] < 3);
      if ({name}_valid !== 1'b0 && {name}_ready) begin
        if ({name}_valid !== 1'b1 || {name}_next >= {count} || {name}_payload !== {name}_words[{name}_next]) begin
          if ({name}_next >= {count})
            $display("FAIL: run %0s, {name}: a beat more than {count}, %h", mode, {name}_payload);
          else
            $display("FAIL: run %0s, {name}, beat %0d of {count}: expected %h, received %h, valid %b",
                     mode, {name}_next, {name}_words[{name}_next], {name}_payload, {name}_valid);
          $fatal(1);
        end
        {name}_next <= {name}_next + 1;
      end
    end
"""

_COUNT: Final = """\
      if ({name}_next != {count}) begin
        $display("FAIL: run %0s, {name}: %0d of {count} beats came", mode, {name}_next);
        $fatal(1);
      end"""


def write_testbench(vectors: StreamVectors, *, block: str, verilog: str, axis: bool = False) -> dict[str, str]:
    """Write a testbench and the files it reads.

    Parameters
    ----------
    vectors : StreamVectors
    block : str                Named in what it prints.
    verilog : str              Text of the module `top`; the widths of its ports are read from it.
    axis : bool                Streams are AXI4-Stream ports, tlast the payload's highest bit, clocked by aclk.

    Returns
    -------
    {file name: text}

    Raises
    ------
    ValueError                 If the module lacks a port of a stream or a constant.
    """
    ports = [".aclk(clk)", ".aresetn(~rst)"] if axis else [".clk(clk)", ".rst(rst)"]
    streams, reads = [], []
    held, constants = [], []
    files: dict[str, str] = {}
    sides = (("s", _SOURCE, vectors.inputs), ("m", _SINK, vectors.outputs))
    for number, (side, text, name, words) in enumerate(
        (side, text, name, words) for side, text, sent in sides for name, words in sent.items()
    ):
        port = f"{side}_axis_{name}" if axis else name
        width = port_bits(verilog, f"{port}_tdata" if axis else f"{port}__payload")
        last = axis and has_port(verilog, f"{port}_tlast")
        width += int(last)
        count = len(words)
        fields = {"name": name, "top": width - 1, "last": max(count - 1, 0), "count": count}
        streams.append(text.format(**fields, seed=0x9E3779B9 * (number + 1) & 0xFFFFFFFF))
        ports += _axis_ports(port, name, width, last, side == "s") if axis else _stream_ports(port, name)
        file = f"{TESTBENCH}_{name}.hex"
        if words:
            reads.append(f'    $readmemh("{file}", {name}_words);')
            files[file] = "".join(f"{word:0{-(-width // 4)}x}\n" for word in words)
    for name, value in vectors.constants.items():
        ports.append(f".{name}({name})")
        held.append(f"  reg [{port_bits(verilog, name) - 1}:0] {name};")
        constants.append(f"    {name} = 'h{value:x};")
    names = [*vectors.inputs, *vectors.outputs]
    frame = _FRAME.format(
        name=TESTBENCH,
        top=AXIS_TOP if axis else TOP,
        block=block,
        streams="\n".join(streams),
        ports=",\n".join(f"    {port}" for port in ports),
        moved=" | ".join(f"({name}_valid & {name}_ready)" for name in names),
        held="\n".join(held),
        constants="\n".join(["    @(negedge clk);", *constants]),
        reads="\n".join(reads),
        runs=len(MODES),
        modes="\n".join(f'        {run}: mode = "{mode}";' for run, mode in enumerate(MODES)),
        reset=_RESET_CYCLES,
        drain=_DRAIN_CYCLES,
        counts="\n".join(_COUNT.format(name=name, count=len(words)) for name, words in vectors.outputs.items()),
        beats=sum(map(len, vectors.outputs.values())),
    )
    return {f"{TESTBENCH}.v": frame, **files}


def block_testbench(
    block: str, parameters: Any, modules: Mapping[str, str], *, axis: bool = False, seed: int = 0
) -> dict[str, str]:
    """Write the testbench of a block by name, as `write_testbench`; nothing where it has no vectors.

    Parameters
    ----------
    block, parameters, seed          As for `block_vectors`.
    modules : {module: text}         What was emitted.
    axis : bool                      It has AXI4-Stream ports.
    """
    vectors = block_vectors(block, parameters, axis=modules if axis else None, seed=seed)
    if vectors is None:
        return {}
    return write_testbench(vectors, block=block, verilog=modules[AXIS_TOP if axis else TOP], axis=axis)


def _stream_ports(port: str, name: str) -> list[str]:
    return [f".{port}__{part}({name}_{part})" for part in ("payload", "valid", "ready")]


def _axis_ports(port: str, name: str, width: int, last: bool, whole: bool) -> list[str]:
    """tdata, and above it tlast; input beats are `whole`."""
    data = width - int(last)
    return [
        f".{port}_tdata({name}_payload[{data - 1}:0])",
        *([f".{port}_tlast({name}_payload[{data}])"] if last else []),
        *([f".{port}_tkeep({{{data // 8}{{1'b1}}}})"] if whole else []),
        *(f".{port}_t{part}({name}_{part})" for part in ("valid", "ready")),
    ]
