"""Activations: operations on one value alone, each a table of 256 on int8."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgevit.ops.arithmetic import INT8_RANGE, Mul
from edgevit.ops.base import (
    TENSOR,
    UNARY,
    Node,
    Shape,
    Signature,
    Unary,
    UnsupportedError,
    activations,
    every_channel,
)
from edgevit.ops.quantizer import SYMMETRIC_UNIT_INTERVAL, UNIT_INTERVAL

if TYPE_CHECKING:
    from torch import Tensor


FLOAT32_ERROR = 6e-7
"""Error of a float32 kernel's result by its argument's size. Of XNNPACK's and torch's GELU 2e-7
each was measured; the rest is of rounding the argument and of multiplying by 1 / scale."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Curve(Unary):
    """An activation whose 256 values runtimes compute in float32, each by a kernel of its own."""

    @classmethod
    def curve(cls, x: np.ndarray) -> np.ndarray:
        """float64 of float64."""
        raise NotImplementedError

    @classmethod
    def steps(cls, x: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """The results in steps of `scale`, and how far a float32 kernel's may be from them."""
        return cls.curve(x) / scale, FLOAT32_ERROR * np.abs(x) / scale

    def ties(self, inputs: Sequence[Fraction], output: Fraction) -> tuple[int, int]:
        x = np.arange(-INT8_RANGE, INT8_RANGE + 1) * float(inputs[0])
        steps, error = self.steps(x, float(output))
        counts = np.abs(steps) <= INT8_RANGE + 1
        away = np.abs(steps - np.floor(steps) - 0.5)
        return 0, int((counts & (away <= error)).sum())


@dataclass(frozen=True, eq=False, kw_only=True)
class Gelu(Curve):
    """x * Phi(x), exact (erf)."""

    kind = "gelu"
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.gelu.default": {"self": TENSOR, "approximate": (str, "none")}
    }

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        if args["approximate"] != "none":
            raise UnsupportedError("an approximate GELU")
        return {}

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        from torch.nn import functional

        return functional.gelu(inputs[0])

    @classmethod
    def curve(cls, x: np.ndarray) -> np.ndarray:
        # erfc, since 1 + erf cancels on the negative side.
        return x * np.array([0.5 * math.erfc(-each / math.sqrt(2.0)) for each in x.tolist()])


@dataclass(frozen=True, eq=False, kw_only=True)
class HardSwish(Curve):
    """x * relu6(x + 3) / 6 (arXiv 1905.02244)."""

    kind = "hard_swish"
    aten: ClassVar[Mapping[str, Signature]] = {"aten.hardswish.default": UNARY}

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        from torch.nn import functional

        return functional.hardswish(inputs[0])

    @classmethod
    def curve(cls, x: np.ndarray) -> np.ndarray:
        return x * np.clip(x + 3.0, 0.0, 6.0) / 6.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Sigmoid(Unary):
    """1 / (1 + exp(-x)), at the scale that runtimes fix."""

    kind = "sigmoid"
    aten: ClassVar[Mapping[str, Signature]] = {"aten.sigmoid.default": UNARY}
    rule = UNIT_INTERVAL
    backward_reads_output = True

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        import torch

        return torch.sigmoid(inputs[0])


@dataclass(frozen=True, eq=False, kw_only=True)
class HardSigmoid(Unary):
    """relu6(x + 3) / 6, at the sigmoid's scale."""

    kind = "hard_sigmoid"
    aten: ClassVar[Mapping[str, Signature]] = {"aten.hardsigmoid.default": UNARY}
    rule = UNIT_INTERVAL

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        from torch.nn import functional

        return functional.hardsigmoid(inputs[0])


@dataclass(frozen=True, eq=False, kw_only=True)
class Tanh(Unary):
    """The hyperbolic tangent, at the scale that runtimes fix."""

    kind = "tanh"
    aten: ClassVar[Mapping[str, Signature]] = {"aten.tanh.default": UNARY}
    rule = SYMMETRIC_UNIT_INTERVAL
    backward_reads_output = True

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        import torch

        return torch.tanh(inputs[0])


@dataclass(frozen=True, eq=False, kw_only=True)
class Clamp(Unary):
    """An activation that cuts values off, which runtimes fuse behind convolutions."""

    backward_reads_output = True
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = math.inf

    @classmethod
    def clamped(cls, value: Tensor) -> Tensor:
        """`value` between the bounds."""
        raise NotImplementedError

    @classmethod
    def passes_factors(cls) -> bool:
        """Whether f(k x) is k f(x) for every k above 0."""
        return cls.low in (0, -math.inf) and math.isinf(cls.high)

    def carried(self, inputs: Sequence[Shape]) -> Sequence[np.ndarray] | None:
        return [every_channel(inputs[0])] if self.passes_factors() else None

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        return self.clamped(inputs[0])


@dataclass(frozen=True, eq=False, kw_only=True)
class Relu(Clamp):
    """max(x, 0)."""

    kind = "relu"
    aten: ClassVar[Mapping[str, Signature]] = {"aten.relu.default": UNARY}

    @classmethod
    def clamped(cls, value: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.relu(value)


_BOUND = ((int, float, type(None)), None)


@dataclass(frozen=True, eq=False, kw_only=True)
class Relu6(Clamp):
    """max(0, min(x, 6))."""

    kind = "relu6"
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.relu6.default": UNARY,
        "aten.hardtanh.default": {
            "self": TENSOR,
            "min_val": ((int, float), -1),
            "max_val": ((int, float), 1),
        },
        "aten.clamp.default": {"self": TENSOR, "min": _BOUND, "max": _BOUND},
        "aten.clamp_min.default": {"self": TENSOR, "min": _BOUND},
    }
    high = 6.0

    @classmethod
    def from_call(cls, name: str, args: Mapping[str, Any], shapes: Sequence[Shape]) -> list[Node]:
        bounds = tuple(v for key, v in args.items() if key not in ("self", "overload"))
        kind: type[Clamp] | None = {(): Relu6, (0, 6): Relu6, (0, None): Relu, (0,): Relu}.get(
            bounds
        )
        if kind is None:
            raise UnsupportedError(f"a clamp to {bounds}; 0 to 6 and 0 to infinity are known")
        return [kind(name=name, inputs=activations(args))]

    @classmethod
    def clamped(cls, value: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.relu6(value)


class Silu:
    """x * sigmoid(x), which no INT8 runtime has as one operation: it is a sigmoid and a product."""

    aten: ClassVar[Mapping[str, Any]] = {"aten.silu.default": UNARY}

    @classmethod
    def from_call(cls, name: str, args: Mapping[str, Any], shapes: Sequence[Shape]) -> list[Node]:
        (source,) = activations(args)
        return cls.nodes(name, source)

    @staticmethod
    def nodes(name: str, source: str) -> list[Node]:
        """The sigmoid "NAME.gate" and the product "NAME.mul"."""
        gate = Sigmoid(name=f"{name}.gate", inputs=(source,))
        return [gate, Mul(name=f"{name}.mul", inputs=(source, gate.name))]
