"""What operations with weights share, and the affine that folds into them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from edgevit.errors import InputError
from edgevit.kernels.bounds import EXACT_FLOAT32
from edgevit.ops.base import (
    REQUIRED,
    TENSOR,
    Node,
    Ref,
    Shape,
    Signature,
    Step,
    UnsupportedError,
    activations,
)
from edgevit.ops.pointwise import Clamp
from edgevit.ops.quantizer import INT8_MAX, INT8_MIN, WEIGHT_MAX, How, Quantizer

if TYPE_CHECKING:
    from torch import Tensor

    from edgevit.kernels.exact import TorchKernels


@dataclass(frozen=True, eq=False)
class FloatWeights:
    """The float32 weight, and the float32 bias [O]."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class Int8Weights:
    """int8 weights, symmetric per output channel.

    weight  int8, -127..127
    scale   float32 [O]; how they were set
    bias_q  int32 [O], at input scale * weight scale; None where the input is real numbers
    bias    float32 [O]: the real value of bias_q, rounded to float32
    """

    weight: np.ndarray
    scale: np.ndarray
    bias_q: np.ndarray | None
    bias: np.ndarray
    how: How = "learned"


@dataclass(frozen=True, eq=False, kw_only=True)
class Weighted(Node):
    """A convolution or a linear layer.

    module      module path that owns weight and bias; weight tables use it
    activation  the clamp (ReLU, ReLU6) that is fused behind it, which then names the tensor
    weights     float32 or int8, in PyTorch's layout
    """

    module: str
    activation: type[Clamp] | None = field(default=None, metadata={"stored": False})
    weights: FloatWeights | Int8Weights = field(repr=False, metadata={"stored": False})

    rank: ClassVar[int]
    """Of the weight."""
    channel_axis: ClassVar[int] = 0
    """The weight's axis of output channels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_weights(self)

    @property
    def weight(self) -> np.ndarray:
        """float32 or int8, in PyTorch's layout."""
        return self.weights.weight

    @property
    def bias(self) -> np.ndarray:
        """float32 [O]."""
        return self.weights.bias

    @property
    def int8(self) -> Int8Weights:
        """The quantized weights; InputError in a float graph."""
        if not isinstance(self.weights, Int8Weights):
            raise InputError(f"{self.module}: its weights are not quantized")
        return self.weights

    @property
    def weight_scale(self) -> np.ndarray:
        """float32 [O]; InputError in a float graph."""
        return self.int8.scale

    @property
    def bias_q(self) -> np.ndarray:
        """int32 [O]; InputError where the input is real numbers."""
        if self.int8.bias_q is None:
            raise InputError(f"{self.module}: its bias is a real number, not an integer")
        return self.int8.bias_q

    @property
    def channels(self) -> int:
        """Output channels."""
        return self.weight.shape[self.channel_axis]

    def per_channel(self, values: np.ndarray) -> np.ndarray:
        """[O] values in a shape that broadcasts over the weight."""
        shape = [1] * self.rank
        shape[self.channel_axis] = -1
        return values.reshape(shape)

    def by_channel(self, values: np.ndarray) -> np.ndarray:
        """An array of the weight's shape as (O, everything else)."""
        return np.moveaxis(values, self.channel_axis, 0).reshape(self.channels, -1)

    def real_weight(self) -> np.ndarray:
        """The float32 values that the weights stand for."""
        if isinstance(self.weights, FloatWeights):
            return self.weights.weight
        return self.weight * self.per_channel(self.weight_scale)

    @property
    def stored_as(self) -> str:
        return self.module

    def real_weights(self) -> tuple[np.ndarray, ...]:
        return self.real_weight(), self.bias

    def with_real_weights(self, values: Sequence[np.ndarray]) -> Self:
        return replace(self, weights=FloatWeights(*values))

    def rescaled(self, read: np.ndarray, made: np.ndarray) -> Self:
        """The float operation whose input comes divided by `read` and whose output is so by `made`.

        read    float64 (input channels,): the factors by which the weights make up for the input
        made    float64 (output channels,), 1 where an activation passes no factor
        """
        weight = self.weight.astype(np.float64) * self._by_input_channel(read)
        weight /= self.per_channel(made)
        bias = self.bias.astype(np.float64) / made
        weights = FloatWeights(weight.astype(np.float32), bias.astype(np.float32))
        return replace(self, weights=weights)

    def _by_input_channel(self, values: np.ndarray) -> np.ndarray:
        """(input channels,) values in a shape that broadcasts over the weight."""
        shape = [1] * self.rank
        shape[1 - self.channel_axis] = -1
        return values.reshape(shape)

    def sum_products(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The operation itself, without its activation."""
        raise NotImplementedError

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        weight, bias = weights
        return self.activated(self.sum_products(inputs[0], weight, bias))

    def activated(self, sums: Tensor) -> Tensor:
        """What `sum_products` gave, with the activation that is fused behind it."""
        return self.activation.clamped(sums) if self.activation else sums

    def exact(self, inputs: Sequence[Quantizer], output: Quantizer) -> Step:
        """round(float32(sum) * float32(s_in * s_w / s_out)), as the integer kernels compute.

        The sum of int8 products and the int32 bias is exact: below 2**24 in float32, whatever the
        order; where it might not be, in float64. It is rounded to float32 once, multiplied once and
        rounded half to even, then clamped. (A second rounding, to the real value first, differs
        from LiteRT's XNNPACK in one value of four million, and an image in ten then differs.)
        On a GPU it is float64, rounded to the integer: float32 may be TF32 there, and a library's
        algorithm one whose partial sums are no integers (Winograd's, Fourier's).
        """
        import torch

        (source,) = inputs
        total = self._exact_sums(source)
        scale = self._along_channels(torch.from_numpy(self.factor(source, output)))
        low, high = self.bounds(output)

        def step(x: Tensor) -> Tensor:
            return total(x).mul_(scale.to(x.device)).round_().clamp_(low, high)

        return step

    def real(self, inputs: Sequence[Quantizer]) -> Step:
        """activation(float32(float32(sum) * float32(s_in * s_w))), the sum exact as in `exact`."""
        import torch

        (source,) = inputs
        total = self._exact_sums(source)
        step_size = np.float64(source.scale) * self.weight_scale.astype(np.float64)
        scale = self._along_channels(torch.from_numpy(step_size.astype(np.float32)))

        def step(x: Tensor) -> Tensor:
            sums = total(x.float() - source.zero_point)
            return self.activated(sums.mul_(scale.to(x.device)))

        return step

    def _along_channels(self, values: Tensor) -> Tensor:
        return values.view(1, -1, *(1,) * (self.rank - 2))

    def _exact_sums(self, source: Quantizer) -> Callable[[Tensor], Tensor]:
        """Of centred integers, bias included, rounded once to float32; see `exact`."""
        import torch

        weight, bias = torch.tensor(self.weight), torch.tensor(self.bias_q)
        largest_input = max(INT8_MAX - source.zero_point, source.zero_point - INT8_MIN)
        sums = np.abs(self.by_channel(self.weight).astype(np.int64)).sum(1)
        bound = (sums * largest_input + np.abs(self.bias_q.astype(np.int64))).max()

        def total(x: Tensor) -> Tensor:
            is_small = bound < EXACT_FLOAT32 and x.device.type == "cpu"
            kind = torch.float32 if is_small else torch.float64
            w, b = (each.to(x.device, kind) for each in (weight, bias))
            found = self.sum_products(x.to(kind), w, b)
            return found if is_small else found.round_().float()

        return total

    def integer(
        self, inputs: Sequence[Quantizer], output: Quantizer, kernels: TorchKernels
    ) -> Step:
        (source,) = inputs
        return self._integer(source, output, kernels) or self.by_definition(inputs, output)

    def _integer(self, source: Quantizer, output: Quantizer, kernels: TorchKernels) -> Step | None:
        """By int32 sums; None where they could overflow, or there is no such form."""
        return None

    def factor(self, source: Quantizer, output: Quantizer) -> np.ndarray:
        """Steps of the output that one of the sum is, float32 [O]."""
        factor = self.weight_scale * np.float32(source.scale) / np.float32(output.scale)
        return factor.astype(np.float32)

    def bounds(self, output: Quantizer) -> tuple[int, int]:
        """Least and largest q - zero_point of the output, its activation's bounds included."""
        low, high = INT8_MIN - output.zero_point, INT8_MAX - output.zero_point
        if self.activation is None:
            return low, high
        least, most = (
            float(np.rint(np.float32(bound) * np.float32(1 / output.scale)))
            for bound in (self.activation.low, self.activation.high)
        )
        return max(low, int(least)), int(min(high, most))

    @classmethod
    def from_call(cls, name: str, args: Mapping[str, Any], shapes: Sequence[Shape]) -> list[Node]:
        weight, bias = args["weight"], args["bias"]
        if isinstance(weight, Ref) or isinstance(bias, Ref):
            raise UnsupportedError("a weight or bias that is computed, not stored,")
        if bias is None:
            bias = np.zeros(cls.output_channels(weight, args), np.float32)
        node = cls(
            name=name,
            inputs=activations(args),
            module=name,
            weights=FloatWeights(weight, bias),
            **cls.attributes(args, shapes),
        )
        return [node]

    @classmethod
    def output_channels(cls, weight: np.ndarray, args: Mapping[str, Any]) -> int:
        """Output channels of a weight in an ATen call."""
        return weight.shape[cls.channel_axis]


def _check_weights(node: Weighted) -> None:
    weights, where = node.weights, node.module
    weight, bias = weights.weight, weights.bias
    channels = weight.shape[node.channel_axis : node.channel_axis + 1]
    fits = weight.ndim == node.rank and 0 not in weight.shape
    if not fits or bias.shape != channels or bias.dtype != np.float32:
        raise InputError(f"{where}: weight {weight.shape} and bias {bias.shape} do not fit")
    if isinstance(weights, FloatWeights):
        if weight.dtype != np.float32:
            raise InputError(f"{where}: float weights must be float32, not {weight.dtype}")
        return
    if weight.dtype != np.int8 or int(weight.min(initial=0)) < -WEIGHT_MAX:
        raise InputError(f"{where}: weights must be int8 in -127..127, not {weight.dtype}")
    if weights.scale.dtype != np.float32 or weights.scale.shape != channels:
        raise InputError(f"{where}: one float32 weight scale per output channel is needed")
    units = weights.bias_q
    if units is not None and (units.dtype != np.int32 or units.shape != channels):
        raise InputError(f"{where}: one int32 bias per output channel is needed")


_NORM: Signature = {
    "input": TENSOR,
    "weight": ((Ref, type(None)), None),
    "bias": ((Ref, type(None)), None),
    "running_mean": (Ref, REQUIRED),
    "running_var": (Ref, REQUIRED),
    "training": (bool, False),
    "momentum": (float, 0.1),
    "eps": (float, 1e-5),
    "cudnn_enabled": (bool, False),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class ChannelAffine(Node):
    """x * gain + offset, one pair a channel: a batch norm in eval mode, a layer scale, a constant.

    It exists between tracing and the passes only: they fold it into a convolution or make a
    depthwise 1×1 convolution of it, so no program holds one.

    gain, offset  float64 [C] or [1]
    """

    gain: np.ndarray = field(repr=False, metadata={"stored": False})
    offset: np.ndarray = field(repr=False, metadata={"stored": False})

    kind = "channel_affine"
    traced_only = True
    aten: ClassVar[Mapping[str, Signature]] = {"aten.batch_norm.default": _NORM}

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        if args["training"]:
            raise UnsupportedError("a batch norm in training mode")
        mean, variance = args["running_mean"], args["running_var"]
        gain = 1.0 / np.sqrt(variance.astype(np.float64) + args["eps"])
        if args["weight"] is not None:
            gain = gain * args["weight"].astype(np.float64)
        offset = -mean.astype(np.float64) * gain
        if args["bias"] is not None:
            offset = offset + args["bias"].astype(np.float64)
        return {"gain": gain, "offset": offset}

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        (shape,) = inputs
        if len(shape) not in (2, 4) or self.gain.size not in (1, shape[1]):
            raise InputError(f"{self.name}: {self.gain.size} factors for a tensor of {shape}")
        return shape

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        import torch

        (x,) = inputs
        shape = (1, -1, *(1,) * (x.dim() - 2))
        gain, offset = (torch.from_numpy(v).to(x).view(shape) for v in (self.gain, self.offset))
        return x * gain + offset

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return bool((self.gain == 1).all() and (self.offset == 0).all())
