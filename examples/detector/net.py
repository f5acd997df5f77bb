"""The net: RepViT's maps of all four strides, a pyramid over them, and a head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgevit.repvit import RepViT

STRIDES = (8, 16, 32)
WIDTH = 64
PRIOR = -4.0
"""First class logit: few places of a map hold a thing, and training starts from there."""


def layer(inputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, WIDTH, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
    )


class Detector(nn.Module):
    """Images (N, 3, S, S) to class logits (N, kinds, S / stride, S / stride) of each level, then
    box maps (N, 4, S / stride, S / stride) of each: logarithms of the distances to the left, top,
    right and bottom of the box, in strides. S is a multiple of 32.

    body    a RepViT; its head is left out
    """

    output_names = tuple(f"{what}_{stride}" for what in ("score", "box") for stride in STRIDES)

    def __init__(self, body: RepViT, kinds: int) -> None:
        super().__init__()
        self.body = body.features().fuse()
        edges, *others = body.config.widths
        self.edges = layer(edges, 3, stride=2)
        self.lateral = nn.ModuleList(layer(width, 1) for width in others)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        # One for each level: a batch norm has the statistics of one level alone.
        self.towers = nn.ModuleList(nn.Sequential(layer(WIDTH, 3), layer(WIDTH, 3)) for _ in others)
        self.score = nn.Conv2d(WIDTH, kinds, 1)
        self.box = nn.Conv2d(WIDTH, 4, 1)
        nn.init.constant_(self.score.bias, PRIOR)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        edges, *others = self.body(x)
        lateral = zip(self.lateral, others, strict=True)
        fine, middle, coarse = (reduce(map_) for reduce, map_ in lateral)
        middle = middle + self.upsample(coarse)
        fine = fine + self.upsample(middle) + self.edges(edges)
        levels = zip(self.towers, (fine, middle, coarse), strict=True)
        read = [tower(level) for tower, level in levels]
        return *map(self.score, read), *map(self.box, read)


def flat(outputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The maps as one row a place: logits (N, P, kinds) and box values (N, P, 4)."""
    rows = [output.flatten(2).transpose(1, 2) for output in outputs]
    levels = len(STRIDES)
    return torch.cat(rows[:levels], 1), torch.cat(rows[levels:], 1)
