"""Operations over several positions: means, pooling, softmax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

from edgevit.errors import InputError
from edgevit.ops.arithmetic import INT8_RANGE
from edgevit.ops.base import (
    REQUIRED,
    TENSOR,
    Node,
    Shape,
    Signature,
    Step,
    Unchanged,
    UnsupportedError,
    activations,
    divided,
    every_channel,
    pair,
    quantize,
    require_maps,
)
from edgevit.ops.norm_parts import ChannelMean
from edgevit.ops.quantizer import UNIT_INTERVAL, Quantizer, SameAs
from edgevit.ops.shape import Flatten

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from edgevit.kernels.exact import TorchKernels


@dataclass(frozen=True, eq=False, kw_only=True)
class Mean(Node):
    """The mean over height and width: (N, C, H, W) to (N, C, 1, 1).

    A tie is a sum p of N int8 with p·s / N = (n + 1/2)·s_o. (Where s_o was half of s, every other
    mean was one.)
    """

    kind = "mean"
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.mean.dim": {
            "self": TENSOR,
            "dim": (tuple, REQUIRED),
            "keepdim": (bool, False),
            "dtype": ((str, type(None)), None),
        },
        "aten.adaptive_avg_pool2d.default": {"self": TENSOR, "output_size": (tuple, REQUIRED)},
    }

    @classmethod
    def from_call(cls, name: str, args: Mapping[str, Any], shapes: Sequence[Shape]) -> list[Node]:
        if "output_size" in args:
            if tuple(args["output_size"]) not in ((1,), (1, 1)):
                raise UnsupportedError(f"adaptive pooling to {tuple(args['output_size'])}")
            return [cls(name=name, inputs=activations(args))]
        axes = tuple(sorted(axis % len(shapes[0]) for axis in args["dim"]))
        if axes == (1,) and len(shapes[0]) == 4 and args["keepdim"] and args["dtype"] is None:
            return [ChannelMean(name=name, inputs=activations(args))]
        if axes != (2, 3) or args["dtype"] is not None:
            raise UnsupportedError(f"a mean over axes {axes}; height and width are known")
        if args["keepdim"]:
            return [cls(name=name, inputs=activations(args))]
        mean = cls(name=f"{name}.kept", inputs=activations(args))
        return [mean, Flatten(name=name, inputs=(mean.name,))]

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        (shape,) = inputs
        if len(shape) != 4:
            raise InputError(f"{self.name}: mean over H and W needs (N, C, H, W), not {shape}")
        return shape[0], shape[1], 1, 1

    def carried(self, inputs: Sequence[Shape]) -> Sequence[np.ndarray] | None:
        return [every_channel(inputs[0])]

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        import torch

        return torch.mean(inputs[0], (2, 3), keepdim=True)

    def exact(self, inputs: Sequence[Quantizer], output: Quantizer) -> Step:
        """An exact integer sum times the scale, one rounding to float32, then one to the grid."""
        import torch

        (source,) = inputs

        def step(x: Tensor) -> Tensor:
            total = x.sum((2, 3), keepdim=True, dtype=torch.float64)
            return self._finished(total, x.shape[2] * x.shape[3], source, output)

        return step

    def integer(
        self, inputs: Sequence[Quantizer], output: Quantizer, kernels: TorchKernels
    ) -> Step:
        import torch

        (source,) = inputs

        def step(x: Tensor) -> Tensor:
            count = x.shape[2] * x.shape[3]
            total = kernels.sums(x).double().sub_(count * source.zero_point)
            mean = self._finished(total, count, source, output)
            return mean.add_(output.zero_point).to(torch.int8)

        return step

    @staticmethod
    def _finished(total: Tensor, count: int, source: Quantizer, output: Quantizer) -> Tensor:
        return quantize(divided(total.mul_(source.scale), count).float(), output)

    def ties(self, inputs: Sequence[Fraction], output: Fraction) -> tuple[int, int]:
        ratio = output / (2 * inputs[0])  # p / (2 n + 1)
        # A mean is a sum over the number of values: p may be a fraction, commonly of a power of 2.
        twos = ratio.denominator & -ratio.denominator
        odd = ratio.denominator // twos  # 2 n + 1 is an odd multiple of it, p of the numerator
        sums = INT8_RANGE * twos // ratio.numerator
        return (min(sums, (2 * INT8_RANGE + 1) // odd) + 1) // 2, 0


_WINDOW: Signature = {
    "self": TENSOR,
    "kernel_size": (tuple, REQUIRED),
    "stride": (tuple, ()),
    "padding": (tuple, (0, 0)),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool2d(Node):
    """A window that slides over height and width; its values keep the input's quantizer.

    kernel, stride, padding  (vertical, horizontal)
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    rule = SameAs()

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        if args["ceil_mode"]:
            raise UnsupportedError("pooling with ceil_mode")
        kernel = pair(args["kernel_size"], "kernel")
        return {
            "kernel": kernel,
            "stride": pair(args["stride"], "stride") if args["stride"] else kernel,
            "padding": pair(args["padding"], "padding"),
        }

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        (shape,) = inputs
        require_maps(self, shape)
        if min(self.kernel) < 1 or min(self.stride) < 1 or min(self.padding) < 0:
            raise InputError(f"{self.name}: kernel {self.kernel}, stride {self.stride}")
        if any(2 * pad > width for pad, width in zip(self.padding, self.kernel)):
            raise InputError(f"{self.name}: padding {self.padding} is over half of the kernel")
        spatial = [
            (size + 2 * pad - width) // step + 1
            for size, pad, width, step in zip(
                shape[2:], self.padding, self.kernel, self.stride, strict=True
            )
        ]
        if min(spatial) < 1:
            raise InputError(f"{self.name}: {self.kernel} window does not fit an input of {shape}")
        return shape[0], shape[1], *spatial

    def carried(self, inputs: Sequence[Shape]) -> Sequence[np.ndarray] | None:
        return [every_channel(inputs[0])]


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool2d(Pool2d, Unchanged):
    """The largest value of each window."""

    kind = "max_pool2d"
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.max_pool2d.default": {
            **_WINDOW,
            "dilation": (tuple, (1, 1)),
            "ceil_mode": (bool, False),
        }
    }

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        if set(args["dilation"]) != {1}:
            raise UnsupportedError("pooling with dilation")
        return super().attributes(args, shapes)

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        from torch.nn import functional

        return functional.max_pool2d(inputs[0], self.kernel, self.stride, self.padding)


