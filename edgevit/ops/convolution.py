"""Convolutions, and the linear layer that is one of a single pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from edgevit.errors import InputError
from edgevit.ops.base import (
    TENSOR,
    Ref,
    Shape,
    Signature,
    Step,
    UnsupportedError,
    pair,
)
from edgevit.ops.quantizer import Quantizer
from edgevit.ops.weighted import Weighted

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from edgevit.kernels.exact import TorchKernels

_WEIGHTS: Signature = {"input": TENSOR, "weight": TENSOR, "bias": ((Ref, type(None)), None)}
_SIZES = (tuple, (1, 1))


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv2d(Weighted):
    """A convolution, dense, grouped or depthwise: (N, C, H, W) to (N, O, H', W').

    stride, padding, dilation   (vertical, horizontal)
    weight                      (O, C / groups, kernel height, kernel width)
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    kind = "conv2d"
    rank = 4
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.conv2d.default": {
            **_WEIGHTS,
            "stride": _SIZES,
            "padding": (tuple, (0, 0)),
            "dilation": _SIZES,
            "groups": (int, 1),
        },
        "aten.conv2d.padding": {
            **_WEIGHTS,
            "stride": _SIZES,
            "padding": (str, "valid"),
            "dilation": _SIZES,
            "groups": (int, 1),
        },
    }

    @property
    def depthwise(self) -> bool:
        """One input channel and one output channel per group."""
        return self.groups > 1 and self.weight.shape[1] == 1 and self.channels == self.groups

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        stride, dilation = pair(args["stride"], "stride"), pair(args["dilation"], "dilation")
        padding = args["padding"]
        if padding == "same":
            extents = [d * (k - 1) for d, k in zip(dilation, args["weight"].shape[2:])]
            if any(extent % 2 for extent in extents) or stride != (1, 1):
                raise UnsupportedError("padding 'same' that differs from side to side")
            padding = tuple(extent // 2 for extent in extents)
        elif padding == "valid":
            padding = (0, 0)
        return {
            "stride": stride,
            "padding": pair(padding, "padding"),
            "dilation": dilation,
            "groups": args["groups"],
        }

    def _by_input_channel(self, values: np.ndarray) -> np.ndarray:
        # Row o of the weight reads the channels of o's group alone.
        rows = values.reshape(self.groups, -1).repeat(self.channels // self.groups, 0)
        return rows[:, :, None, None]

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        (shape,) = inputs
        out_channels, in_per_group, *kernel = self.weight.shape
        fits = len(shape) == 4 and self.groups > 0 and in_per_group * self.groups == shape[1]
        if not fits or out_channels % self.groups:
            raise InputError(
                f"{self.name}: convolution {self.weight.shape}, groups {self.groups}, "
                f"cannot read {shape}"
            )
        spatial = [
            (size + 2 * pad - step_over * (width - 1) - 1) // step + 1 if step > 0 else 0
            for size, pad, width, step, step_over in zip(
                shape[2:], self.padding, kernel, self.stride, self.dilation, strict=True
            )
        ]
        if min(spatial) < 1 or min(self.padding) < 0 or min(self.dilation) < 1:
            raise InputError(f"{self.name}: {kernel} kernel does not fit an input of {shape}")
        return shape[0], out_channels, *spatial

    def _integer(self, source: Quantizer, output: Quantizer, kernels: TorchKernels) -> Step | None:
        from edgevit.ops.integer import convolution_step

        return convolution_step(self, source, output, kernels)

    def sum_products(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        from torch.nn import functional

        return functional.conv2d(
            x, weight, bias, self.stride, self.padding, self.dilation, self.groups
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class ConvTranspose2d(Weighted):
    """A transposed convolution of one group: (N, C, H, W) to (N, O, H', W').

    weight  (C, O, kernel height, kernel width)
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    output_padding: tuple[int, int] = (0, 0)

    kind = "conv_transpose2d"
    rank = 4
    channel_axis = 1
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.conv_transpose2d.input": {
            **_WEIGHTS,
            "stride": _SIZES,
            "padding": (tuple, (0, 0)),
            "output_padding": (tuple, (0, 0)),
            "groups": (int, 1),
            "dilation": _SIZES,
        }
    }

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        if args["groups"] != 1 or set(args["dilation"]) != {1}:
            raise UnsupportedError("a transposed convolution with groups or dilation")
        names = ("stride", "padding", "output_padding")
        return {name: pair(args[name], name) for name in names}

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        (shape,) = inputs
        in_channels, out_channels, *kernel = self.weight.shape
        if len(shape) != 4 or in_channels != shape[1]:
            raise InputError(
                f"{self.name}: transposed convolution {self.weight.shape} cannot read {shape}"
            )
        spatial = [
            (size - 1) * step - 2 * pad + width + extra
            for size, step, pad, width, extra in zip(
                shape[2:], self.stride, self.padding, kernel, self.output_padding, strict=True
            )
        ]
        rests = zip(self.output_padding, self.stride, strict=True)
        if min(spatial) < 1 or min(self.padding) < 0 or any(not 0 <= r < s for r, s in rests):
            raise InputError(f"{self.name}: {kernel} kernel does not fit an input of {shape}")
        return shape[0], out_channels, *spatial

    def sum_products(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        from torch.nn import functional

        return functional.conv_transpose2d(
            x, weight, bias, self.stride, self.padding, self.output_padding
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear(Weighted):
    """A linear layer: (N, I) to (N, O), weight (O, I)."""

    kind = "linear"
    rank = 2
    aten: ClassVar[Mapping[str, Signature]] = {"aten.linear.default": _WEIGHTS}

    def as_convolution(self) -> Conv2d:
        """The 1×1 convolution of (N, I, 1, 1) that computes the same."""
        weights = replace(self.weights, weight=self.weight[:, :, None, None])
        return Conv2d(
            name=self.name,
            inputs=self.inputs,
            module=self.module,
            activation=self.activation,
            weights=weights,
        )

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        (shape,) = inputs
        if len(shape) != 2 or shape[1] != self.weight.shape[1]:
            raise InputError(f"{self.name}: linear {self.weight.shape} cannot read {shape}")
        return shape[0], self.weight.shape[0]

    def _integer(self, source: Quantizer, output: Quantizer, kernels: TorchKernels) -> Step | None:
        from edgevit.ops.integer import linear_step

        return linear_step(self, source, output, kernels)

    def sum_products(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        from torch.nn import functional

        return functional.linear(x, weight, bias)
