"""Operations that move, select or repeat values; they keep their input's quantizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgevit.errors import InputError
from edgevit.ops.base import (
    REQUIRED,
    TENSOR,
    TENSORS,
    Node,
    Ref,
    Shape,
    Signature,
    Step,
    Unchanged,
    UnsupportedError,
    divided,
    every_channel,
    require_maps,
)
from edgevit.ops.quantizer import Quantizer, SameAs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Flatten(Unchanged):
    """(N, C, H, W) to (N, C·H·W)."""

    kind = "flatten"
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.flatten.using_ints": {
            "self": TENSOR,
            "start_dim": (int, 0),
            "end_dim": (int, -1),
        },
        "aten.view.default": {"self": TENSOR, "size": (tuple, REQUIRED)},
        "aten.reshape.default": {"self": TENSOR, "shape": (tuple, REQUIRED)},
        "aten.squeeze.dims": {"self": TENSOR, "dim": (tuple, REQUIRED)},
    }
    rule = SameAs()

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        (shape,) = shapes
        if "start_dim" in args:
            axes = args["start_dim"] % len(shape), args["end_dim"] % len(shape)
            fits = axes == (1, len(shape) - 1)
        elif "dim" in args:
            fits = {axis % len(shape) for axis in args["dim"]} == {2, 3} and shape[2:] == (1, 1)
        else:
            size = args.get("size", args.get("shape"))
            fits = (
                len(size) == 2
                and size[0] in (shape[0], -1)
                and (size[1] in (math.prod(shape[1:]), -1))
            )
        if not fits:
            raise UnsupportedError(f"a change of shape from {shape} that keeps more than (N, all)")
        return {}

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        (shape,) = inputs
        return shape[0], math.prod(shape[1:])

    def carried(self, inputs: Sequence[Shape]) -> Sequence[np.ndarray] | None:
        shape = inputs[0]
        return [np.repeat(np.arange(shape[1]), math.prod(shape[2:]))]

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        import torch

        return torch.flatten(inputs[0], 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Unchanged):
    """Tensors side by side along the channels, any number of them."""

    kind = "concat"
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.cat.default": {"tensors": TENSORS, "dim": (int, 0)}
    }
    arity = None
    rule = SameAs(every_input=True)

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        if not all(isinstance(item, Ref) for item in args["tensors"]):
            raise UnsupportedError("a concatenation with a stored tensor")
        if args["dim"] % len(shapes[0]) != 1:
            raise UnsupportedError(f"a concatenation along axis {args['dim']}; channels are known")
        return {}

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        first = inputs[0]
        rest = {(shape[0], *shape[2:]) for shape in inputs}
        if len(rest) != 1 or any(len(shape) != len(first) for shape in inputs):
            raise InputError(f"{self.name}: concat of {', '.join(map(str, inputs))}")
        return first[0], sum(shape[1] for shape in inputs), *first[2:]

    def carried(self, inputs: Sequence[Shape]) -> Sequence[np.ndarray] | None:
        channels = np.arange(sum(shape[1] for shape in inputs))
        found, start = [], 0
        for shape in inputs:
            inside = (channels >= start) & (channels < start + shape[1])
            found.append(np.where(inside, channels - start, -1))
            start += shape[1]
        return found

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        import torch

        return torch.cat(list(inputs), 1)


_UPSAMPLE = {
    "input": TENSOR,
    "output_size": ((tuple, type(None)), None),
    "scale_factors": ((tuple, type(None)), None),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Resize(Node):
    """Maps enlarged to a size: (N, C, H, W) to (N, C, size).

    size    (height, width)
    mode    "nearest", or "bilinear" with half-pixel centres (torch's align_corners=False)
    """

    size: tuple[int, int]
    mode: str

    kind = "resize"
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.upsample_nearest2d.vec": _UPSAMPLE,
        "aten.upsample_bilinear2d.vec": {**_UPSAMPLE, "align_corners": (bool, False)},
    }
    rule = SameAs()

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        (shape,) = shapes
        if args.get("align_corners"):
            raise UnsupportedError("a bilinear resize with align_corners")
        size, factors = args["output_size"], args["scale_factors"]
        if size is None:
            size = tuple(int(s * f) for s, f in zip(shape[2:], factors or (), strict=True))
        mode = "nearest" if "nearest" in args["overload"] else "bilinear"
        return {"size": (int(size[0]), int(size[1])), "mode": mode}

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        (shape,) = inputs
        require_maps(self, shape)
        if self.mode not in ("nearest", "bilinear"):
            raise InputError(f"{self.name}: resize mode {self.mode!r} is not nearest or bilinear")
        if any(new < 1 or new % old for new, old in zip(self.size, shape[2:])):
            raise InputError(
                f"{self.name}: resize from {shape[2:]} to {self.size}; whole factors are known, "
                "because runtimes place the samples of others differently"
            )
        return shape[0], shape[1], *self.size

    def carried(self, inputs: Sequence[Shape]) -> Sequence[np.ndarray] | None:
        return [every_channel(inputs[0])]

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        from torch.nn import functional

        return functional.interpolate(inputs[0], size=self.size, mode=self.mode)

    def exact(self, inputs: Sequence[Quantizer], output: Quantizer) -> Step:
        """Values moved; or an integer sum of weighted neighbours, divided and rounded once."""
        if self.mode == "nearest":
            return lambda x: self.compute([x])

        def step(x: Tensor) -> Tensor:
            total, divisor = x.double(), 1
            for axis, size in zip((2, 3), self.size):
                factor = size // x.shape[axis]
                total = _blended(total, axis, factor)
                divisor *= 2 * factor
            return divided(total, divisor).round_().float()

        return step


def _blended(x: Tensor, axis: int, factor: int) -> Tensor:
    """Integers of one axis blended linearly, `factor` results each, all times 2 * factor.

    Result i lies at (2i + 1 - factor) / (2 factor) of the source, at least at 0: a whole number of
    parts, of which float64 holds every sum. (Thirds as float64 would round halves either way.)
    """
    import torch

    last = x.shape[axis] - 1
    parts = (2 * torch.arange(factor * (last + 1)) + 1 - factor).clamp_(min=0)
    low = parts // (2 * factor)
    second = (parts - low * 2 * factor).double()
    shape = [-1 if a == axis else 1 for a in range(x.dim())]
    low, second = low.to(x.device), second.view(shape).to(x.device)
    first_values, second_values = (
        x.index_select(axis, index) for index in (low, (low + 1).clamp_(max=last))
    )
    return first_values * (2 * factor - second) + second_values * second


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice(Unchanged):
    """Every `step`-th value from `start` to before `stop` along one axis (1, 2 or 3)."""

    axis: int
    start: int
    stop: int
    step: int = 1

    kind = "slice"
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.slice.Tensor": {
            "self": TENSOR,
            "dim": (int, 0),
            "start": ((int, type(None)), None),
            "end": ((int, type(None)), None),
            "step": (int, 1),
        }
    }
    rule = SameAs()

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        (shape,) = shapes
        axis = args["dim"] % len(shape)
        start, stop, step = slice(args["start"], args["end"], args["step"]).indices(shape[axis])
        return {"axis": axis, "start": start, "stop": stop, "step": step}

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        shape = list(inputs[0])
        if not 1 <= self.axis < len(shape):
            raise InputError(f"{self.name}: slice along axis {self.axis} of {inputs[0]}")
        if not (0 <= self.start < self.stop <= shape[self.axis] and self.step > 0):
            raise InputError(
                f"{self.name}: slice {self.start}:{self.stop}:{self.step} of {shape[self.axis]}"
            )
        shape[self.axis] = len(range(self.start, self.stop, self.step))
        return tuple(shape)

    def carried(self, inputs: Sequence[Shape]) -> Sequence[np.ndarray] | None:
        channels = every_channel(inputs[0])
        return [channels[self.start : self.stop : self.step] if self.axis == 1 else channels]

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        index = [slice(None)] * self.axis + [slice(self.start, self.stop, self.step)]
        return inputs[0][tuple(index)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Pad(Unchanged):
    """Zeros around the maps.

    before, after   (top, left) and (bottom, right), in pixels
    """

    before: tuple[int, int]
    after: tuple[int, int]

    kind = "pad"
    aten: ClassVar[Mapping[str, Signature]] = {
        "aten.pad.default": {
            "self": TENSOR,
            "pad": (tuple, REQUIRED),
            "mode": (str, "constant"),
            "value": ((int, float, type(None)), None),
        },
        "aten.constant_pad_nd.default": {
            "self": TENSOR,
            "pad": (tuple, REQUIRED),
            "value": ((int, float), 0),
        },
    }
    rule = SameAs()

    @classmethod
    def attributes(cls, args: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
        pad = tuple(args["pad"]) + (0,) * (4 - len(args["pad"]))
        if args.get("mode", "constant") != "constant" or args["value"] not in (None, 0):
            raise UnsupportedError("padding with anything but zeros")
        if len(pad) != 4 or min(pad) < 0:
            raise UnsupportedError(f"padding {args['pad']} of other axes than height and width")
        left, right, top, bottom = (int(n) for n in pad)
        return {"before": (top, left), "after": (bottom, right)}

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        (shape,) = inputs
        require_maps(self, shape)
        if min(self.before + self.after) < 0:
            raise InputError(f"{self.name}: padding {self.before}, {self.after} is negative")
        sides = zip(shape[2:], self.before, self.after, strict=True)
        return shape[0], shape[1], *(size + a + b for size, a, b in sides)

    def carried(self, inputs: Sequence[Shape]) -> Sequence[np.ndarray] | None:
        return [every_channel(inputs[0])]

    def compute(self, inputs: Sequence[Tensor], weights: Sequence[Tensor] = ()) -> Tensor:
        from torch.nn import functional

        (top, left), (bottom, right) = self.before, self.after
        return functional.pad(inputs[0], (left, right, top, bottom))


ELIDED = frozenset({
    "aten.dropout.default", "aten.clone.default", "aten.alias.default", "aten.detach.default",
    "aten.contiguous.default", "aten.feature_dropout.default", "aten.lift_fresh_copy.default",
})  # fmt: skip
"""ATen calls that change no value of a net in eval mode."""
