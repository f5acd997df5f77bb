"""RepNeXt-M1 (arXiv 2406.16004), which timm lacks: ours, written from the paper's description.

A stage is blocks of a token mixer, a batch norm and an FFN of factor 2 around which the input is
added. The mixer splits the channels in four: one part passes, the others go through a small, a
medium and a large depthwise kernel. The small and the medium are trained as sums of narrower ones
and merged; the large is a row and then a column of 11. Between stages a small and a medium kernel
of stride 2, side by side, double the channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS, DEPTHS = (48, 96, 192, 384), (3, 3, 15, 2)
ROW_OF_LARGE = 11


class Kernel(nn.Module):
    """A depthwise square kernel, trained as a sum of narrower ones: bands, and rows times columns.

    bands       (height, width), each added to the square
    products    lengths of a row followed by a column, without biases between
    gaps        whether a 2×2 kernel of dilation 2 is added, which covers 3×3
    """

    def __init__(
        self,
        channels: int,
        size: int,
        stride: int,
        bands: tuple[tuple[int, int], ...] = (),
        products: tuple[int, ...] = (),
        gaps: bool = False,
    ) -> None:
        super().__init__()
        self.stride = stride

        def conv(height: int, width: int, along: tuple[int, int], bias: bool = True) -> nn.Conv2d:
            padding = (height // 2, width // 2)
            return nn.Conv2d(
                channels, channels, (height, width), along, padding, groups=channels, bias=bias
            )

        both = (stride, stride)
        self.square = conv(size, size, both)
        self.bands = nn.ModuleList(conv(*band, both) for band in bands)
        self.products = nn.ModuleList(
            nn.Sequential(conv(1, n, (1, stride), False), conv(n, 1, (stride, 1), False))
            for n in products
        )
        self.gaps = nn.ModuleList(
            [nn.Conv2d(channels, channels, 2, stride, 1, dilation=2, groups=channels)] * gaps
        )

    def forward(self, x: Tensor) -> Tensor:
        for_each = (*self.bands, *self.products, *self.gaps)
        return sum((part(x) for part in for_each), self.square(x))

    @torch.no_grad()
    def merged(self) -> nn.Conv2d:
        size = self.square.kernel_size[0]
        weight, bias = self.square.weight.clone(), self.square.bias.clone()
        for band in self.bands:
            weight += _centred(band.weight, size)
            bias += band.bias
        for row, column in self.products:
            weight += _centred(row.weight * column.weight, size)
        for part in self.gaps:
            weight[:, :, ::2, ::2] += part.weight
            bias += part.bias
        result = nn.Conv2d(
            len(bias), len(bias), size, self.stride, size // 2, groups=len(bias)
        )  # fmt: skip
        result.weight.copy_(weight)
        result.bias.copy_(bias)
        return result


def _centred(weight: Tensor, size: int) -> Tensor:
    height, width = ((size - side) // 2 for side in weight.shape[2:])
    return F.pad(weight, (width, width, height, height))


def small(channels: int, stride: int = 1) -> Kernel:
    if stride == 1:
        return Kernel(channels, 3, 1, bands=((1, 3), (3, 1)), gaps=True)
    return Kernel(channels, 3, stride, products=(3,), gaps=True)


def medium(channels: int, stride: int = 1) -> Kernel:
    return Kernel(channels, 7, stride, bands=((5, 3), (3, 5)), products=(7, 5))


def large(channels: int) -> nn.Sequential:
    n = ROW_OF_LARGE
    return nn.Sequential(
        nn.Conv2d(channels, channels, (1, n), padding=(0, n // 2), groups=channels),
        nn.Conv2d(channels, channels, (n, 1), padding=(n // 2, 0), groups=channels),
    )


class Quarters(nn.Module):
    """The mixer within a stage."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = channels // 4
        self.small, self.medium, self.large = small(quarter), medium(quarter), large(quarter)

    def forward(self, x: Tensor) -> Tensor:
        passed, a, b, c = x.chunk(4, 1)
        return torch.cat((passed, self.small(a), self.medium(b), self.large(c)), 1)


class Doubling(nn.Module):
    """The mixer between stages."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.small, self.medium = small(channels, 2), medium(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.small(x), self.medium(x)), 1)


def normed(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """`around` says whether the sum goes around the mixer, too, as it cannot where maps shrink."""

    def __init__(self, mixer: nn.Module, channels: int, around: bool) -> None:
        super().__init__()
        self.mixer, self.norm, self.around = mixer, nn.BatchNorm2d(channels), around
        self.ffn = nn.Sequential(
            normed(channels, 2 * channels), nn.GELU(), normed(2 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.norm(self.mixer(x))
        return (x if self.around else mixed) + self.ffn(mixed)


class RepNeXt(nn.Module):
    """One head; `merge` makes single kernels of the sums, norms are left to the tracer."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        first = WIDTHS[0]
        self.stem = nn.Sequential(normed(3, first // 2, 3, 2), nn.GELU(),
                                  normed(first // 2, first, 3, 2))  # fmt: skip
        blocks: list[nn.Module] = []
        for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS)):
            if stage:
                blocks.append(Block(Doubling(width // 2), width, around=False))
            blocks += [Block(Quarters(width), width, around=True) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks)
        self.head_norm, self.head = nn.BatchNorm1d(WIDTHS[-1]), nn.Linear(WIDTHS[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.head_norm(self.blocks(self.stem(x)).mean((2, 3))))

    def merge(self) -> RepNeXt:
        for module in list(self.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, Kernel):
                    setattr(module, name, child.merged())
        return self
