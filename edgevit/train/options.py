"""What a training is asked to do; everything that decides its result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgevit.errors import InputError
from edgevit.options import check, option


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training from scratch. Raises InputError when one is out of range.

    The defaults are the paper's for ImageNet-1k at 224 px (arXiv 2307.09283, section 4.1, which
    takes them from DeiT, arXiv 2012.12877), but for `ema`, which suits shorter runs as well. `lr`
    is that of 1024 images a step, and grows and shrinks with `batch_size`.
    """

    variant: str = option("repvit_m0_9", "Net to train, such as repvit_m1_0.", metavar="NAME")
    se: Literal["none", "every", "alternate"] = option(
        "alternate", "Blocks of a stage that have squeeze-excite; the paper's ablation."
    )
    reparameterization: bool = option(
        True, "Train the depthwise convolutions with branches; the paper's ablation."
    )
    epochs: float = option(
        300.0, "Passes over the training images.", above=0, maximum=100_000, metavar="N"
    )
    batch_size: int = option(
        1024, "Images per step, of all processes.", minimum=2, maximum=65_536, metavar="N"
    )
    lr: float = option(
        1e-3, "Peak learning rate for 1024 images a step.", above=0, maximum=10, metavar="RATE"
    )
    min_lr: float = option(
        1e-5, "Learning rate at the end of the cosine.", minimum=0, maximum=10, metavar="RATE"
    )
    warmup_epochs: float = option(
        5.0,
        "Epochs in which the learning rate rises to its peak; a tenth of all at most.",
        minimum=0,
        maximum=1000,
        metavar="N",
    )
    weight_decay: float = option(
        0.025,
        "Weight decay of the convolutions and linear layers.",
        minimum=0,
        maximum=100,
        metavar="RATE",
    )
    clip_grad: float = option(
        0.02,
        "Adaptive gradient clipping; 0 clips none.",
        minimum=0,
        maximum=1000,
        metavar="FACTOR",
    )
    ema: float = option(
        0.9998,
        "Decay of the weights' moving average, which is what is written; 0 takes none.",
        minimum=0,
        below=1,
        metavar="FRACTION",
    )
    crop_scale: float = option(
        0.08,
        "Least share of a picture that a random crop shows; 1 shows all of it.",
        above=0,
        maximum=1,
        metavar="SHARE",
    )
    hflip: float = option(
        0.5, "Share of images mirrored left to right.", minimum=0, maximum=1, metavar="SHARE"
    )
    vflip: float = option(
        0.0, "Share of images turned upside down.", minimum=0, maximum=1, metavar="SHARE"
    )
    auto_augment: str = option(
        "rand-m9-mstd0.5-inc1",
        'RandAugment (arXiv 1909.13719) in timm\'s words; "none" does without.',
        metavar="POLICY",
    )
    color_jitter: float = option(
        0.4,
        "Strength of random colours where there is no RandAugment.",
        minimum=0,
        maximum=1,
        metavar="STRENGTH",
    )
    random_erasing: float = option(
        0.25, "Share of images with an erased box.", minimum=0, maximum=1, metavar="SHARE"
    )
    mixup: float = option(
        0.8, "Mixup's alpha (arXiv 1710.09412); 0 mixes none.", minimum=0, maximum=100,
        metavar="ALPHA",
    )  # fmt: skip
    cutmix: float = option(
        1.0, "CutMix's alpha (arXiv 1905.04899); 0 cuts none.", minimum=0, maximum=100,
        metavar="ALPHA",
    )  # fmt: skip
    mix_share: float = option(
        1.0, "Share of steps with Mixup or CutMix.", minimum=0, maximum=1, metavar="SHARE"
    )
    label_smoothing: float = option(
        0.1, "Share of a label given to all classes.", minimum=0, below=1, metavar="SHARE"
    )
    distillation: Literal["hard", "soft"] = option(
        "hard",
        "What the second head learns of the teacher: its prediction, or its logits.",
    )
    teacher_weight: float = option(
        0.5,
        "Weight of the teacher in the loss; the labels have the rest.",
        minimum=0,
        maximum=1,
        metavar="SHARE",
    )
    temperature: float = option(
        1.0, "Temperature of soft distillation.", minimum=0.01, maximum=1000, metavar="T"
    )
    amp: Literal["none", "float16", "bfloat16"] = option(
        "none", "Mixed precision of the forward and the loss."
    )
    holdout: float = option(
        0.0,
        "Fraction of the training images that is only measured, each epoch; it selects nothing.",
        minimum=0,
        below=1,
        metavar="FRACTION",
    )
    seed: int = option(0, "Seed of every random choice.", minimum=0, below=2**32, metavar="N")

    def __post_init__(self) -> None:
        check(self)
        if self.batch_size % 2 and (self.mixup or self.cutmix):
            raise InputError(
                f"--batch-size {self.batch_size}: Mixup and CutMix pair images, give an even number"
            )
        if self.min_lr > self.peak_lr:
            raise InputError(
                f"--min-lr {self.min_lr:g} is over the peak learning rate, {self.peak_lr:g}"
            )

    @property
    def peak_lr(self) -> float:
        """Of this batch size."""
        return self.lr * self.batch_size / 1024

    def steps(self, images: int) -> int:
        """Training steps for this many images, at least one."""
        return max(1, round(self.epochs * images / self.batch_size))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
