"""Amaranth components of the accelerator, from vendor primitives to the sparse chain, and their emission as Verilog."""
