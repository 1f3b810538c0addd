"""Registers that carry a value along a pipeline."""

from amaranth.hdl import Module, Shape, Signal, Value

__all__ = ["later"]


def later(m: Module, value: Value, name: str, cycles: int, *, first: int = 0, reset_less: bool = True) -> Value:
    """Return the value `cycles` cycles later, of the same shape; stage k's register is called s<first + k>_<name>."""
    shape = Shape.cast(value.shape())
    for cycle in range(cycles):
        register = Signal(shape, name=f"s{first + cycle}_{name}", reset_less=reset_less)
        m.d.sync += register.eq(value)
        value = register
    return value
