"""Bias correction, the last post-training step."""

from __future__ import annotations

import torch
from torch import Tensor

from edgevit.quantize.net import QuantizedNet, Step, run_float


@torch.no_grad()
def correct_biases(net: QuantizedNet, images: Tensor) -> float:
    """Shift each layer's bias so that its mean output per channel equals the float net's.

    Nagel et al., arXiv 1906.04721, section 4.2, measured on data: layer after layer, with the
    errors of the layers before it already in its input. `images` is float32 (N, 3, H, W), run as
    one batch, and `net` still has the float net's weights. Returns the largest shift of a bias.
    """
    layers = {step.name for step in net.steps if step.layer is not None}
    wanted = {
        name: _channel_means(value)
        for name, value in run_float(net.steps, images)
        if name in layers
    }
    largest = 0.0

    def adjust(step: Step, value: Tensor) -> Tensor:
        nonlocal largest
        if step.layer is None:
            return value
        shift = wanted[step.name] - _channel_means(value)
        step.layer.bias += shift
        largest = max(largest, float(shift.abs().max()))
        return value + shift.view(1, -1, *(1,) * (value.dim() - 2))

    for _ in net.run(images, adjust):
        pass
    return largest


def _channel_means(value: Tensor) -> Tensor:
    return value.mean(tuple(i for i in range(value.dim()) if i != 1))
