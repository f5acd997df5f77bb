"""An artifact on single images, through its target's runner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevit.data.given import GivenImage, understood
from edgevit.errors import InputError
from edgevit.measure.options import ClassifyOptions
from edgevit.measure.parity import check_finite, open_artifact
from edgevit.targets.artifact import Artifact, load_artifact
from edgevit.tasks import load_task


@dataclass(frozen=True)
class Prediction:
    """One class of an image, and its probability, from 0 to 1."""

    label: str
    probability: float


class Classifier:
    """An artifact that is ready to run here, with the preprocessing and labels of its manifest."""

    def __init__(self, artifact: Artifact, **options: str) -> None:
        """Raises InputError for options that the artifact's target does not have."""
        if not load_task(artifact.manifest.task).has_labels:
            raise InputError(
                f"{artifact.folder}: its task is {artifact.manifest.task}, so that it says "
                "no class of an image; `edgevit parity` compares its outputs with the program's"
            )
        self.preprocessing = artifact.manifest.preprocessing
        self.labels = artifact.manifest.labels
        self._runner = open_artifact(artifact, **options)

    @property
    def engine(self) -> str:
        """What runs the artifact, for people."""
        return self._runner.engine

    def classify(self, images: Sequence[Any], top_k: int) -> list[list[Prediction]]:
        """Of each image its `top_k` classes, the likeliest first; of equal ones the lower index.

        An image is the path of an image file, a PIL image, or uint8 (H, W, 3). Raises InputError
        for one that cannot be read.
        """
        top_k = ClassifyOptions(top_k=top_k).top_k
        pixels = np.stack([self._pixels(image) for image in images])
        scores = self._runner.scores(pixels).astype(np.float64)
        check_finite(scores, f"{self._runner.engine}: the outputs")
        if not self._runner.probabilities:
            weights = np.exp(scores - scores.max(1, keepdims=True))
            scores = weights / weights.sum(1, keepdims=True)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        return [
            [Prediction(self.labels[i], float(row[i])) for i in best]
            for row, best in zip(scores, order)
        ]

    def _pixels(self, image: Any) -> np.ndarray:
        if not isinstance(image, str | Path):
            return understood(image, self.preprocessing).crop(self.preprocessing)
        try:
            return GivenImage(path=Path(image)).crop(self.preprocessing)
        except InputError as error:
            text = str(error)
            raise InputError(text if str(image) in text else f"{image}: {text}") from error


def classify(
    folder: Path, images: list[Path], top_k: int = ClassifyOptions.top_k, **options: str
) -> tuple[str, list[list[dict[str, Any]]]]:
    """What ran the artifact, and for each image its `top_k` classes, the likeliest first.

    A class is {"label", "probability"}; equal scores go to the lower class. Raises InputError for
    an artifact or image that cannot be read, and for options the target does not have.
    """
    classifier = Classifier(load_artifact(folder), **options)
    found = classifier.classify(images, top_k)
    return classifier.engine, [[asdict(each) for each in best] for best in found]
