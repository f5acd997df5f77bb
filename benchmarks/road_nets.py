"""The road from MobileNetV3-L to RepViT-M0.9: ten nets, each a small change to the one before.

Paper: Wang et al., "RepViT: Revisiting Mobile CNN From ViT Perspective", arXiv:2307.09283, section
3 and its figure of the road. Step 0 is Howard et al., arXiv:1905.02244, table 1, with GELU.

`ROAD` holds the steps in order; its ten lines are the road. The nets train (batch norms, branches
of the depthwise convolutions from step 1 on); `fuse` merges them. Step 9 is step 8 distilled: the
same net.

The paper prints no parameters or MACs of a step and does not tell everything. What is taken from
MobileNetV3 until a step says otherwise: where its 5x5 kernels and squeeze-excites stand, the stem's
first bottleneck, and its widths of the squeezed channels. What is RepViT's in every step: sigmoid
in squeeze-excite, and residual branches that start at zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from edgevit.models.layers import (
    BATCH_NORMS,
    FUSABLE,
    ChannelMixer,
    Classifier,
    ConvNorm,
    RepVggDw,
    SqueezeExcite,
)
from edgevit.models.repvit import Downsample, RepViTConfig, Stem

Origin = Literal["v3", "repvit"]


class Row(NamedTuple):
    """A line of MobileNetV3's table: one block, without its stride (2 for a stage's first)."""

    kernel: int
    hidden: int
    width: int
    se: bool = False


V3_STEM_WIDTH = 16
V3_BOTTLENECK = Row(3, 16, 16)
"""The block of stride 1 behind V3's first convolution."""
V3_STAGES = (
    (Row(3, 64, 24), Row(3, 72, 24)),
    (Row(5, 72, 40, True), Row(5, 120, 40, True), Row(5, 120, 40, True)),
    (
        Row(3, 240, 80), Row(3, 200, 80), Row(3, 184, 80), Row(3, 184, 80),
        Row(3, 480, 112, True), Row(3, 672, 112, True),
    ),
    (Row(5, 672, 160, True), Row(5, 960, 160, True), Row(5, 960, 160, True)),
)  # fmt: skip
V3_HEAD_WIDTHS = (960, 1280)


@dataclass(frozen=True)
class RoadConfig:
    """One step: what its net is made of, and what the paper published of it.

    step, change  its number, and what it changes in the net before
    block         an inverted residual, or a token mixer and a channel mixer
    expansion     hidden channels a channel that a block makes; None: V3's own number of each block
    widths        channels of each stage; None: V3's own of each block
    stem          V3's convolution and bottleneck, or two convolutions of stride 2
    downsampling  a stage's first block strides, or a layer of its own before the blocks does
    head          V3's 1x1 convolution and two linear layers, or one linear layer
    depths        blocks of each stage; more blocks than V3 has are like its stage's last
    kernels, se   V3's in each place, or 3x3 and every other block
    top1, ms      published: ImageNet-1k, %, 300 epochs, and milliseconds on an iPhone 12
    mparams, mmacs
                  of the fused net at 224 px and 1000 classes, millions, from a reconstruction
    """

    step: str
    change: str
    top1: float | None
    ms: float
    mparams: float
    mmacs: int
    block: Origin = "v3"
    expansion: int | None = None
    widths: tuple[int, ...] | None = None
    stem: Origin = "v3"
    downsampling: Origin = "v3"
    head: Origin = "v3"
    depths: tuple[int, ...] = tuple(len(stage) for stage in V3_STAGES)
    kernels: Origin = "v3"
    se: Origin = "v3"

    def row(self, stage: int, block: int) -> Row:
        """The block at this place (both from 0)."""
        rows = V3_STAGES[stage]
        kernel, hidden, width, se = rows[min(block, len(rows) - 1)]
        if self.widths is not None:
            width = self.widths[stage]
        if self.expansion is not None:
            hidden = self.expansion * width
        if self.kernels == "repvit":
            kernel = 3
        if self.se == "repvit":
            se = block % 2 == 0
        return Row(kernel, hidden, width, se)

    @property
    def bottleneck(self) -> Row:
        """The block of V3's stem."""
        kept = V3_BOTTLENECK
        return kept if self.expansion is None else kept._replace(hidden=self.expansion * kept.width)


