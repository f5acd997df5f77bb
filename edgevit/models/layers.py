"""The layers RepViT is made of; each that trains with a norm or branches owns its `fuse`.

`fuse` gives the one plain layer that equals it in eval mode. Shapes are (batch, channels, height,
width), or (batch, features) in the head.
"""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from torch import Tensor, nn

SE_REDUCTION = 0.25
SE_CHANNEL_MULTIPLE = 8
HEAD_INIT_STD = 0.02

Plain = TypeVar("Plain", nn.Conv2d, nn.Linear)


def _norm_scale_shift(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The norm as y = scale * x + shift, two (C,) float64 tensors.

    Folding in float64 leaves one rounding, the one to the final weights.
    """
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None  # every norm here keeps its statistics
    deviation = (variance.double() + norm.eps).sqrt()
    scale = norm.weight.double() / deviation
    return scale, norm.bias.double() - mean.double() * scale


def _filled(layer: Plain, like: Tensor, weight: Tensor, bias: Tensor) -> Plain:
    layer.weight = nn.Parameter(weight.to(like.dtype), requires_grad=like.requires_grad)
    layer.bias = nn.Parameter(bias.to(like.dtype), requires_grad=like.requires_grad)
    return layer


class ConvNorm(nn.Sequential):
    """Convolution without bias (`c`), then batch norm (`bn`)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        norm_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.constant_(self.bn.weight, norm_weight)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Kernel (O, I / groups, k, k) and bias (O,) of the two layers as one, in float64."""
        scale, shift = _norm_scale_shift(self.bn)
        return self.c.weight.double() * scale[:, None, None, None], shift

    def plain(self) -> nn.Conv2d:
        """The one convolution that this layer fuses to, its weights not yet set."""
        conv = self.c
        # skip_init: an initialised layer would draw from the global random state for nothing.
        plain = nn.utils.skip_init(
            nn.Conv2d,
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            stride=conv.stride,
            padding=conv.padding,
            groups=conv.groups,
            device=conv.weight.device,
        )
        return cast(nn.Conv2d, plain)  # of the class that it was given, which torch does not say

    @torch.no_grad()
    def fuse(self) -> nn.Conv2d:
        """The one convolution that equals this layer in eval mode."""
        return _filled(self.plain(), self.c.weight, *self.folded())


def _folded(layer: ConvNorm | NormLinear | nn.Conv2d | nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer with or without a norm, in float64."""
    if isinstance(layer, ConvNorm | NormLinear):
        return layer.folded()
    assert layer.bias is not None  # those of a net here are built with one
    return layer.weight.double(), layer.bias.double()


class RepVggDw(nn.Module):
    """Depthwise k×k and 1×1 branches and the identity, summed, then batch norm.

    With `branch_norms`, as in the first release of 2023, the 1×1 branch has a batch norm of its own
    and the sum has none.
    """

    def __init__(self, channels: int, kernel_size: int, branch_norms: bool = False) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels, kernel_size, groups=channels)
        self.conv1: ConvNorm | nn.Conv2d
        self.bn: nn.BatchNorm2d | nn.Identity
        if branch_norms:
            self.conv1 = ConvNorm(channels, channels, 1, groups=channels)
            self.bn = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(channels, channels, 1, groups=channels)
            self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x) + self.conv1(x) + x)

    def plain(self) -> nn.Conv2d:
        """The one depthwise convolution that this layer fuses to, its weights not yet set."""
        return self.conv.plain()

    @torch.no_grad()
    def fuse(self) -> nn.Conv2d:
        """The one depthwise k×k convolution that equals this layer in eval mode."""
        kernel, bias = self.conv.folded()
        # In a depthwise kernel, the 1×1 branch and the identity both live in the centre tap.
        centre = kernel.shape[-1] // 2
        small, small_bias = _folded(self.conv1)
        kernel[:, 0, centre, centre] += small[:, 0, 0, 0] + 1.0
        bias = bias + small_bias
        if isinstance(self.bn, nn.BatchNorm2d):
            scale, shift = _norm_scale_shift(self.bn)
            kernel, bias = kernel * scale[:, None, None, None], bias * scale + shift
        return _filled(self.plain(), self.conv.c.weight, kernel, bias)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate in 0…1 computed from all channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        step = SE_CHANNEL_MULTIPLE
        squeezed = max(step, int(channels * SE_REDUCTION + step / 2) // step * step)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.fc2(self.act(self.fc1(mean))))


class ChannelMixer(nn.Module):
    """1×1 convolution to `hidden` channels, GELU, 1×1 convolution back."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, hidden)
        self.act = nn.GELU()
        # A zero norm weight makes each residual branch start as the identity.
        self.conv2 = ConvNorm(hidden, channels, norm_weight=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.act(self.conv1(x)))


class Silu(nn.Module):
    """x * sigmoid(x), in the two operations that INT8 runtimes have for it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class NormLinear(nn.Sequential):
    """Batch norm (`bn`), then a linear layer (`l`): (N, features) to (N, classes)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(features)
        self.l = nn.Linear(features, classes)
        nn.init.trunc_normal_(self.l.weight, std=HEAD_INIT_STD)
        nn.init.zeros_(self.l.bias)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight (classes, features) and bias (classes,) of the two layers as one, in float64."""
        scale, shift = _norm_scale_shift(self.bn)
        weight = self.l.weight.double()
        return weight * scale, weight @ shift + self.l.bias.double()

    def plain(self) -> nn.Linear:
        """The one linear layer that this one fuses to, its weights not yet set."""
        classes, features = self.l.weight.shape
        plain = nn.utils.skip_init(nn.Linear, features, classes, device=self.l.weight.device)
        return cast(nn.Linear, plain)  # of the class that it was given, which torch does not say

    @torch.no_grad()
    def fuse(self) -> nn.Linear:
        """The one linear layer that equals this one in eval mode."""
        return _filled(self.plain(), self.l.weight, *self.folded())


class Classifier(nn.Module):
    """One head, or with distillation two: `head` learns the labels, `head_dist` the teacher.

    Gives logits (N, classes): of the one head, or the mean of both. In train mode with
    distillation it gives the pair (logits, distillation logits), since each has its own loss.
    Either head may be a bare linear layer: fine-tuners put one in its place.
    """

    head: NormLinear | nn.Linear
    head_dist: NormLinear | nn.Linear

    def __init__(self, features: int, classes: int, distillation: bool) -> None:
        super().__init__()
        self.distillation = distillation
        self.head = NormLinear(features, classes)
        if distillation:
            self.head_dist = NormLinear(features, classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if not self.distillation:
            return self.head(x)
        logits, teacher_logits = self.head(x), self.head_dist(x)
        return (logits, teacher_logits) if self.training else (logits + teacher_logits) / 2

    def plain(self) -> nn.Linear:
        """The one linear layer that this classifier fuses to, its weights not yet set."""
        head = self.head.l if isinstance(self.head, NormLinear) else self.head
        classes, features = head.weight.shape
        plain = nn.utils.skip_init(nn.Linear, features, classes, device=head.weight.device)
        return cast(nn.Linear, plain)

    @torch.no_grad()
    def fuse(self) -> nn.Linear:
        """The one linear layer that equals this classifier in eval mode."""
        weight, bias = _folded(self.head)
        if self.distillation:
            other_weight, other_bias = _folded(self.head_dist)
            weight, bias = (weight + other_weight) / 2, (bias + other_bias) / 2
        return _filled(self.plain(), next(self.head.parameters()), weight, bias)


FUSABLE = (ConvNorm, RepVggDw, Classifier)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
