"""Classification: a first output of logits (N, classes), trained by distillation, gated on top-1.

Outputs behind the logits, such as an embedding, are carried along: quantized and compiled like the
logits, neither trained nor gated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgevit.errors import InputError
from edgevit.tasks import Limits, LossWeights, OutputFigures
from edgevit.tasks.doubt import doubt
from edgevit.tasks.gate import GateResult, gate

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from edgevit.tasks import Outputs

STAGES = {
    "float_top1": "float (fused)",
    "ptq_uncorrected_top1": "PTQ",
    "ptq_top1": "PTQ, corrected",
    "program_top1": "quantized program",
}


class Classification:
    """Top-1 accuracy and agreement of the predicted classes; what is kept are the logits."""

    name = "classification"
    score_name, score_title = "top1", "top-1"
    stages: Mapping[str, str] = STAGES
    has_labels = True

    def for_outputs(self, names: Sequence[str]) -> Classification:
        """Itself: it speaks of classes."""
        return self

    def check(self, shapes: Sequence[tuple[int, ...]], classes: int) -> None:
        """Raises InputError unless the first output is (N, classes)."""
        if len(shapes[0]) != 2:
            listed = ", ".join(str(shape) for shape in shapes)
            raise InputError(
                f"the net's outputs have the shapes {listed}; a classifier's first one is the "
                "logits, (N, classes); a backbone's maps are the task features (--task features)"
            )
        if shapes[0][1] == 1:
            raise InputError(
                "the net has one logit z, whose sign alone tells the class; let it give the two "
                "logits −z/2 and z/2 (a RepViT checkpoint is read so by itself)"
            )
        if shapes[0][1] != classes:
            raise InputError(
                f"the net has {shapes[0][1]} classes, the images have {classes}; give the full "
                "list of class names in the order of the logits (classes=, or --labels)"
            )

    def kept(self, outputs: Outputs) -> Tensor:
        """float32 (N, classes): the logits."""
        return _logits(outputs)

    def loss(
        self, student: Outputs, teacher: Outputs, labels: Tensor, weights: LossWeights
    ) -> Tensor:
        """Hinton's distillation; see `distillation_loss`."""
        return distillation_loss(
            _logits(student),
            _logits(teacher),
            labels,
            weights.temperature,
            weights.teacher_weight,
            weights.label_weight,
        )

    def selection(
        self, student: Tensor, teacher: Tensor, labels: Tensor, weights: LossWeights
    ) -> dict[str, float]:
        """The loss, and top-1 and agreement with the teacher in percent."""
        agree = (student.argmax(1) == teacher.argmax(1)).double().mean()
        return {
            "holdout_loss": float(self.loss(student, teacher, labels, weights)),
            "holdout_top1": 100 * self.score(student, labels, teacher),
            "holdout_agreement": 100 * float(agree),
        }

    def score(self, kept: Tensor, labels: Tensor, reference: Tensor) -> float:
        """The share of images whose largest logit is their class's."""
        return float((kept.argmax(1) == labels).double().mean())

    def doubt(self, kept: Tensor, labels: Tensor, classes: Sequence[str]) -> str | None:
        """Top-1 near chance, or far better with the classes in another order."""
        return doubt(kept.argmax(1).numpy(), labels.numpy(), classes)

    def agreement(self, reference: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Where the predicted classes are the same."""
        return reference.argmax(1) == found.argmax(1)

    def gate(
        self, reference: np.ndarray, found: np.ndarray, labels: np.ndarray, limits: Limits
    ) -> GateResult:
        """Top-1 of `found` against that of `reference`, and how many classes are the same."""
        predictions = reference.argmax(1), found.argmax(1)
        return gate(*predictions, labels, limits.max_drop, limits.min_agreement)

    def by_output(self, reference: np.ndarray, found: np.ndarray) -> tuple[OutputFigures, ...]:
        """None: the predictions say it all."""
        return ()

    def metrics(self, found: GateResult, earlier: Mapping[str, float]) -> dict[str, float]:
        """Top-1 of every stage in their order, and the program's agreement with float."""
        return {
            "float_top1": found.reference_top1 / 100,
            **earlier,
            "program_top1": found.top1 / 100,
            "program_float_agreement": found.agreement / 100,
        }


TASK = Classification()


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float,
    teacher_weight: float,
    label_weight: float,
) -> Tensor:
    """teacher_weight * T² * KL(teacher || student at T) + label_weight * cross-entropy, a scalar.

    Hinton et al., arXiv 1503.02531; logits are float32 (N, classes), labels int64 (N,).
    """
    import torch.nn.functional as F

    loss = student.new_zeros(())
    if teacher_weight:
        target = F.log_softmax(teacher / temperature, dim=1)
        found = F.log_softmax(student / temperature, dim=1)
        divergence = F.kl_div(found, target, log_target=True, reduction="batchmean")
        loss = loss + teacher_weight * temperature**2 * divergence
    if label_weight:
        loss = loss + label_weight * F.cross_entropy(student, labels)
    return loss


def _logits(outputs: Outputs) -> Tensor:
    return outputs[0] if isinstance(outputs, tuple) else outputs
