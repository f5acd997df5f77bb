"""Bias correction, the last post-training step."""

from __future__ import annotations

import torch
from torch import Tensor

from edgevit.ops import Weighted
from edgevit.quantize.net import QuantizedNet


@torch.no_grad()
def correct_biases(net: QuantizedNet, images: Tensor) -> float:
    """Shift each layer's bias so that its mean output per channel equals the float net's.

    The output before the activation behind it, where there is one.

    Nagel et al., arXiv 1906.04721, section 4.2, measured on data: layer after layer, with the
    errors of the layers before it already in its input. `images` is float32 (N, C, H, W), run as
    one batch, and `net` still has the float net's weights. Returns the largest shift of a bias.
    """
    wanted: dict[str, Tensor] = {}
    largest = 0.0

    def see(node: Weighted, sums: Tensor) -> Tensor:
        wanted[node.module] = _channel_means(sums)
        return sums

    def adjust(node: Weighted, sums: Tensor) -> Tensor:
        nonlocal largest
        shift = wanted[node.module] - _channel_means(sums)
        net.layers[node.module].weights[1].add_(shift)
        largest = max(largest, float(shift.abs().max()))
        return sums + shift.view(1, -1, *(1,) * (sums.dim() - 2))

    for _ in net.net.run(images, see):
        pass
    for _ in net.run(images, adjust):
        pass
    return largest


def _channel_means(value: Tensor) -> Tensor:
    return value.mean(tuple(i for i in range(value.dim()) if i != 1))