def _road() -> tuple[RoadConfig, ...]:
    """Each step changes what it names in the last one."""
    steps = [RoadConfig("0", "MobileNetV3-L with GELU", 71.5, 1.01, 5.47, 217)]

    def then(
        step: str, change: str, top1: float | None, ms: float, mparams: float, mmacs: int, **to: Any
    ) -> None:
        published = {"top1": top1, "ms": ms, "mparams": mparams, "mmacs": mmacs}
        steps.append(replace(steps[-1], step=step, change=change, **published, **to))

    wide, deep = (48, 96, 192, 384), (2, 2, 14, 2)
    then("1", "separate mixers, branches", 68.3, 0.81, 3.93, 176, block="repvit")
    then("2a", "expansion 2", None, 0.65, 3.24, 113, expansion=2)
    then("2b", "widths 48, 96, 192, 384", 73.5, 0.89, 5.73, 424, widths=wide)
    # 5.73 M in a reconstruction that counted V3's places from behind the strided block, and so lost
    # one of the third stage's two squeeze-excites in this step alone; V3's places give 5.75.
    then("3", "stem of two convolutions", 73.9, 0.86, 5.75, 455, stem="repvit")
    then("4", "deeper downsampling", 75.4, 0.96, 7.08, 665, downsampling="repvit")
    then("5", "one linear classifier", 74.8, 0.77, 4.59, 645, head="repvit")
    then("6", "depths 2, 2, 14, 2", 76.9, 0.91, 5.22, 819, depths=deep)
    then("7", "3x3 kernels alone", 76.9, 0.89, 5.20, 816, kernels="repvit")
    then("8", "SE in every other block: M0.9", 77.4, 0.87, 5.07, 816, se="repvit")
    return tuple(steps)


ROAD = _road()
STEPS = {config.step: config for config in ROAD}
DISTILLED = replace(ROAD[-1], step="9", change="step 8, distilled (RegNetY-16GF)", top1=78.7)


