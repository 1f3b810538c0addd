"""Fixed-width vectors as Numba values: a type per (element, lanes), held in registers by LLVM.

    i8x64, i16x32, i32x16, f32x16, f16x32   one 512-bit register
    i8x32, i16x16, i32x8,  f32x8         one 256-bit register
    i8x16, i16x8,  i32x4,  f32x4, i64x2  one 128-bit register

The signedness of an integer element belongs to the operation, as in the instruction set, not to the type.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models
from numba.extending import register_model

__all__ = [
    "VectorType",
    "f16x32",
    "f32x4",
    "f32x8",
    "f32x16",
    "i8x16",
    "i8x32",
    "i8x64",
    "i16x8",
    "i16x16",
    "i16x32",
    "i32x4",
    "i32x8",
    "i32x16",
    "i64x2",
    "vector",
]

_ELEMENTS: dict[str, Any] = {
    "i8": ir.IntType(8),
    "i16": ir.IntType(16),
    "i32": ir.IntType(32),
    "i64": ir.IntType(64),
    "f16": ir.HalfType(),
    "f32": ir.FloatType(),
}
_BITS = {"i8": 8, "i16": 16, "i32": 32, "i64": 64, "f16": 16, "f32": 32}


class VectorType(types.Type):
    """`lanes` elements of one kind ('i8', 'i16', 'i32', 'i64', 'f16' or 'f32')."""

    def __init__(self, element: str, lanes: int) -> None:
        self.element = element
        self.lanes = lanes
        super().__init__(name=f"{element}x{lanes}")

    @property
    def key(self) -> tuple[str, int]:
        return (self.element, self.lanes)

    @property
    def bits(self) -> int:
        """Width of the whole vector."""
        return _BITS[self.element] * self.lanes

    @property
    def bytes(self) -> int:
        """Width of the whole vector; also the alignment that aligned loads and stores promise."""
        return self.bits // 8

    @property
    def llvm(self) -> ir.VectorType:
        """The LLVM type of a value."""
        return ir.VectorType(_ELEMENTS[self.element], self.lanes)

    @property
    def suffix(self) -> str:
        """How LLVM's overloaded intrinsics name this type, for example 'v16i32'."""
        return f"v{self.lanes}{self.element}"

    def of(self, element: str) -> "VectorType":
        """Return the type of the same width with other elements."""
        return vector(element, self.bits // _BITS[element])


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector_type: VectorType) -> None:
        super().__init__(manager, vector_type, vector_type.llvm)


_KNOWN: dict[tuple[str, int], VectorType] = {}


def vector(element: str, lanes: int) -> VectorType:
    """Return the type with `lanes` elements of `element`; equal requests give the same object."""
    return _KNOWN.setdefault((element, lanes), VectorType(element, lanes))


i8x64, i16x32, i32x16, f32x16 = vector("i8", 64), vector("i16", 32), vector("i32", 16), vector("f32", 16)
i8x16, i16x8, i32x4, f32x4 = vector("i8", 16), vector("i16", 8), vector("i32", 4), vector("f32", 4)
i64x2 = vector("i64", 2)
f16x32 = vector("f16", 32)
i8x32, i16x16, i32x8, f32x8 = vector("i8", 32), vector("i16", 16), vector("i32", 8), vector("f32", 8)
