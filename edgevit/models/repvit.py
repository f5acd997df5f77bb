"""RepViT, a mobile CNN that trains with branches and runs as plain convolutions.

Paper: Wang et al., "RepViT: Revisiting Mobile CNN From ViT Perspective", arXiv:2307.09283.

Module names are timm's, so that its state dicts load as they are. ``RepViT.fuse`` turns every
ConvNorm and RepVggDw into one nn.Conv2d, and the classifier into one nn.Linear, at the very path
of the layer it replaces. Shapes are (batch, channels, height, width) throughout, float32.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from edgevit.data.options import PreprocessingOptions
from edgevit.errors import InputError
from edgevit.models.layers import (
    BATCH_NORMS,
    FUSABLE,
    ChannelMixer,
    Classifier,
    ConvNorm,
    NormLinear,
    RepVggDw,
    SqueezeExcite,
)
from edgevit.options import Size

if TYPE_CHECKING:
    from edgevit.models.checkpoint import CheckpointInfo

SqueezeExciteRule = Literal["none", "every", "alternate"]
SqueezeExciteUse = SqueezeExciteRule | tuple[tuple[int, ...], ...]

SE_CHOICES: tuple[SqueezeExciteRule, ...] = ("none", "every", "alternate")


@dataclass(frozen=True)
class RepViTConfig:
    """What a RepViT is made of; everything that decides the shapes of its tensors.

    `widths` and `depths` give each stage's channels and blocks. Each later stage starts with a
    downsampling layer, which holds one more block (without SE) at the previous width.

    The paper's ablations are `reparameterization` (False: the token mixer is the bare k×k
    depthwise convolution, also in training), `se` (squeeze-excite in no block, in every block, in
    every other block of a stage from its first one on, or in the blocks listed for each stage, from
    0), `kernel_size` (of the depthwise convolutions) and `expansion` (hidden channels of a channel
    mixer per channel).

    `in_channels` are those of the images. `branch_norms` tells the nets of the first release (M1 to
    M3, 2023), which differ in training alone: each branch of a token mixer has a batch norm, and
    their sum has none.

    `features_only` drops the head: the net returns the maps of the stages in `out_indices`, and
    stages after the last of them are not built.

    Raises InputError when a value does not describe a net.
    """

    variant: str
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    num_classes: int = 1000
    distillation: bool = True
    kernel_size: int = 3
    expansion: float = 2
    se: SqueezeExciteUse = "alternate"
    reparameterization: bool = True
    features_only: bool = False
    out_indices: tuple[int, ...] = (0, 1, 2, 3)
    in_channels: int = 3
    branch_norms: bool = False

    def __post_init__(self) -> None:
        def refuse(what: str, fix: str) -> None:
            raise InputError(f"RepViT config {self.variant!r}: {what}; {fix}")

        if len(self.widths) != len(self.depths) or not self.widths:
            refuse(
                f"{len(self.widths)} widths for {len(self.depths)} depths",
                "give one width and one depth a stage, as in widths=(48, 96), depths=(2, 2)",
            )
        if any(width < 2 or width % 2 for width in self.widths) or min(self.depths) < 1:
            refuse(
                f"widths {self.widths}, depths {self.depths}",
                "widths are even and positive (the stem starts at half), depths at least 1",
            )
        if self.num_classes < 1:
            refuse(f"num_classes={self.num_classes}", "use features_only=True for a headless net")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            refuse(f"kernel_size={self.kernel_size}", "use an odd one, such as kernel_size=3")
        if any(width * self.expansion != int(width * self.expansion) for width in self.widths):
            refuse(f"expansion={self.expansion}", "width × expansion must be whole in each stage")
        if self.expansion <= 0:
            refuse(f"expansion={self.expansion}", "use a positive one, such as expansion=2")
        if self.in_channels < 1:
            refuse(f"in_channels={self.in_channels}", "use the number of the images' channels")
        if not self._is_known_se():
            refuse(
                f"se={self.se!r}",
                f"use one of {', '.join(SE_CHOICES)}, or the blocks of each stage that have it",
            )
        stages = range(len(self.widths))
        if not self.out_indices or any(index not in stages for index in self.out_indices):
            refuse(f"out_indices={self.out_indices}", f"choose from {tuple(stages)}")

    def _is_known_se(self) -> bool:
        if isinstance(self.se, str):
            return self.se in SE_CHOICES
        return len(self.se) == len(self.depths) and all(
            0 <= block < depth
            for blocks, depth in zip(self.se, self.depths, strict=True)
            for block in blocks
        )

    def stride_of(self, stage: int) -> int:
        """How many times smaller than its input a later stage's maps are."""
        return 2

    def net_class(self) -> type[RepViT]:
        """What nets of this config are."""
        return RepViT

    def trunk(self) -> RepViTConfig:
        """The config without what reads the last stage's maps."""
        return replace(self, features_only=True)

    @property
    def stage_count(self) -> int:
        """Stages that are built: all of them, or as far as `features_only` needs."""
        return 1 + max(self.out_indices) if self.features_only else len(self.widths)

    def uses_se(self, stage: int, block: int) -> bool:
        """Whether the block at this place of a stage (both from 0) has squeeze-excite."""
        if isinstance(self.se, tuple):
            return block in self.se[stage]
        return self.se == "every" or (self.se == "alternate" and block % 2 == 0)

    @property
    def fused_convs(self) -> int:
        """Convolutions of the fused net (the head, a linear layer, not counted)."""
        stem, block, downsample = 2, 3, 7
        count = stem + downsample * (self.stage_count - 1)
        for stage, depth in enumerate(self.depths[: self.stage_count]):
            count += sum(block + 2 * self.uses_se(stage, index) for index in range(depth))
        return count


