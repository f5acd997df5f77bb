"""The operations that edgevit knows: one class each, and nothing about them anywhere else.

To add one, write its class here and one emit/read pair in each target.
"""

from __future__ import annotations

from typing import Any

from edgevit.ops.arithmetic import Add, Binary, Mul
from edgevit.ops.base import Node, Ref, Shape, Unary, UnsupportedError, quantize
from edgevit.ops.convolution import Conv2d, ConvTranspose2d, Linear
from edgevit.ops.norm import LayerNorm
from edgevit.ops.pointwise import (
    Clamp,
    Curve,
    Gelu,
    HardSigmoid,
    HardSwish,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
    Tanh,
)
from edgevit.ops.quantizer import (
    HOW,
    INT8_MAX,
    INT8_MIN,
    WEIGHT_MAX,
    Fixed,
    How,
    Learned,
    Quantizer,
    SameAs,
    is_float16_exact,
)
from edgevit.ops.reduce import AvgPool2d, MaxPool2d, Mean, Softmax
from edgevit.ops.shape import ELIDED, Concat, Flatten, Pad, Resize, Slice
from edgevit.ops.weighted import ChannelAffine, FloatWeights, Int8Weights, Weighted


def _concrete(base: type[Node]) -> list[type[Node]]:
    """The classes under `base` that name an operation, in the order of their definition."""
    found = []
    for each in base.__subclasses__():
        found += ([each] if "kind" in vars(each) else []) + _concrete(each)
    return list(dict.fromkeys(found))


OPERATIONS: tuple[type[Node], ...] = tuple(
    operation for operation in _concrete(Node) if not operation.traced_only
)
"""Every operation that a program may hold."""

BY_KIND: dict[str, type[Node]] = {operation.kind: operation for operation in OPERATIONS}
CLAMPS: dict[str, type[Clamp]] = {
    kind: operation for kind, operation in BY_KIND.items() if issubclass(operation, Clamp)
}
"""The activations that may be fused behind a convolution."""

TRACED: tuple[Any, ...] = (*_concrete(Node), Silu)
BY_OVERLOAD: dict[str, Any] = {overload: op for op in TRACED for overload in op.aten}
"""ATen overload -> the class whose `from_call` reads it: the allow-list of traced nets."""

__all__ = [
    "BY_KIND", "BY_OVERLOAD", "CLAMPS", "ELIDED", "HOW", "INT8_MAX", "INT8_MIN", "OPERATIONS",
    "WEIGHT_MAX", "Add", "AvgPool2d", "Binary", "ChannelAffine", "Clamp", "Concat", "Conv2d",
    "ConvTranspose2d", "Curve", "Fixed", "Flatten", "FloatWeights", "Gelu", "HardSigmoid",
    "HardSwish",
    "How", "Int8Weights", "LayerNorm", "Learned", "Linear", "MaxPool2d", "Mean", "Mul", "Node",
    "Pad", "Quantizer", "Ref", "Relu", "Relu6", "Resize", "SameAs", "Shape", "Sigmoid", "Silu",
    "Slice", "Softmax", "Tanh", "Unary", "UnsupportedError", "Weighted", "is_float16_exact",
    "quantize",
]  # fmt: skip
