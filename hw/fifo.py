"""The output FIFO behind free-running logic: credits instead of a full flag."""

from typing import Any, Final

from amaranth.hdl import Elaboratable, Module, Shape, ShapeLike, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sparsefab.hw.modules import Placer
from sparsefab.hw.select import LutRam

__all__ = ["CreditFifo"]

_DEPTH: Final = 32


class CreditFifo(wiring.Component):
    """Store what a pipeline without stalls produces; a beat may enter the pipeline only when it has a place here.

    Parameters
    ----------
    shape : ShapeLike          Payload of the output stream.
    ahead : int                Cycles from `available` to the decision that `take` reports, 1 where it is registered.
    body, placer               As for LutRam.

    Members
    -------
    take : In(1)               A beat entered the pipeline in the cycle before: one place is promised.
    available : Out(1)         There is a place to promise; from a register, so independent of `o.ready`.
    push, data : In            The beat leaves the pipeline.
    o : Out(stream)            First in, first out.

    Notes
    -----
    32 places, one push and one pop a cycle; two cycles from push to o.valid.
    """

    o: stream.Interface

    def __init__(self, *, shape: ShapeLike, body: str, placer: Placer, ahead: int = 0) -> None:
        self.ahead, self.body, self.placer = ahead, body, placer
        self.width = Shape.cast(shape).width
        super().__init__(
            {"take": In(1), "available": Out(1), "push": In(1), "data": In(shape), "o": Out(stream.Signature(shape))}
        )

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        store: Any = self.placer.place(
            m,
            "store",
            f"sparsefab_fifo{self.width}",
            lambda: LutRam(memories=1, width=self.width, body=self.body, placer=self.placer),
        )
        write, read = Signal(range(2 * _DEPTH), name="write"), Signal(range(2 * _DEPTH), name="read")
        # places that are promised, those for beats that `take` does not count yet among them: negative while there is
        # one left, so that the sign, a register, says whether
        reserve = 2 + self.ahead
        promised = Signal(range(-_DEPTH, reserve), init=reserve - 1 - _DEPTH)
        popped = Signal()
        filled = Signal()
        out = Signal(self.width, reset_less=True)
        m.d.comb += [
            self.available.eq(promised[-1]),
            store.write_address.eq(write),
            store.write_data0.eq(Value.cast(self.data)),
            store.write_enable.eq(self.push),
            store.read_address0.eq(read),
            self.o.valid.eq(filled),
            Value.cast(self.o.payload).eq(out),
        ]
        m.d.sync += popped.eq(self.o.valid & self.o.ready)
        with m.If(self.take & ~popped):
            m.d.sync += promised.eq(promised + 1)
        with m.Elif(popped & ~self.take):
            m.d.sync += promised.eq(promised - 1)
        m.d.sync += write.eq(write + self.push)
        with m.If(~filled | self.o.ready):
            m.d.sync += [filled.eq(write != read), read.eq(read + (write != read)), out.eq(store.read_data0)]
        return m
