"""Correction of each layer's sums, the last post-training step."""

from __future__ import annotations

import torch
from torch import Tensor

from edgevit.graph.float_run import GraphNet
from edgevit.ops import Weighted
from edgevit.quantize.net import QuantizedNet

GAINS = (0.8, 1.25)
"""Between which a channel's gain is corrected: more would be a channel that tells nothing."""
_TINY = 1e-12


@torch.no_grad()
def correct_sums(
    net: QuantizedNet, images: Tensor, *, gains: bool = True, float_net: GraphNet | None = None
) -> float:
    """Fit each channel's sums to the float net's by least squares: by a gain and a bias.

    The sums before the activation behind them, where there is one. With `gains` False the means
    alone are made equal.

    The bias is Nagel et al.'s (arXiv 1906.04721, section 4.2, measured on data): layer after layer,
    with the errors of the layers before it already in its input. The gain mends what a bias cannot:
    values that are cut off make the sums behind them smaller. It goes into the channel's weight
    scale, so that its int8 weights stay as they are.

    `images` is float32 (N, C, H, W), run as one batch. `float_net` is needed where `net` has other
    weights than the float net by now; it has the same layers. Returns the largest shift of a bias.
    """
    wanted: dict[str, Tensor] = {}
    scales = net.weight_log_scales()
    largest = 0.0

    def see(node: Weighted, sums: Tensor) -> Tensor:
        wanted[node.module] = sums
        return sums

    def adjust(node: Weighted, sums: Tensor) -> Tensor:
        nonlocal largest
        expected = wanted.pop(node.module)
        gain = _gain(sums, expected) if gains else torch.ones_like(_channel_means(sums))
        weight, bias = net.layers[node.module].weights
        weight.mul_(gain.view([-1 if a == node.channel_axis else 1 for a in range(weight.dim())]))
        scales[node.module].add_(gain.log())
        sums = sums * _by_channel(gain, sums)
        shift = _channel_means(expected) - _channel_means(sums)
        bias.mul_(gain).add_(shift)
        largest = max(largest, float(shift.abs().max()))
        return sums + _by_channel(shift, sums)

    found = net.run(images, adjust)
    next(found)  # the input, which the float net does not give
    # Side by side, so that the float sums of one operation are held and not those of all.
    for _ in zip((float_net or net.net).run(images, see), found, strict=True):
        pass
    return largest


def _gain(found: Tensor, expected: Tensor) -> Tensor:
    """(C,), the slope of the line through each channel's pairs of values."""
    axes = _other_axes(found)
    apart = found - found.mean(axes, keepdim=True)
    both = (apart * (expected - expected.mean(axes, keepdim=True))).mean(axes)
    return ((both + _TINY) / (apart.square().mean(axes) + _TINY)).clamp(*GAINS)


def _channel_means(value: Tensor) -> Tensor:
    return value.mean(_other_axes(value))


def _other_axes(value: Tensor) -> list[int]:
    return [axis for axis in range(value.dim()) if axis != 1]


def _by_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *(1,) * (like.dim() - 2))
