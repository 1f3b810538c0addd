"""Bit-exact meaning of the hardware: integers in, integers out, arrays only."""
