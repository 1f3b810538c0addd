"""What the definitions of intrinsics share: checks of their types and the LLVM that several of them emit."""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from sparsefab.kernels_cpu.vector import VectorType

__all__ = ["intrinsic_named", "invoke", "pointer", "referenced_type", "require_vectors", "shuffle", "splat_lanes"]

_I32 = ir.IntType(32)


def intrinsic_named(name: str, definition: Callable[..., Any]) -> Any:
    """Make an intrinsic of a function that a factory returned; the cache tells intrinsics apart by their names."""
    definition.__name__ = definition.__qualname__ = name
    return intrinsic(definition)


def referenced_type(kind: Any) -> VectorType:
    if isinstance(kind, types.TypeRef) and isinstance(kind.instance_type, VectorType):
        return kind.instance_type
    raise TypingError(f"the first argument is a vector type, not {kind}")


def require_vectors(*operands: Any) -> None:
    for operand in operands:
        if not isinstance(operand, VectorType):
            raise TypingError(f"a vector is needed, not {operand}")


def pointer(builder: Any, address: Any, element: ir.Type) -> Any:
    return builder.inttoptr(address, element.as_pointer())


def shuffle(builder: Any, pair: Sequence[Any], mask: list[int]) -> Any:
    a, b = pair
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(mask)), [_I32(i) for i in mask]))


def splat_lanes(builder: Any, value: Any, lanes: int) -> Any:
    kind = ir.VectorType(value.type, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
    return shuffle(builder, (first, first), [0] * lanes)


def invoke(builder: Any, name: str, result: ir.Type, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)
