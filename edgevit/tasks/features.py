"""Features: maps or vectors that another net reads, held to the float net's own; no labels.

What is kept of an output are `SAMPLES` of its values, at places spread evenly over it: all nets are
compared there. The loss is the noise of each output against the teacher's, as a share of its power,
summed: what the gate measures in decibels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevit.errors import GateFailed
from edgevit.limits import FEATURE_SAMPLES
from edgevit.tasks import Limits, LossWeights, OutputFigures

if TYPE_CHECKING:
    from torch import Tensor

    from edgevit.tasks import Outputs

SAMPLES = FEATURE_SAMPLES
"""Of each output of an image; a smaller output gives some of its values twice."""
ALIKE = 0.98
"""Two nets agree on an image where the cosine of each output's samples is at least this."""
MAX_DB = 200.0
STAGES = {
    "ptq_uncorrected_cosine": "PTQ",
    "ptq_cosine": "PTQ, corrected",
    "program_cosine": "quantized program",
}
_TINY = 1e-30


@dataclass(frozen=True)
class DownstreamFigures:
    """What a user's own score, from 0 to 1, says of both nets.

    max_drop    points (hundredths) that the second may lose against the first
    """

    float_score: float
    score: float
    max_drop: float

    @property
    def drop(self) -> float:
        """Points lost; below 0 where the second is better."""
        return 100 * (self.float_score - self.score)

    @property
    def passed(self) -> bool:
        return self.drop <= self.max_drop

    def __str__(self) -> str:
        return (
            f"downstream score {100 * self.score:.2f} % against {100 * self.float_score:.2f} %: "
            f"drop {self.drop:+.2f} points, allowed {self.max_drop:.2f}"
        )


@dataclass(frozen=True)
class FeatureGate:
    """Outputs of two nets on the same images.

    outputs     in the net's order
    agreement   percent of the images on which every output's cosine is `ALIKE` or more
    against     what they are compared with, in words
    downstream  of what is built on the outputs, where the user scores that
    min_sqnr_of of outputs that have a limit of their own, by name
    """

    count: int
    outputs: tuple[OutputFigures, ...]
    agreement: float
    min_sqnr_db: float
    min_cosine: float
    min_agreement: float = 0.0
    against: str = "float"
    downstream: DownstreamFigures | None = None
    min_sqnr_of: Mapping[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        near = all(
            each.sqnr_db >= self.min_sqnr_of.get(each.name, self.min_sqnr_db)
            and each.cosine >= self.min_cosine
            for each in self.outputs
        )
        serves = self.downstream is None or self.downstream.passed
        return near and serves and self.agreement >= self.min_agreement

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}

    def __str__(self) -> str:
        figures = "; ".join(
            f"{each.name}: SQNR {each.sqnr_db:.1f} dB, cosine {each.cosine:.4f}"
            for each in self.outputs
        )
        own = "".join(f" ({name}: {limit:.1f} dB)" for name, limit in self.min_sqnr_of.items())
        asked = f"at least {self.min_sqnr_db:.1f} dB{own} and {self.min_cosine:.4f} are asked for"
        alike = f"{self.agreement:.2f} % of the images are alike (cosine of {ALIKE} or more)"
        more = f", at least {self.min_agreement:.2f} % must" if self.min_agreement else ""
        built = f"; {self.downstream}" if self.downstream else ""
        return (
            f"against {self.against} on {self.count} images: {figures}; {asked}; {alike}{more}"
            f"{built}"
        )

    def require(self) -> None:
        """Raises GateFailed, with the figures, when an output is farther off than asked."""
        if not self.passed:
            raise GateFailed(f"the feature gate failed: {self}")


