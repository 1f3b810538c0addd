"""The meaning of the hardware (sim.reference) and the benches that hold the Verilog to it."""