class Block(nn.Module):
    """Token mixer, squeeze-excite or nothing, and the channel mixer with its residual."""

    def __init__(self, config: RepViTConfig, channels: int, use_se: bool) -> None:
        super().__init__()
        size = config.kernel_size
        if config.reparameterization:
            self.token_mixer: nn.Module = RepVggDw(channels, size, config.branch_norms)
        else:
            self.token_mixer = ConvNorm(channels, channels, size, groups=channels)
        self.se = SqueezeExcite(channels) if use_se else nn.Identity()
        self.channel_mixer = ChannelMixer(channels, int(channels * config.expansion))

    def forward(self, x: Tensor) -> Tensor:
        x = self.se(self.token_mixer(x))
        return x + self.channel_mixer(x)


class Downsample(nn.Module):
    """Halves height and width and widens: (N, I, H, W) to (N, O, ceil(H / 2), ceil(W / 2)).

    With the stride 1, as a SAM encoder's last one has it, it widens alone.
    """

    def __init__(
        self, config: RepViTConfig, in_channels: int, out_channels: int, stride: int
    ) -> None:
        super().__init__()
        size = config.kernel_size
        self.pre_block = Block(config, in_channels, use_se=False)
        self.spatial_downsample = ConvNorm(
            in_channels, in_channels, size, stride=stride, groups=in_channels
        )
        self.channel_downsample = ConvNorm(in_channels, out_channels)
        self.ffn = ChannelMixer(out_channels, int(out_channels * config.expansion))

    def forward(self, x: Tensor) -> Tensor:
        x = self.channel_downsample(self.spatial_downsample(self.pre_block(x)))
        return x + self.ffn(x)


