"""Layer norm over the channels of maps: the one operation that a program computes on real numbers.

Its statistics differ from position to position by more than int8 holds (docs/encoder.md), so
it is a float island: targets write DEQUANTIZE, real operators, QUANTIZE for it, and for it alone.
`edgevit.ops.norm_parts` has what nets write it as.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from edgevit.errors import InputError
from edgevit.ops.base import Node, Shape, Step, quantize, require_maps
from edgevit.ops.quantizer import Quantizer
from edgevit.ops.weighted import FloatWeights

if TYPE_CHECKING:
    from torch import Tensor

MAX_NORM_CHANNELS = 2**16
"""Up to here every sum of `LayerNorm.exact` is an integer that float64 holds."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerNorm(Node):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the channels of (N, C, H, W).

    Of each position: mean and biased variance over its channels (arXiv 1607.06450, as Segment
    Anything's neck has it, arXiv 2304.02643).

    eps      a positive float32
    weights  float32 (C,) each; they stay real numbers in a program
    """

    eps: float
    weights: FloatWeights = field(repr=False, metadata={"stored": False})

    kind = "layer_norm"
    runs_in_float = True

    def __post_init__(self) -> None:
        super().__post_init__()
        weight, bias = self.weights.weight, self.weights.bias
        if not 0 < self.eps <= float(np.finfo(np.float32).max) or not _is_float32(self.eps):
            raise InputError(f"{self.name}: eps {self.eps!r} is not a positive float32")
        fits = weight.ndim == 1 and weight.shape == bias.shape and len(weight) > 0
        if not fits or len(weight) > MAX_NORM_CHANNELS:
            raise InputError(f"{self.name}: weight {weight.shape} and bias {bias.shape} do not fit")
        if any(values.dtype != np.float32 for values in (weight, bias)):
            raise InputError(f"{self.name}: the weights of a layer norm are float32")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise InputError(f"{self.name}: a weight or bias is not a finite number")

    @property
    def stored_as(self) -> str:
        return self.name

    @property
    def channels(self) -> int:
        """Of the maps."""
        return len(self.weights.weight)

    def real_weights(self) -> tuple[np.ndarray, ...]:
        """float32 (C, 1, 1) each, so that they broadcast over maps."""
        return tuple(v.reshape(-1, 1, 1) for v in (self.weights.weight, self.weights.bias))

    def with_real_weights(self, values: Sequence[np.ndarray]) -> Self:
        weight, bias = (value.reshape(-1) for value in values)
        return replace(self, weights=FloatWeights(weight, bias))

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        (shape,) = inputs
        require_maps(self, shape)
        if shape[1] != self.channels:
            raise InputError(f"{self.name}: weights of {self.channels} channels for {shape}")
        return shape

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        """In the order of the formula: the order in which every target's operators compute it."""
        import torch

        (x,), (weight, bias) = inputs, weights
        centred = x - torch.mean(x, (1,), keepdim=True)
        variance = torch.mean(centred * centred, (1,), keepdim=True)
        return centred / torch.sqrt(variance + self.eps) * weight + bias

    def exact(self, inputs: Sequence[Quantizer], output: Quantizer) -> Step:
        """By the integers' own sums, which are exact in any order.

        With T = sum q and S = sum q² over the C channels (q less its zero-point), the result is
        (C q - T) / sqrt(C S - T² + eps (C / scale)²) * weight + bias: each of its operations in
        float64, the last rounded to float32, and that to the output's grid.
        """
        real, zero_point = self.real(inputs), inputs[0].zero_point
        return lambda x: quantize(real(x + zero_point), output)

    def real(self, inputs: Sequence[Quantizer]) -> Step:
        """See `exact`, without its last rounding."""
        import torch

        (source,) = inputs
        weight, bias = (torch.from_numpy(v.astype(np.float64)) for v in self.real_weights())
        floor = self.eps * (self.channels / source.scale) ** 2

        def step(x: Tensor) -> Tensor:
            q, count = x.double() - source.zero_point, self.channels
            total = q.sum(1, keepdim=True)
            spread = (q * q).sum(1, keepdim=True).mul_(count).sub_(total * total)
            normal = q.mul(count).sub_(total).div_(spread.add_(floor).sqrt_())
            return normal.mul_(weight.to(x.device)).add_(bias.to(x.device)).float()

        return step


def _is_float32(value: float) -> bool:
    # As Python's float: numpy would round the other side of the comparison as well.
    return float(np.float32(value)) == value


def layer_norm(name: str, source: str, eps: float, weight: Any, bias: Any, channels: int) -> Node:
    """The node of a net's numbers, each one value or (C,); None for a weight of 1, a bias of 0."""
    values = [
        np.broadcast_to(np.asarray(default if v is None else v, np.float32).reshape(-1), channels)
        for v, default in ((weight, 1.0), (bias, 0.0))
    ]
    weights = FloatWeights(*(np.ascontiguousarray(v) for v in values))
    return LayerNorm(name=name, inputs=(source,), eps=float(np.float32(eps)), weights=weights)
