"""The net: RepViT's maps of all four strides, brought to the finest, and a class for each pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgevit.repvit import RepViT

WIDTH = 48


def layer(inputs: int, kernel: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, WIDTH, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
    )


class Segmenter(nn.Module):
    """Images (N, 3, S, S) to class logits (N, classes, S, S); S is a multiple of 32.

    body    a RepViT; its head is left out
    """

    def __init__(self, body: RepViT, classes: int) -> None:
        super().__init__()
        self.body = body.features().fuse()
        self.reduce = nn.ModuleList(layer(width) for width in body.config.widths)
        self.upsample = nn.ModuleList(nn.Upsample(scale_factor=2**i) for i in range(1, 4))
        self.merge = layer(4 * WIDTH, 3)
        self.classify = nn.Conv2d(WIDTH, classes, 1)
        self.enlarge = nn.Upsample(scale_factor=4, mode="bilinear")

    def forward(self, x: Tensor) -> Tensor:
        maps = zip(self.reduce, self.body(x), strict=True)
        finest, *others = (reduce(map_) for reduce, map_ in maps)
        enlarged = (up(map_) for up, map_ in zip(self.upsample, others, strict=True))
        merged = self.merge(torch.cat([finest, *enlarged], 1))
        return self.enlarge(self.classify(merged))
