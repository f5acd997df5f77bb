"""What a quantization run is asked to do; everything that decides its result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from edgevit.choices import OUTPUT_TYPES, Activation, Augmentation, Profile, RangeRule
from edgevit.errors import InputError
from edgevit.limits import MAX_RUN_IMAGES
from edgevit.models.options import bound_option
from edgevit.options import check, option

MAX_CALIBRATION_IMAGES = 100_000


@dataclass(frozen=True)
class QuantizeOptions:
    """Options of a quantization. Raises InputError when one is out of range.

    `epochs` counts passes over the fine-tuning images (0: post-training quantization only).
    The last `snapped_share` of the steps runs with every scale frozen at an fp16 value.
    Learning rates are the peaks of a cosine schedule; `scale_lr` acts on the logarithm of the
    scales. `holdout` is the share of the training images that only selects the best checkpoint.
    `eval_images` of the images that may be reported on are, or all of them.
    `activation` takes the place of every GELU of the fused net. `equalize` and `ranges` decide
    what the fine-tuning starts from, and what a run without it ends with. `output_type` is "int8"
    or "float32" by output's name, "all" for others that can be. `bound` is that of the proof of
    fusing, a share of the largest logit. `max_drop` is in percentage points of top-1. A
    float net near chance is refused without `allow_poor_float`: a program that is as wrong would
    pass the gate.
    """

    profile: Profile = option(
        "portable",
        "portable: symmetric activations, which every target runs; "
        "asymmetric: TFLite and Core ML only.",
    )
    activation: Activation = option(
        "gelu",
        "Activation that replaces every GELU; NNAPI, for Android 14 and older, lacks GELU, and the "
        "fine-tuning adapts the weights to the replacement.",
    )
    seed: int = option(0, "Seed of every random choice.", minimum=0, below=2**32, metavar="N")
    calibration_images: int = option(
        256,
        "Training images that calibrate the scales.",
        minimum=1,
        maximum=MAX_CALIBRATION_IMAGES,
        metavar="N",
    )
    equalize: bool = option(
        True,
        "Before calibration, bring the channels of each tensor to one size where the net's "
        "function allows it.",
    )
    ranges: RangeRule = option(
        "mse",
        "How far the activations' first ranges reach. minmax: to what calibration saw, as NNCF "
        "takes it; mse: to where the square error of quantization is least.",
    )
    output_type: dict[str, str] = option(
        factory=dict,
        help="int8: an output is rounded to int8, as every tensor is; float32: it is given out as "
        "the operation makes it of its int8 inputs. NAME is an output's, or all.",
        metavar="NAME=TYPE",
    )
    epochs: float = option(
        4.0,
        "Passes over the training images; 0 is post-training quantization only.",
        minimum=0,
        maximum=10_000,
        metavar="N",
    )
    batch_size: int = option(
        32, "Images per training step.", minimum=1, maximum=65_536, metavar="N"
    )
    lr: float = option(
        1e-5, "Peak learning rate of the weights.", minimum=0, maximum=10, metavar="RATE"
    )
    scale_lr: float = option(
        1e-4,
        "Peak learning rate of the logarithms of the scales.",
        minimum=0,
        maximum=1,
        metavar="RATE",
    )
    weight_decay: float = option(
        0.0, "Weight decay of the optimizer.", minimum=0, maximum=100, metavar="RATE"
    )
    warmup: float = option(
        0.02,
        "Fraction of steps in which the learning rate rises to its peak.",
        minimum=0,
        below=1,
        metavar="FRACTION",
    )
    temperature: float = option(
        2.0, "Temperature of the distillation.", minimum=0.01, maximum=1000, metavar="T"
    )
    teacher_weight: float = option(
        1.0, "Weight of the distillation in the loss.", minimum=0, maximum=1e6, metavar="WEIGHT"
    )
    label_weight: float = option(
        0.0, "Weight of the true labels in the loss.", minimum=0, maximum=1e6, metavar="WEIGHT"
    )
    ema: float = option(
        0.99,
        "Decay of the weights' moving average; 0 takes none.",
        minimum=0,
        below=1,
        metavar="FRACTION",
    )
    augment: Augmentation = option(
        "flip",
        "Random changes of the training images: flip mirrors them left to right; dihedral also "
        "turns them by quarters, for aerial images.",
    )
    snapped_share: float = option(
        0.3,
        "Fraction of steps trained with frozen FP16 scales.",
        minimum=0,
        below=1,
        metavar="FRACTION",
    )
    holdout: float = option(
        0.1,
        "Fraction of the training images that selects the best checkpoint.",
        minimum=0,
        below=1,
        metavar="FRACTION",
    )
    evaluations: int = option(
        8,
        "Number of checkpoints evaluated to pick the best.",
        minimum=1,
        maximum=10_000,
        metavar="N",
    )
    eval_images: int | None = option(
        None,
        "Images to report on, drawn from those that may be by the seed.",
        minimum=1,
        maximum=MAX_RUN_IMAGES,
        metavar="N",
        default_text="all",
    )
    bound: float = bound_option()
    max_drop: float = option(
        0.5,
        "Gate: top-1 points that the program may lose against float.",
        minimum=-100,
        maximum=100,
        metavar="POINTS",
    )
    min_agreement: float = option(
        0.0,
        "Gate: percentage of the reported images on which the program must predict what float "
        "does; 0 asks for none.",
        minimum=0,
        maximum=100,
        metavar="PERCENT",
    )
    min_sqnr: float = option(
        10.0,
        "Gate of features: signal-to-quantization-noise of each output against float's.",
        minimum=-100,
        maximum=200,
        metavar="DB",
    )
    min_cosine: float = option(
        0.95,
        "Gate of features: mean cosine of each output with float's.",
        minimum=-1,
        maximum=1,
        metavar="COSINE",
    )
    allow_poor_float: bool = option(
        False, "Go on although the float net itself is near chance on the reported images."
    )

    def __post_init__(self) -> None:
        check(self)
        if wrong := [t for t in self.output_type.values() if t not in OUTPUT_TYPES]:
            raise InputError(
                f"--output-type {wrong[0]!r} is not one of {', '.join(OUTPUT_TYPES)}; write "
                "NAME=float32"
            )
        if self.epochs and not self.teacher_weight and not self.label_weight:
            raise InputError(
                "--teacher-weight and --label-weight are both 0: nothing to learn from"
            )
        if self.epochs and not self.holdout:
            raise InputError("--holdout 0 leaves no images to select the best checkpoint on")

    def steps(self, images: int) -> int:
        """Fine-tuning steps for this many images."""
        return round(self.epochs * images / self.batch_size)

    def snap_step(self, steps: int) -> int:
        """The step before which the scales are snapped."""
        return min(steps, max(0, round(steps * (1.0 - self.snapped_share))))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run_key(options: QuantizeOptions, **facts: Any) -> str:
    """sha256 of everything that decides the result: a run resumes only what has the same key."""
    # These judge the result and do not change it.
    judging = (
        "max_drop", "min_agreement", "min_sqnr", "min_cosine", "bound", "allow_poor_float"
    )  # fmt: skip
    deciding = {k: v for k, v in options.to_json().items() if k not in judging}
    text = json.dumps({"options": deciding, **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
