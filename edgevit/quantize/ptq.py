"""Bias correction, the last post-training step."""

from __future__ import annotations

import torch
from torch import Tensor

from edgevit.ops import Node, Weighted
from edgevit.quantize.net import QuantizedNet


@torch.no_grad()
def correct_biases(net: QuantizedNet, images: Tensor) -> float:
    """Shift each layer's bias so that its mean output per channel equals the float net's.

    Nagel et al., arXiv 1906.04721, section 4.2, measured on data: layer after layer, with the
    errors of the layers before it already in its input. `images` is float32 (N, C, H, W), run as
    one batch, and `net` still has the float net's weights. Returns the largest shift of a bias.
    """
    layers = {node.name for node in net.graph.weighted()}
    wanted = {name: _channel_means(value) for name, value in net.net.run(images) if name in layers}
    largest = 0.0

    def adjust(node: Node, value: Tensor) -> Tensor:
        nonlocal largest
        if not isinstance(node, Weighted):
            return value
        shift = wanted[node.name] - _channel_means(value)
        net.layers[node.module].weights[1].add_(shift)
        largest = max(largest, float(shift.abs().max()))
        return value + shift.view(1, -1, *(1,) * (value.dim() - 2))

    for _ in net.run(images, adjust):
        pass
    return largest


def _channel_means(value: Tensor) -> Tensor:
    return value.mean(tuple(i for i in range(value.dim()) if i != 1))