class Stage(nn.Module):
    """A downsampling layer (not in the first stage), then the blocks."""

    def __init__(self, config: RepViTConfig, index: int) -> None:
        super().__init__()
        width = config.widths[index]
        self.downsample = (
            Downsample(config, config.widths[index - 1], width, config.stride_of(index))
            if index
            else nn.Identity()
        )
        blocks = (
            Block(config, width, use_se=config.uses_se(index, block))
            for block in range(config.depths[index])
        )
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class Stem(nn.Module):
    """Two stride-2 3×3 convolutions: (N, C, H, W) to (N, width, H / 4, W / 4)."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, width // 2, 3, stride=2)
        self.act1 = nn.GELU()
        self.conv2 = ConvNorm(width // 2, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.act1(self.conv1(x)))


class RepViT(nn.Module):
    """The net of a config: images (N, in_channels, H, W), normalised, to logits (N, classes).

    With `features_only` it returns a tuple of the chosen stages' maps instead, at strides 4, 8,
    16 and 32 of the input. H and W of at least 32 give every stage a map to work on.

    `checkpoint_info` says what a net was loaded from, None where it was not.
    """

    checkpoint_info: CheckpointInfo | None = None
    unknown_neck: tuple[str, ...] = ()
    """Tensors of an image encoder that stand behind the trunk, where edgevit does not know them."""

    def __init__(self, config: RepViTConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(config.in_channels, config.widths[0])
        self.stages = nn.Sequential(*(Stage(config, index) for index in range(config.stage_count)))
        if not config.features_only:
            self.head = Classifier(config.widths[-1], config.num_classes, config.distillation)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Of a backbone's maps, as `edgevit.graph.naming` asks for them: stage1, stage2, ..."""
        chosen = self.config.out_indices if self.config.features_only else ()
        return tuple(f"stage{index + 1}" for index in sorted(chosen))

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """The maps of the stages in `config.out_indices`, finest first, (N, width, H', W') each."""
        x = self.stem(x)
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.config.out_indices:
                maps.append(x)
        return tuple(maps)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.config.features_only:
            return self.forward_features(x)
        x = self.stages(self.stem(x))
        return self.head(x.mean((2, 3), keepdim=True).flatten(1))

    def as_features(self) -> RepViT:
        """The net whose outputs another one reads: here the maps of every stage."""
        if self.unknown_neck:
            listed = ", ".join(repr(name) for name in self.unknown_neck[:3])
            more = f" and {len(self.unknown_neck) - 3} more" if self.unknown_neck[3:] else ""
            stages = ",".join(str(i + 1) for i in range(len(self.stages)))
            raise InputError(
                f"this file is an image encoder of {self.config.variant} with a neck that edgevit "
                f"does not know ({listed}{more}); --stages {stages} takes the trunk's maps instead"
            )
        return self.features(range(len(self.stages)))

    def features(self, out_indices: Collection[int] = (0, 1, 2, 3)) -> RepViT:
        """A net of the same weights without the head, that returns these stages' maps.

        out_indices   stages, from 0
        Raises InputError for a stage that the net does not have.
        """
        chosen = tuple(sorted(set(out_indices)))
        built = len(self.stages)
        if chosen and chosen[-1] >= built:
            raise InputError(
                f"stage {chosen[-1] + 1} is none of {self.config.variant}'s: it has the stages 1 "
                f"to {built}"
            )
        config = replace(self.config.trunk(), out_indices=chosen)
        net = RepViT(config)
        if is_fused(self):
            net.fuse()
        kept = net.state_dict().keys()
        net.load_state_dict({n: t for n, t in self.state_dict().items() if n in kept})
        net.checkpoint_info = self.checkpoint_info
        return net.train(self.training)

    def macs_beyond(self, height: int, width: int) -> int:
        """Multiply-accumulates of what reads the last stage's maps, of this size; 0 for a head."""
        return 0

    @torch.no_grad()
    def fuse(self) -> RepViT:
        """Replaces, in place, each layer that can fuse by its one layer; returns self.

        The result equals the net in eval mode. A fused net is left as it is.
        """
        _replace_fusable(self, lambda layer: layer.fuse())
        return self


def _replace_fusable(
    module: nn.Module,
    by: Callable[[ConvNorm | RepVggDw | Classifier | NormLinear], nn.Module],
    chosen: Collection[str] | None = None,
    inside: str = "",
) -> None:
    """Replace the layers that can fuse: the outermost ones, or those at the `chosen` paths."""
    for name, child in module.named_children():
        path = inside + name
        fusable = isinstance(child, (*FUSABLE, NormLinear))
        if fusable and (chosen is None or path in chosen):
            setattr(module, name, by(child))
        else:
            _replace_fusable(child, by, chosen, f"{path}.")


def skeleton(config: RepViTConfig, fused: bool | Collection[str]) -> RepViT:
    """The net with shapes alone, on the meta device: nothing is allocated or computed.

    `fused` tells whether its layers are plain, or the paths of those that are.
    """
    with torch.device("meta"):
        model = config.net_class()(config)
        if fused:
            chosen = None if fused is True else fused
            _replace_fusable(model, lambda layer: layer.plain(), chosen)
    return model


def unfused_layers(model: nn.Module) -> dict[str, str]:
    """Every batch norm and every branched layer left in the model: its path and its class."""
    kinds = (*FUSABLE, *BATCH_NORMS)
    return {
        path: type(layer).__name__
        for path, layer in model.named_modules()
        if isinstance(layer, kinds)
    }


def is_fused(model: nn.Module) -> bool:
    """Whether no batch norm and no branch is left in the model."""
    return not unfused_layers(model)


def count_parameters(model: nn.Module) -> int:
    """Learned numbers of the model as it is now (fewer once it is fused)."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: RepViT, image_size: Size = PreprocessingOptions.image_size) -> int:
    """Multiply-accumulates of convolutions and linear layers for one image: its side in pixels, or
    (height, width).

    Counted on the model as it is now; the figures that papers print are the fused net's.
    """
    macs = 0
    height, width = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    # By rule and not by running it: layers are listed in the order in which they run, and only
    # strides change the size of the map.
    for path, layer in model.named_modules():
        if not path.startswith(_TRUNK):
            continue
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and ".se." in path):
            macs += layer.weight.numel()
        elif isinstance(layer, nn.Conv2d):
            height, width = -(-height // layer.stride[0]), -(-width // layer.stride[1])
            macs += layer.weight.numel() * height * width
    return macs + model.macs_beyond(height, width)


_TRUNK = ("stem", "stages", "head")
