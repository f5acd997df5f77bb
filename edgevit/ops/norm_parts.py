"""Parts of a layer norm as nets write it; `graph.norms` puts them together, no program holds one.

Given   u = x.mean(1, keepdim=True); s = (x - u).pow(2).mean(1, keepdim=True)
        (x - u) / torch.sqrt(s + eps); or layer_norm between two permutes
Result  ChannelMean, Power, Quotient; or Permute, LastNorm, Permute
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from edgevit.ops.arithmetic import Binary
from edgevit.ops.base import (
    REQUIRED,
    TENSOR,
    UNARY,
    Node,
    Ref,
    Shape,
    Signature,
    UnsupportedError,
    activations,
)

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False, kw_only=True)
class ChannelMean(Node):
    """The mean over the channels of maps: (N, C, H, W) to (N, 1, H, W)."""

    kind = "channel_mean"
    traced_only = True

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        (shape,) = inputs
        return shape[0], 1, *shape[2:]


@dataclass(frozen=True, eq=False, kw_only=True)
class ChannelVariance(ChannelMean):
    """The biased variance over the channels of maps."""

    kind = "channel_variance"
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.var.correction": {
            "self": TENSOR,
            "dim": ((tuple, type(None)), None),
            "correction": ((int, float, type(None)), None),
            "keepdim": (bool, False),
        },
        "aten.var.dim": {
            "self": TENSOR,
            "dim": (tuple, REQUIRED),
            "unbiased": (bool, True),
            "keepdim": (bool, False),
        },
    }

    @classmethod
    def from_call(cls, name: str, args: Mapping[str, Any], shapes: Sequence[Shape]) -> list[Node]:
        biased = args.get("correction", 1) == 0 or args.get("unbiased", True) is False
        axes = [axis % len(shapes[0]) for axis in args["dim"] or ()]
        if not biased or axes != [1] or not args["keepdim"] or len(shapes[0]) != 4:
            raise UnsupportedError("a variance that is not a layer norm's over the channels")
        return [cls(name=name, inputs=activations(args))]


@dataclass(frozen=True, eq=False, kw_only=True)
class Power(Node):
    """x to a fixed power."""

    exponent: float

    kind = "power"
    traced_only = True
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.pow.Tensor_Scalar": {"self": TENSOR, "exponent": ((int, float), REQUIRED)},
        "aten.square.default": UNARY,
        "aten.sqrt.default": UNARY,
        "aten.rsqrt.default": UNARY,
    }

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        fixed = {
            "aten.square.default": 2.0, "aten.sqrt.default": 0.5, "aten.rsqrt.default": -0.5
        }  # fmt: skip
        found = fixed.get(args["overload"], args.get("exponent"))
        return {"exponent": float(found if found is not None else 1.0)}


@dataclass(frozen=True, eq=False, kw_only=True)
class Quotient(Binary):
    """One tensor over another."""

    kind = "div"
    traced_only = True


@dataclass(frozen=True, eq=False, kw_only=True)
class Permute(Node):
    """Maps with their axes in another order."""

    order: tuple[int, ...]

    kind = "permute"
    traced_only = True
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.permute.default": {"self": TENSOR, "dims": (tuple, REQUIRED)}
    }

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        rank = len(shapes[0])
        order = tuple(axis % rank for axis in args["dims"])
        if order not in ((0, 2, 3, 1), (0, 3, 1, 2)):
            raise UnsupportedError(f"an order of axes {order}")
        return {"order": order}

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        return tuple(inputs[0][axis] for axis in self.order)


@dataclass(frozen=True, eq=False, kw_only=True)
class LastNorm(Node):
    """A layer norm over the last axis; weight and bias (C,), or None."""

    eps: float
    weight: np.ndarray | None = field(default=None, repr=False, metadata={"stored": False})
    bias: np.ndarray | None = field(default=None, repr=False, metadata={"stored": False})

    kind = "last_norm"
    traced_only = True
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.layer_norm.default": {
            "input": TENSOR,
            "normalized_shape": (tuple, REQUIRED),
            "weight": ((Ref, type(None)), None),
            "bias": ((Ref, type(None)), None),
            "eps": (float, 1e-5),
            "cudnn_enable": (bool, True),
        }
    }

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        if len(shapes[0]) != 4 or len(args["normalized_shape"]) != 1:
            raise UnsupportedError("a layer norm that is not over the channels of maps")
        if any(isinstance(args[name], Ref) for name in ("weight", "bias")):
            raise UnsupportedError("a layer norm whose weight is computed, not stored,")
        return {name: args[name] for name in ("eps", "weight", "bias")}
