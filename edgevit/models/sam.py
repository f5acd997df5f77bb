"""Image encoders of Segment Anything on RepViT's trunk: RepViT-SAM's and EdgeSAM's.

Papers: RepViT-SAM, arXiv:2312.05760; EdgeSAM, arXiv:2312.06660; the neck is Segment Anything's,
arXiv:2304.02643. Module names are those of the published files, behind `image_encoder.` there.

    RepViT-SAM  the last stage keeps the size of its input, and the neck reads it
    EdgeSAM     the last two stages, widened to 256 channels and summed, the last one enlarged
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgevit.errors import InputError
from edgevit.models.repvit import RepViT, RepViTConfig, is_fused

EMBEDDING = 256
"""Channels of the embeddings, in every published one."""
NECK_EPS = 1e-6
OUTPUT = "image_embeddings"
ENLARGED = 2
SUFFIX = "_sam"

Upsample = Literal["bicubic", "bilinear"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class SamConfig(RepViTConfig):
    """A trunk's config, without a head, and what stands behind it.

    fusion    whether the neck reads the sum of the last two stages (EdgeSAM); where it does not,
              the last stage keeps the size of its input
    upsample  how the last stage is enlarged for the sum, "bicubic" as it was trained
    neck      False: the trunk alone, with the strides that it has in the encoder
    """

    fusion: bool = False
    upsample: Upsample = "bicubic"
    neck: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.widths) < 2 or not self.features_only:
            raise InputError("a SAM encoder has two stages or more, and no head")
        if self.upsample not in ("bicubic", "bilinear"):
            raise InputError(f"upsample={self.upsample!r}; use bicubic or bilinear")

    def stride_of(self, stage: int) -> int:
        last = stage == len(self.widths) - 1
        return 1 if last and not self.fusion else super().stride_of(stage)

    def net_class(self) -> type[RepViT]:
        return SamEncoder if self.neck else RepViT

    def trunk(self) -> SamConfig:
        return replace(self, neck=False)

    @property
    def fused_convs(self) -> int:
        """Convolutions of the fused net, the neck's and the fusion's among them."""
        beyond = (4 if self.fusion else 2) if self.neck else 0
        return super().fused_convs + beyond


class LayerNorm2d(nn.Module):
    """A layer norm over the channels of maps (N, C, H, W), biased variance."""

    def __init__(self, channels: int, eps: float = NECK_EPS) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        variance = (centred * centred).mean(1, keepdim=True)
        normal = centred / torch.sqrt(variance + self.eps)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


class Enlarged(nn.Module):
    """A 1×1 convolution, then twice the height and width."""

    def __init__(self, channels: int, upsample: Upsample) -> None:
        super().__init__()
        self.op_list = nn.Sequential(nn.Conv2d(channels, EMBEDDING, 1, bias=False))
        self.upsample = upsample

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(
            self.op_list(x), scale_factor=ENLARGED, mode=self.upsample, align_corners=False
        )


class SamEncoder(RepViT):
    """Images (N, 3, H, W), normalised, to embeddings (N, 256, H / 16, W / 16)."""

    config: SamConfig

    def __init__(self, config: SamConfig) -> None:
        super().__init__(config)
        width = config.widths[-1]
        if config.fusion:
            self.fuse_stage2 = nn.Conv2d(config.widths[-2], EMBEDDING, 1, bias=False)
            self.fuse_stage3 = Enlarged(width, config.upsample)
            width = EMBEDDING
        self.neck = nn.Sequential(
            nn.Conv2d(width, EMBEDDING, 1, bias=False),
            LayerNorm2d(EMBEDDING),
            nn.Conv2d(EMBEDDING, EMBEDDING, 3, padding=1, bias=False),
            LayerNorm2d(EMBEDDING),
        )

    @property
    def output_names(self) -> tuple[str, ...]:
        return (OUTPUT,)

    def forward(self, x: Tensor) -> Tensor:
        """Raises InputError for sizes at which the two maps of a fusion do not meet."""
        *_, before, last = self.forward_features(x)
        if not self.config.fusion:
            return self.neck(last)
        found = tuple(ENLARGED * size for size in last.shape[2:])
        if found != before.shape[2:]:
            raise InputError(
                f"an input of {x.shape[2]} x {x.shape[3]} px gives this encoder maps of "
                f"{tuple(before.shape[2:])} and, enlarged, {found}, which cannot be summed; use "
                "multiples of 32"
            )
        return self.neck(self.fuse_stage2(before) + self.fuse_stage3(last))

    def as_features(self) -> RepViT:
        return self

    def with_upsample(self, upsample: Upsample) -> SamEncoder:
        """An encoder of the same weights that enlarges another way; itself without a fusion."""
        if not self.config.fusion or upsample == self.config.upsample:
            return self
        net = SamEncoder(replace(self.config, upsample=upsample))
        if is_fused(self):
            net.fuse()
        net.load_state_dict(self.state_dict())
        net.checkpoint_info = self.checkpoint_info
        return net.train(self.training)

    def macs_beyond(self, height: int, width: int) -> int:
        """Those of the neck, which works at a sixteenth of the input, and of the fusion."""
        neck = sum(layer.weight.numel() for layer in self.neck if isinstance(layer, nn.Conv2d))
        if not self.config.fusion:
            return neck * height * width
        last = sum(weight.numel() for weight in self.fuse_stage3.parameters())
        neck += self.fuse_stage2.weight.numel()
        return (neck * ENLARGED**2 + last) * height * width


def neck_of(shapes: Mapping[str, Shape]) -> bool | None:
    """Whether the tensors beside a trunk are a published neck: with a fusion, or without.

    shapes   of the tensors by name, without those of the trunk
    None where they are another neck, or none; `beside_trunk` tells which.
    """
    found = beside_trunk(shapes)
    convolutions = {"neck.0.weight": 4, "neck.2.weight": 4}
    norms = {f"neck.{i}.{part}": 1 for i in (1, 3) for part in ("weight", "bias")}
    fusion = {"fuse_stage2.weight": 4, "fuse_stage3.op_list.0.weight": 4}
    ranks = {name: len(shape) for name, shape in found.items()}
    if not all(shape[:1] == (EMBEDDING,) for shape in found.values()):
        return None
    known = {False: convolutions | norms, True: convolutions | norms | fusion}
    return next((fused for fused, expected in known.items() if ranks == expected), None)


def beside_trunk(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The tensors of a neck or a fusion among those beside a trunk."""
    tops = ("neck", "fuse_stage")
    return {name: shape for name, shape in shapes.items() if name.startswith(tops)}


def sam_config(trunk: RepViTConfig, fusion: bool) -> SamConfig:
    """The encoder's config, of its trunk's."""
    held = {each.name: getattr(trunk, each.name) for each in fields(RepViTConfig)}
    every = tuple(range(len(trunk.widths)))
    held |= {"variant": trunk.variant + SUFFIX, "features_only": True, "out_indices": every}
    return SamConfig(**held, fusion=fusion)


@torch.no_grad()
def signal_to_noise(reference: nn.Module, net: nn.Module, images: Tensor) -> float:
    """How far a net's output is from the reference's on these images, in dB: more is nearer."""
    wanted, found = reference(images).double(), net(images).double()
    noise = (found - wanted).square().sum()
    return float(10 * torch.log10(wanted.square().sum() / noise.clamp(min=1e-30)))
