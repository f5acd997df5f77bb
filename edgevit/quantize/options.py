"""What a quantization run is asked to do; everything that decides its result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from edgevit.data.batches import AUGMENTATIONS
from edgevit.errors import InputError
from edgevit.graph import PROFILES
from edgevit.graph.passes import ACTIVATIONS


@dataclass(frozen=True)
class QuantizeOptions:
    """Options of `edgevit quantize`. Raises InputError when one is out of range.

    `epochs` counts passes over the fine-tuning images (0: post-training quantization only).
    The last `snapped_share` of the steps runs with every scale frozen at an fp16 value.
    Learning rates are the peaks of a cosine schedule; `scale_lr` acts on the logarithm of the
    scales. `holdout` is the share of the training images that only selects the best state.
    `activation` takes the place of every GELU of the fused net.
    """

    profile: str = "portable"
    activation: str = "gelu"
    seed: int = 0
    calibration_images: int = 256
    epochs: float = 4.0
    batch_size: int = 32
    lr: float = 1e-4
    scale_lr: float = 1e-3
    weight_decay: float = 0.0
    warmup: float = 0.02
    temperature: float = 2.0
    teacher_weight: float = 1.0
    label_weight: float = 0.0
    ema: float = 0.99
    augment: str = "flip"
    snapped_share: float = 0.3
    holdout: float = 0.1
    evaluations: int = 8
    max_drop: float = 0.5

    def __post_init__(self) -> None:
        positive = ("calibration_images", "batch_size", "temperature", "evaluations")
        shares = ("warmup", "snapped_share", "holdout", "ema")
        not_negative = (
            "epochs",
            "lr",
            "scale_lr",
            "weight_decay",
            "teacher_weight",
            "label_weight",
        )
        checks = (
            [(name, getattr(self, name) > 0, "above 0") for name in positive]
            + [(name, 0 <= getattr(self, name) < 1, "from 0 to below 1") for name in shares]
            + [(name, getattr(self, name) >= 0, "0 or more") for name in not_negative]
            + [("profile", self.profile in PROFILES, f"one of {', '.join(PROFILES)}")]
            + [("activation", self.activation in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}")]
            + [("augment", self.augment in AUGMENTATIONS, f"one of {', '.join(AUGMENTATIONS)}")]
            + [("seed", 0 <= self.seed < 2**32, "from 0 to 2**32 - 1")]
        )
        for name, good, rule in checks:
            if not good:
                value = getattr(self, name)
                raise InputError(f"--{name.replace('_', '-')} is {value}, it must be {rule}")
        if self.epochs and not self.teacher_weight and not self.label_weight:
            raise InputError(
                "--teacher-weight and --label-weight are both 0: nothing to learn from"
            )
        if self.epochs and not self.holdout:
            raise InputError("--holdout 0 leaves no images to select the best state on")

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
    # The gate judges the result and does not change it.
    deciding = {k: v for k, v in options.to_json().items() if k != "max_drop"}
    text = json.dumps({"options": deciding, **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