class Features:
    """Outputs of any shape, each as near float's as it can be.

    names   of the outputs, in order; without them they are called output0, output1, ...
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = tuple(names)

    name = "features"
    score_name, score_title = "cosine", "cosine with float"
    stages: Mapping[str, str] = STAGES
    has_labels = False

    def for_outputs(self, names: Sequence[str]) -> Features:
        """Features of these names."""
        return Features(names)

    def _name(self, index: int) -> str:
        return self.names[index] if self.names else f"output{index}"

    def check(self, shapes: Sequence[tuple[int, ...]], classes: int) -> None:
        """Every shape is a feature's."""

    def kept(self, outputs: Outputs) -> Tensor:
        """float32 (N, outputs * SAMPLES)."""
        import torch

        each = outputs if isinstance(outputs, tuple) else (outputs,)
        return torch.cat([_samples(output.flatten(1)) for output in each], 1)

    def loss(
        self, student: Outputs, teacher: Outputs, labels: Tensor, weights: LossWeights
    ) -> Tensor:
        """teacher_weight times the sum over outputs of noise / signal, over the whole maps."""
        pairs = zip(_all(student), _all(teacher), strict=True)
        return weights.teacher_weight * sum(
            (found - wanted).square().mean() / (wanted.square().mean() + _TINY)
            for found, wanted in pairs
        )  # pyright: ignore[reportReturnType]  # there is at least one output

    def selection(
        self, student: Tensor, teacher: Tensor, labels: Tensor, weights: LossWeights
    ) -> dict[str, float]:
        """The loss over the samples, and on how many of the images both are alike."""
        alike = self.agreement(teacher.numpy(), student.numpy())
        return {
            "holdout_loss": float(self.loss(_split(student), _split(teacher), labels, weights)),
            "holdout_cosine": self.score(student, labels, teacher),
            "holdout_agreement": 100 * float(alike.mean()),
        }

    def score(self, kept: Tensor, labels: Tensor, reference: Tensor) -> float:
        """The mean cosine with `reference` over images and outputs."""
        return float(_cosines(reference.numpy(), kept.numpy()).mean())

    def doubt(self, kept: Tensor, labels: Tensor, classes: Sequence[str]) -> str | None:
        """An output that is the same for every image."""
        values = _by_output(kept.numpy())
        for index in range(values.shape[1]):
            if len(values) > 1 and not values[:, index].std(0).any():
                return (
                    f"{self._name(index)} of the float net is the same for all {len(values)} "
                    "images: check the checkpoint, the pre-processing and the stages"
                )
        return None

    def agreement(self, reference: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Where the cosine of every output is `ALIKE` or more."""
        return np.all(_cosines(reference, found) >= ALIKE, axis=1)

    def gate(
        self, reference: np.ndarray, found: np.ndarray, labels: np.ndarray, limits: Limits
    ) -> FeatureGate:
        """Signal-to-noise and cosine of each output of `found` against that of `reference`."""
        return FeatureGate(
            count=len(reference),
            outputs=self.by_output(reference, found),
            agreement=100 * float(self.agreement(reference, found).mean()),
            min_sqnr_db=limits.min_sqnr_db,
            min_cosine=limits.min_cosine,
            min_agreement=limits.min_agreement,
            min_sqnr_of=dict(limits.min_sqnr_of),
        )

    def by_output(self, reference: np.ndarray, found: np.ndarray) -> tuple[OutputFigures, ...]:
        """Signal-to-noise and cosine of each output; `MAX_DB` where nothing differs."""
        cosines = _cosines(reference, found).mean(0)
        wanted, values = _by_output(reference), _by_output(found)
        noise = np.square(values - wanted, dtype=np.float64).sum((0, 2))
        signal = np.square(wanted, dtype=np.float64).sum((0, 2))
        decibels = 10 * np.log10((signal + _TINY) / (noise + _TINY))
        return tuple(
            OutputFigures(min(float(db), MAX_DB), float(cosine), self._name(index))
            for index, (db, cosine) in enumerate(zip(decibels, cosines, strict=True))
        )

    def metrics(self, found: FeatureGate, earlier: Mapping[str, float]) -> dict[str, float]:
        """The mean cosine of every stage, and each output's own figures of the program."""
        own: dict[str, float] = {}
        for each in found.outputs:
            own[f"program_{each.name}_sqnr_db"] = each.sqnr_db
            own[f"program_{each.name}_cosine"] = each.cosine
        cosine = float(np.mean([each.cosine for each in found.outputs]))
        return {
            **earlier,
            "program_cosine": cosine,
            "program_float_agreement": found.agreement / 100,
            **own,
        }


TASK = Features()


def _all(outputs: Outputs) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _samples(values: Tensor) -> Tensor:
    """(N, K) to (N, SAMPLES), spread evenly."""
    import torch

    count = values.shape[1]
    places = torch.arange(SAMPLES, device=values.device) * count // SAMPLES
    return values[:, places].float()


def _split(kept: Tensor) -> tuple[Tensor, ...]:
    return tuple(kept.split(SAMPLES, 1))


def _by_output(kept: np.ndarray) -> np.ndarray:
    """(N, outputs, SAMPLES)."""
    return kept.reshape(len(kept), -1, SAMPLES)


def _cosines(reference: np.ndarray, found: np.ndarray) -> np.ndarray:
    """float64 (N, outputs)."""
    wanted = _by_output(reference).astype(np.float64)
    values = _by_output(found).astype(np.float64)
    lengths = np.linalg.norm(wanted, axis=2) * np.linalg.norm(values, axis=2)
    return ((wanted * values).sum(2) + _TINY) / (lengths + _TINY)
