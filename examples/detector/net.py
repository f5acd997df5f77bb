"""The net: RepViT's maps at strides 8, 16 and 32, a pyramid over them, one head for all levels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgevit.repvit import RepViT

STRIDES = (8, 16, 32)
WIDTH = 64
PRIOR = -4.0
"""First class logit: few places of a map hold a thing, and training starts from there."""


def separable() -> list[nn.Module]:
    return [
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH, bias=False),
        nn.BatchNorm2d(WIDTH),
        nn.Conv2d(WIDTH, WIDTH, 1, bias=False),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
    ]


class Detector(nn.Module):
    """Images (N, 3, S, S) to class logits (N, kinds, S / stride, S / stride) of each level, then
    box maps (N, 4, S / stride, S / stride) of each: logarithms of the distances to the left, top,
    right and bottom of the box, in strides. S is a multiple of 32.

    body    a RepViT; its head is left out
    """

    def __init__(self, body: RepViT, kinds: int) -> None:
        super().__init__()
        self.body = body.features((1, 2, 3)).fuse()
        widths = body.config.widths[1:4]
        self.lateral = nn.ModuleList(nn.Conv2d(width, WIDTH, 1) for width in widths)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.tower = nn.Sequential(*separable(), *separable())
        self.score = nn.Conv2d(WIDTH, kinds, 1)
        self.box = nn.Conv2d(WIDTH, 4, 1)
        nn.init.constant_(self.score.bias, PRIOR)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        fine, middle, coarse = (
            layer(map_) for layer, map_ in zip(self.lateral, self.body(x), strict=True)
        )
        middle = middle + self.upsample(coarse)
        fine = fine + self.upsample(middle)
        towers = [self.tower(level) for level in (fine, middle, coarse)]
        return *map(self.score, towers), *map(self.box, towers)


def flat(outputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The maps as one row a place: logits (N, P, kinds) and box values (N, P, 4)."""
    rows = [output.flatten(2).transpose(1, 2) for output in outputs]
    levels = len(STRIDES)
    return torch.cat(rows[:levels], 1), torch.cat(rows[levels:], 1)
