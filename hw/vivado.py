"""What a Vivado user needs beside the Verilog: constraints and an out-of-context synthesis script."""

from typing import Final

__all__ = ["vivado_files"]

_TCL: Final = """\
# Synthesize, place and route {top} out of context: vivado -mode batch -source synth.tcl
read_verilog top.v
read_xdc clock.xdc
synth_design -mode out_of_context -top {top} -part {part}
opt_design
place_design
phys_opt_design
route_design
# read back beside our estimate: sparsefab estimate --vivado-report utilization.rpt timing.rpt
report_utilization -file utilization.rpt
report_utilization -hierarchical -file hierarchy.rpt
report_timing_summary -file timing.rpt
"""

_XDC: Final = """\
# {clock_hz:.0f} Hz
create_clock -name {clock} -period {period_ns:.3f} [get_ports {clock}]
"""


def vivado_files(*, top: str, clock: str, part: str, clock_hz: float) -> dict[str, str]:
    """Write the constraints and the script.

    Parameters
    ----------
    top, clock : str           Module and its clock port.
    part : str                 The device, such as xcu280-fsvh2892-2L-e.
    clock_hz : float           Requested clock.

    Returns
    -------
    {file name: text}
    """
    if clock_hz <= 0:
        raise ValueError(f"clock_hz must be positive, not {clock_hz}")
    return {
        "synth.tcl": _TCL.format(top=top, part=part),
        "clock.xdc": _XDC.format(clock=clock, clock_hz=clock_hz, period_ns=1e9 / clock_hz),
    }
