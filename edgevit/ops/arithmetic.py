"""Arithmetic on two tensors, which may broadcast either way."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgevit.errors import InputError
from edgevit.ops.base import (
    BINARY,
    REQUIRED,
    TENSOR,
    Node,
    Ref,
    Shape,
    Signature,
    Step,
    UnsupportedError,
    activations,
    every_channel,
    requantize,
)
from edgevit.ops.quantizer import INT8_MAX, INT8_MIN, Quantizer

if TYPE_CHECKING:
    from torch import Tensor

    from edgevit.kernels.exact import PairStep, TorchKernels

INT8_RANGE = INT8_MAX - INT8_MIN
"""The largest magnitude of an int8 value less its zero-point."""
_CONSTANT = {**BINARY, "other": ((Ref, int, float), REQUIRED)}


def _constant(args: Mapping[str, Any], shapes: Sequence[Shape]) -> np.ndarray | None:
    """The operand that is stored rather than computed, float64 and flat; None where both are."""
    found = [v for v in (args["self"], args["other"]) if not isinstance(v, Ref)]
    if not found:
        return None
    values = np.asarray(found[0], np.float64)
    rank = len(shapes[0]) if shapes else 0
    aligned = (1,) * (rank - values.ndim) + values.shape
    # One value in all or one a channel, axis 1. (W,) lines up with the width, whatever its size.
    if len(aligned) > rank or any(size != 1 for axis, size in enumerate(aligned) if axis != 1):
        raise UnsupportedError(f"a constant of shape {values.shape}; one value a channel is known")
    return values.reshape(-1)


def _affine(name: str, args: Mapping[str, Any], gain: Any, offset: Any) -> list[Node]:
    from edgevit.ops.weighted import ChannelAffine

    gain, offset = np.broadcast_arrays(np.atleast_1d(gain), np.atleast_1d(offset))
    return [
        ChannelAffine(
            name=name,
            inputs=activations(args),
            gain=np.asarray(gain, np.float64),
            offset=np.asarray(offset, np.float64),
        )
    ]


@dataclass(frozen=True, eq=False, kw_only=True)
class Binary(Node):
    """Two tensors of one rank, of shapes that broadcast."""

    arity = 2

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        # (N, C) would line its N up with the H of (N, C, H, W): another result for another N.
        if len(inputs[0]) == len(inputs[1]):
            with contextlib.suppress(ValueError):
                return tuple(int(size) for size in np.broadcast_shapes(*inputs))
        raise InputError(f"{self.name}: {self.kind} of {inputs[0]} and {inputs[1]}")

    def _channels(self, inputs: Sequence[Shape]) -> list[np.ndarray]:
        """Per input, the channel that each output channel reads."""
        every = every_channel(self.output_shape(inputs))
        return [every if shape[1] > 1 else np.zeros_like(every) for shape in inputs]

    def _by(self, kernel: PairStep | None, inputs: Sequence[Quantizer], output: Quantizer) -> Step:
        """The kernel's result; the default's for shapes that it does not know, and without it."""
        otherwise = self.by_definition(inputs, output)
        if kernel is None:
            return otherwise

        def step(a: Tensor, b: Tensor) -> Tensor:
            found = kernel(a, b)
            return otherwise(a, b) if found is None else found

        return step


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(Binary):
    """The sum of two tensors.

    A tie is a·s_a + b·s_b = (n + 1/2)·s_o with integers a, b, n. If all three scales are multiples
    of one power of two g, and s_o an odd one, then the left side is a multiple of g and the right
    side is not: hence `scales_on_one_grid`.
    """

    kind = "add"
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.add.Tensor": {**_CONSTANT, "alpha": (int, 1)},
        "aten.sub.Tensor": {**_CONSTANT, "alpha": (int, 1)},
        "aten.rsub.Scalar": {"self": TENSOR, "other": ((int, float), REQUIRED), "alpha": (int, 1)},
    }
    scales_on_one_grid = True

    @classmethod
    def from_call(cls, name: str, args: Mapping[str, Any], shapes: Sequence[Shape]) -> list[Node]:
        subtracts = args.get("overload") == "aten.sub.Tensor"
        if args["alpha"] != 1:
            raise UnsupportedError(f"a sum with alpha {args['alpha']}")
        constant = _constant(args, shapes)
        if args.get("overload") == "aten.rsub.Scalar":
            return _affine(name, args, -1.0, constant)
        if constant is None:
            if not subtracts:
                return [cls(name=name, inputs=activations(args))]
            first, second = activations(args)
            (negated,) = _affine(f"{name}.negated", {"other": Ref(second)}, -1.0, 0.0)
            return [negated, cls(name=name, inputs=(first, negated.name))]
        if subtracts and isinstance(args["other"], Ref):  # constant - x
            return _affine(name, args, -1.0, constant)
        return _affine(name, args, 1.0, -constant if subtracts else constant)

    def carried(self, inputs: Sequence[Shape]) -> Sequence[np.ndarray] | None:
        return self._channels(inputs)

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        return inputs[0] + inputs[1]

    def integer(
        self, inputs: Sequence[Quantizer], output: Quantizer, kernels: TorchKernels
    ) -> Step:
        grids = (*inputs, output)
        kernel = kernels.add([q.scale for q in grids], [q.zero_point for q in grids])
        return self._by(kernel, inputs, output)


@dataclass(frozen=True, eq=False, kw_only=True)
class Mul(Binary):
    """The product of two tensors.

    A tie is p·s_a·s_b = (n + 1/2)·s_o with p a product of two int8. Runtimes multiply the three
    scales in different orders, so what lies within float32's rounding of a tie counts as one.
    """

    kind = "mul"
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.mul.Tensor": _CONSTANT,
        "aten.div.Tensor": _CONSTANT,
    }

    @classmethod
    def from_call(cls, name: str, args: Mapping[str, Any], shapes: Sequence[Shape]) -> list[Node]:
        divides = args.get("overload") == "aten.div.Tensor"
        constant = _constant(args, shapes)
        if constant is not None and not (divides and isinstance(args["other"], Ref)):
            return _affine(name, args, 1 / constant if divides else constant, 0.0)
        if divides and constant is None:
            from edgevit.ops.norm_parts import Quotient

            return [Quotient(name=name, inputs=activations(args))]
        if divides:
            raise UnsupportedError("a quotient with a tensor below the line")
        return [cls(name=name, inputs=activations(args))]

    def carried(self, inputs: Sequence[Shape]) -> Sequence[np.ndarray] | None:
        if self.inputs[0] == self.inputs[1]:  # a square
            return None
        # One of the two carries, the larger one: the other is its gate.
        found = self._channels(inputs)
        sizes = [math.prod(shape) for shape in inputs]
        gate = 1 if sizes[0] >= sizes[1] else 0
        found[gate] = np.full_like(found[gate], -1)
        return found

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        return inputs[0] * inputs[1]

    def exact(self, inputs: Sequence[Quantizer], output: Quantizer) -> Step:
        """round(product * float32(s_a * s_b / s_o)): float32 holds every product of two int8."""
        scale = inputs[0].scale * inputs[1].scale / output.scale
        return lambda a, b: requantize(a * b, scale, output)

    def integer(
        self, inputs: Sequence[Quantizer], output: Quantizer, kernels: TorchKernels
    ) -> Step:
        scale = inputs[0].scale * inputs[1].scale / output.scale
        zero_points = [q.zero_point for q in (*inputs, output)]
        return self._by(kernels.mul(scale, zero_points), inputs, output)

    def ties(self, inputs: Sequence[Fraction], output: Fraction) -> tuple[int, int]:
        ratio = output / (2 * inputs[0] * inputs[1])  # p / (2 n + 1)
        exact = 0
        if ratio.denominator % 2:
            largest = INT8_RANGE**2 // ratio.numerator, (2 * INT8_RANGE + 1) // ratio.denominator
            exact = (min(largest) + 1) // 2
        steps = _products() * float(inputs[0] * inputs[1] / output)
        steps = steps[steps <= INT8_RANGE + 1]
        away = np.abs(steps - np.floor(steps) - 0.5)
        return exact, int((away <= steps * _ROUNDINGS).sum())


_ROUNDINGS = 3 * 2.0**-24
"""Of three float32 operations, relative: of the scales, of the product, of the quotient."""


@functools.cache
def _products() -> np.ndarray:
    """float64, every magnitude that a product of two int8 less their zero-points has."""
    values = np.arange(INT8_RANGE + 1, dtype=np.float64)
    return np.unique(np.outer(values, values))