@dataclass(frozen=True, eq=False, kw_only=True)
class AvgPool2d(Pool2d):
    """The mean of each window, without padding."""

    kind = "avg_pool2d"
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.avg_pool2d.default": {
            **_WINDOW,
            "ceil_mode": (bool, False),
            "count_include_pad": (bool, True),
            "divisor_override": ((int, type(None)), None),
        }
    }

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        if args["divisor_override"] is not None or any(args["padding"]):
            raise UnsupportedError("average pooling with padding or a divisor of its own")
        return super().attributes(args, shapes)

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        if any(self.padding):
            raise InputError(f"{self.name}: average pooling takes no padding")
        return super().output_shape(inputs)

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        from torch.nn import functional

        return functional.avg_pool2d(inputs[0], self.kernel, self.stride)

    def exact(self, inputs: Sequence[Quantizer], output: Quantizer) -> Step:
        """The integer mean, halves to even: the scale is the same on both sides."""

        def step(x: Tensor) -> Tensor:
            count = self.kernel[0] * self.kernel[1]
            total = self.compute([x.double()]).mul_(count).round_()  # the integer sum
            return divided(total, count).round_().float()

        return step


@dataclass(frozen=True, eq=False, kw_only=True)
class Softmax(Node):
    """Probabilities over the channels of (N, C), as a last operation."""

    kind = "softmax"
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.softmax.int": {
            "self": TENSOR,
            "dim": (int, REQUIRED),
            "dtype": ((str, type(None)), None),
        }
    }
    rule = UNIT_INTERVAL
    backward_reads_output = True

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        if len(shapes[0]) != 2 or args["dim"] % 2 != 1 or args["dtype"] is not None:
            raise UnsupportedError("a softmax that is not over the channels of (N, C)")
        return {}

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        if len(inputs[0]) != 2:
            raise InputError(f"{self.name}: softmax needs (N, C), not {inputs[0]}")
        return inputs[0]

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        import torch

        return torch.softmax(inputs[0], 1)

    def exact(self, inputs: Sequence[Quantizer], output: Quantizer) -> Step:
        """In float64, and on the CPU wherever the input is: exponentials differ between devices."""
        (source,) = inputs

        def step(x: Tensor) -> Tensor:
            real = self.compute([x.cpu().double() * source.scale])
            return quantize(real.float(), output).to(x.device)

        return step
