"""An artifact on single images, through its target's runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgevit.data.images import Preprocessing, decode_rgb
from edgevit.errors import InputError
from edgevit.limits import MAX_IMAGE_BYTES
from edgevit.measure.parity import open_artifact
from edgevit.targets.artifact import load_artifact


def classify(
    folder: Path, images: list[Path], top_k: int, **options: str
) -> tuple[str, list[list[dict[str, Any]]]]:
    """What ran the artifact, and for each image its `top_k` classes, the likeliest first.

    A class is {"label", "probability"}; equal scores go to the lower class. Raises InputError for
    an artifact or image that cannot be read, and for options the target does not have.
    """
    artifact = load_artifact(folder)
    rules = artifact.manifest.preprocessing
    pixels = np.stack([_pixels(path, rules) for path in images])
    runner = open_artifact(artifact, **options)
    scores = runner.scores(pixels).astype(np.float64)
    if not runner.probabilities:
        weights = np.exp(scores - scores.max(1, keepdims=True))
        scores = weights / weights.sum(1, keepdims=True)
    labels = artifact.manifest.labels
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    return runner.engine, [
        [{"label": labels[i], "probability": float(row[i])} for i in best]
        for row, best in zip(scores, order)
    ]


def _pixels(path: Path, rules: Preprocessing) -> np.ndarray:
    try:
        if path.stat().st_size > MAX_IMAGE_BYTES:
            raise InputError(f"{path} is over 64 MiB")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return rules.crop(decode_rgb(data, str(path)))
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
