"""A linear layer in exact integers as ONNX operators: s8 codes with a scale a token, weights as codes, group scales.

    scale = max|x| / 127, or 1                codes = round(x / scale) + 128          u8, one scale a token
    sums  = MatMulInteger(codes, weights)     [groups, tokens, out], int32, zero points of both taken off
    acc   = ReduceSum(sums * multipliers)     over the groups, int32, + codes * outliers, exact in float64
            + 256 * MatMulInteger(codes, high) + MatMulInteger(codes, low)      outliers, by their two bytes
    y     = float32(acc) * row scale, then * token scale, + bias

So the layer has the bits of `formats.activations` and of the bit-true evaluation. DequantizeLinear and MatMulNBits,
which runtimes have for group scales, multiply floats instead, in sums that are rounded as the runtime likes. Codes and
weights are both u8 with zero points: some processors saturate products of u8 and s8.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sparsefab.formats import Format, IntFormat, QuantTensor

__all__ = ["IntegerLayer", "token_codes", "why_not_integers"]

_S32_MAX = (1 << 31) - 1
_MIDDLE, _LARGEST = 128, 127  # u8 code of 0; greatest s8 code

Store = Callable[[str, NDArray[Any] | np.generic], str]


def why_not_integers(tensor: QuantTensor, activations: Format) -> str:
    """Return why a layer with dynamic activations has no such form; empty if it has one."""
    if not (isinstance(activations, IntFormat) and activations.signed and activations.code_max == _LARGEST):
        return f"activations {activations.name}: only int8 has a scale a token in ONNX; left in float32"
    if not isinstance(tensor.format, IntFormat):
        return f"{tensor.format.name}: ONNX has no products of such weights; activations left in float32"
    codes, zeros, low = _shifted(tensor)
    if max(int(codes.max(initial=0)), int(zeros.max(initial=0))) > np.iinfo(np.uint8).max:
        return f"{tensor.format.name}: its codes span more than 8 bits from {low}; activations left in float32"
    reach = int((np.abs(tensor.integers()).sum(axis=1)).max(initial=0)) * _LARGEST
    return "" if reach <= _S32_MAX else f"sums can reach {reach}, beyond 32 bits; activations left in float32"


def token_codes(x: str, store: Store) -> tuple[list[Any], str, str]:
    """Return the nodes that quantize float32[..., in], and the names of the codes u8[..., in] and scales [..., 1]."""
    name = f"{x}.int8"
    greatest, none, ratio, scale = (f"{name}.{part}" for part in ("greatest", "none", "ratio", "scale"))
    number = {
        part: store(f"{name}.{part}", np.float32(value))
        for part, value in (("zero", 0), ("one", 1), ("largest", _LARGEST), ("middle", _MIDDLE))
    }
    axes = store(f"{name}.axis", np.array([-1]))
    steps = [
        ("Abs", [x], f"{name}.magnitude", {}),
        ("ReduceMax", [f"{name}.magnitude", axes], greatest, {"keepdims": 1}),
        ("Equal", [greatest, number["zero"]], none, {}),
        ("Div", [greatest, number["largest"]], ratio, {}),
        ("Where", [none, number["one"], ratio], scale, {}),
        ("Div", [x, scale], f"{name}.quotient", {}),
        ("Round", [f"{name}.quotient"], f"{name}.rounded", {}),
        ("Add", [f"{name}.rounded", number["middle"]], f"{name}.shifted", {}),
        ("Cast", [f"{name}.shifted"], f"{name}.codes", {"to": TensorProto.UINT8}),
    ]
    return [_node(*step) for step in steps], f"{name}.codes", scale


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IntegerLayer:
    """The product of one layer.

    x : str                      What the codes were made of, [..., in].
    codes, scales : str          What `token_codes` returned for it.
    bias : str                   float32[out]; empty without one.
    """

    name: str
    tensor: QuantTensor
    x: str
    codes: str
    scales: str
    bias: str
    output: str

    def nodes(self, store: Store) -> list[Any]:
        """Return the nodes that make float32[..., out] in `output`; `store` keeps a constant and returns its name."""
        tensor = self.tensor
        (rows, columns), groups = tensor.shape, tensor.spec.groups
        weights, zeros, _ = _shifted(tensor)
        filler = groups * tensor.group_size - columns
        weights = np.pad(weights, ((0, 0), (0, filler))).reshape(rows, groups, tensor.group_size)

        def at(part: str) -> str:
            return f"{self.name}.{part}"

        def keep(part: str, array: NDArray[Any] | np.generic) -> str:
            return store(at(part), array)

        codes, middle = self.codes, keep("middle", np.uint8(_MIDDLE))
        steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
            ("Reshape", [codes, keep("rows", np.array([-1, columns]))], at("tokens"), {})
        ]
        if filler:  # a last group that is short takes codes of 0
            steps.append(("Pad", [at("tokens"), keep("filler", np.array([0, 0, 0, filler])), middle], at("whole"), {}))
        steps += [
            ("Reshape", [steps[-1][2], keep("grid", np.array([-1, groups, tensor.group_size]))], at("grouped"), {}),
            ("Transpose", [at("grouped")], at("turned"), {"perm": [1, 0, 2]}),
            ("MatMulInteger", [at("turned"), keep("codes", weights.transpose(1, 2, 0).astype(np.uint8)), middle,
                               keep("zeros", zeros.T[:, None, :].astype(np.uint8))], at("sums"), {}),
        ]  # fmt: skip
        if tensor.group_multipliers is not None:
            factors = tensor.group_multipliers.T[:, None, :].astype(np.int32)
            steps.append(("Mul", [at("sums"), keep("multipliers", factors)], at("multiplied"), {}))
        steps += [("ReduceSum", [steps[-1][2], keep("groups", np.array([0]))], at("accumulators"), {"keepdims": 0})]
        if tensor.outliers is not None:
            high, low = (tensor.outliers >> 8) + _MIDDLE, tensor.outliers & 255
            steps += [
                ("MatMulInteger", [at("tokens"), keep("outliers_high", high.T.astype(np.uint8)), middle, middle],
                                  at("high"), {}),
                ("MatMulInteger", [at("tokens"), keep("outliers_low", low.T.astype(np.uint8)), middle], at("low"), {}),
                ("Mul", [at("high"), keep("byte", np.int32(256))], at("raised"), {}),
                ("Add", [at("accumulators"), at("raised")], at("partly"), {}),
                ("Add", [at("partly"), at("low")], at("all"), {}),
            ]  # fmt: skip
        steps += [
            ("Cast", [steps[-1][2]], at("reals"), {"to": TensorProto.FLOAT}),
            ("Mul", [at("reals"), keep("row_scales", tensor.accumulator_scale)], at("scaled"), {}),
            ("Shape", [self.x], at("lengths"), {"end": -1}),
            ("Concat", [at("lengths"), keep("width", np.array([rows]))], at("shape"), {"axis": 0}),
            ("Reshape", [at("scaled"), at("shape")], at("shaped"), {}),
            ("Mul", [at("shaped"), self.scales], at("product") if self.bias else self.output, {}),
        ]
        if self.bias:
            steps.append(("Add", [at("product"), self.bias], self.output, {}))
        return [_node(*step) for step in steps]


def _shifted(tensor: QuantTensor) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Codes [out, in] and zero points [out, groups], both less the smallest of them, and that; absent codes mean 0."""
    zeros = np.zeros((tensor.shape[0], tensor.spec.groups), np.int64)
    if tensor.zero_points is not None:
        zeros = tensor.zero_points.astype(np.int64)
    codes = tensor.centred() + tensor.per_weight(zeros, 0)
    low = min(int(codes.min(initial=0)), int(zeros.min(initial=0)))
    return codes - low, zeros - low, low


def _node(op: str, inputs: list[str], output: str, attributes: dict[str, Any]) -> Any:
    return helper.make_node(op, inputs, [output], output, **attributes)
