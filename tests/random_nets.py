"""Nets with weights and statistics that look trained, so that each layer has its say."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from edgevit.models.repvit import RepViT
from edgevit.models.variants import VARIANTS

Net = TypeVar("Net", bound=nn.Module)


def random_net(variant: str = "repvit_m0_6", seed: int = 0, **options) -> RepViT:
    """A variant in eval mode, the same for the same seed, with logits of about 1."""
    torch.manual_seed(seed)
    return trained_looking(VARIANTS[variant](**options))


def trained_looking(model: Net) -> Net:
    """The net itself, with random norms as training leaves them, in eval mode."""
    for path, layer in model.named_modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            # Residual branches stay small, or fifty of them in a row would blow up.
            gain = 0.2 if path.endswith("conv2.bn") and "stem" not in path else 1.0
            nn.init.uniform_(layer.weight, 0.5 * gain, 1.5 * gain)
            nn.init.normal_(layer.bias, std=0.1)
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return model.eval()


def random_images(count: int = 2, size: int = 64, seed: int = 1) -> torch.Tensor:
    """(count, 3, size, size), standard normal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator)