class RoundedSqueezeExcite(SqueezeExcite):
    """RepViT's with as many squeezed channels as V3: a multiple of 8, no less than 0.9 of 1/4.

    From step 2b on the two are the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        if self.fc1.out_channels < 0.9 * channels / 4:
            squeezed = self.fc1.out_channels + 8
            self.fc1 = nn.Conv2d(channels, squeezed, 1)
            self.fc2 = nn.Conv2d(squeezed, channels, 1)


def _squeeze_excite(row: Row, channels: int) -> nn.Module:
    return RoundedSqueezeExcite(channels) if row.se else nn.Identity()


class InvertedBlock(nn.Module):
    """V3's: 1x1 expansion, depthwise, squeeze-excite, 1x1 projection, a residual where it fits."""

    def __init__(self, channels: int, row: Row, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1 and channels == row.width
        layers: list[nn.Module] = []
        if row.hidden != channels:
            layers += [ConvNorm(channels, row.hidden), nn.GELU()]
        layers += [
            ConvNorm(row.hidden, row.hidden, row.kernel, stride, row.hidden),
            nn.GELU(),
            _squeeze_excite(row, row.hidden),
            ConvNorm(row.hidden, row.width, norm_weight=0.0 if self.residual else 1.0),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class SeparateBlock(nn.Module):
    """Depthwise and squeeze-excite mix tokens, then two 1x1 convolutions mix channels.

    At stride 1 the depthwise convolution has branches. Where the width stays, the channel mixer has
    a residual, and the block is RepViT's.
    """

    def __init__(self, channels: int, row: Row, stride: int) -> None:
        super().__init__()
        self.residual = channels == row.width
        self.token_mixer = (
            RepVggDw(channels, row.kernel)
            if stride == 1
            else ConvNorm(channels, channels, row.kernel, stride, channels)
        )
        self.se = _squeeze_excite(row, channels)
        self.channel_mixer = (
            ChannelMixer(channels, row.hidden)
            if self.residual
            else nn.Sequential(
                ConvNorm(channels, row.hidden), nn.GELU(), ConvNorm(row.hidden, row.width)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.se(self.token_mixer(x))
        return x + self.channel_mixer(x) if self.residual else self.channel_mixer(x)


BLOCKS = {"v3": InvertedBlock, "repvit": SeparateBlock}


class V3Stem(nn.Sequential):
    """(N, 3, H, W) to (N, 16, H / 2, W / 2)."""

    def __init__(self, config: RoadConfig) -> None:
        super().__init__(
            ConvNorm(3, V3_STEM_WIDTH, 3, stride=2),
            nn.GELU(),
            BLOCKS[config.block](V3_STEM_WIDTH, config.bottleneck, stride=1),
        )


class Stage(nn.Module):
    """The downsampling layer, where there is one, then the blocks."""

    def __init__(self, config: RoadConfig, index: int, channels: int) -> None:
        super().__init__()
        rows = [config.row(index, block) for block in range(config.depths[index])]
        strides = [1] * len(rows)
        self.downsample: nn.Module = nn.Identity()
        if index == 0 and config.stem == "repvit":
            pass  # the stem has halved the maps twice
        elif config.downsampling == "v3" or index == 0:
            strides[0] = 2
        else:
            width = rows[0].width
            like = RepViTConfig(
                "road", (channels, width), (1, 1), features_only=True, out_indices=(0,)
            )
            self.downsample = Downsample(like, channels, width, stride=2)
            channels = width
        blocks = []
        for row, stride in zip(rows, strides, strict=True):
            blocks.append(BLOCKS[config.block](channels, row, stride))
            channels = row.width
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class RoadNet(nn.Module):
    """The net of a step: normalised images (N, 3, H, W) to logits (N, classes)."""

    def __init__(self, config: RoadConfig, classes: int = 1000) -> None:
        super().__init__()
        self.config = config
        channels = config.row(0, 0).width if config.stem == "repvit" else V3_STEM_WIDTH
        self.stem = Stem(3, channels) if config.stem == "repvit" else V3Stem(config)
        stages = []
        for index in range(len(config.depths)):
            stages.append(Stage(config, index, channels))
            channels = config.row(index, config.depths[index] - 1).width
        self.stages = nn.Sequential(*stages)
        wide, wider = V3_HEAD_WIDTHS
        if config.head == "v3":
            self.neck = nn.Sequential(ConvNorm(channels, wide), nn.GELU())
            self.head = nn.Sequential(nn.Linear(wide, wider), nn.GELU(), nn.Linear(wider, classes))
        else:
            self.neck = nn.Identity()
            self.head = Classifier(channels, classes, distillation=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.neck(self.stages(self.stem(x)))
        return self.head(x.mean((2, 3), keepdim=True).flatten(1))

    def fuse(self) -> RoadNet:
        """Puts one plain layer in the place of each one with norms and branches; returns self."""
        with torch.no_grad():
            _fuse(self)
        return self


def _fuse(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, FUSABLE):
            setattr(module, name, child.fuse())
        else:
            _fuse(child)


def seeded_net(config: RoadConfig, seed: int, classes: int = 1000) -> RoadNet:
    """The net with weights that the seed draws; torch's random state is left as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RoadNet(config, classes)


def with_random_norms(net: RoadNet, images: Tensor, seed: int) -> RoadNet:
    """The net itself, in eval mode, with norms as training could have left them: for timing, tests.

    Without this the residual branches of an untrained net are zero, and so would be its scales.
    Norms get random factors, and statistics of the images.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for layer in net.modules():
            if isinstance(layer, BATCH_NORMS):
                layer.momentum = None  # statistics are the mean over all batches
                nn.init.uniform_(layer.weight, 0.2, 1.0)
                nn.init.normal_(layer.bias, std=0.1)
        net.train()(images)
    return net.eval()
