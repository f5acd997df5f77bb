"""A score of what is built on the features: the user's own, of the float net, PTQ and the program.

def score(batches):                     # an iterator over the reported images
    for maps, labels in batches:        # name -> float32 (N, C, H, W); int64 (N,)
        ...
    return accuracy                     # from 0 to 1

quantize(net, images, task="features", downstream=score, max_drop=0.5)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgevit.data.batches import batch_of
from edgevit.data.source import ImageSource
from edgevit.errors import InputError
from edgevit.quantize.run import Run
from edgevit.tasks import Task

Batch = tuple[dict[str, np.ndarray], np.ndarray]
"""The outputs of N images by name, float32 (N, ...), and their labels, int64 (N,)."""
Downstream = Callable[[Iterable[Batch]], float]
"""From the batches of the reported images, in their order, to a score from 0 to 1."""

CHUNK_IMAGES = 16
NAME = "downstream"
"""Of the score in metrics: "float_downstream", "ptq_downstream", "program_downstream"."""


@dataclass(frozen=True)
class Scorer:
    """A user's score on the reported images of a run."""

    run: Run
    score: Downstream

    def of(self, net: Callable[[Tensor], Any], title: str) -> float:
        """The score of a net. Raises InputError for what is none."""
        try:
            found = float(self.score(self._batches(net)))
        except (TypeError, ValueError) as error:
            raise InputError(f"downstream= fails on the outputs of {title}: {error}") from error
        if not 0 <= found <= 1:
            raise InputError(f"downstream= gave {found:g} for {title}; a score is from 0 to 1")
        self.run.say(f"{title}: downstream score {100 * found:.2f} %")
        return found

    @torch.no_grad()
    def _batches(self, net: Callable[[Tensor], Any]) -> Iterator[Batch]:
        parts, names = self.run.parts, self.run.subject.graph.public_names
        for start in range(0, len(parts.reported), CHUNK_IMAGES):
            chunk = parts.reported[start : start + CHUNK_IMAGES]
            outputs = net(batch_of(parts.report, chunk).to(self.run.group.device))
            each = outputs if isinstance(outputs, tuple) else (outputs,)
            maps = (values.float().cpu().contiguous().numpy() for values in each)
            yield dict(zip(names, maps, strict=True)), parts.report.labels[chunk]


def check_downstream(downstream: Downstream | None, task: Task, processes: int) -> None:
    """Raises InputError where a downstream score cannot be asked for."""
    if downstream is None:
        return
    if not callable(downstream):
        raise InputError(f"downstream= is a {type(downstream).__name__}, not a function")
    if task.has_labels:
        raise InputError('downstream= scores features; it needs task="features"')
    if processes > 1:
        raise InputError(f"downstream= runs in one process, and there are {processes}")


def check_labelled(source: ImageSource, what: str) -> None:
    """Raises InputError for images without labels."""
    if not source.classes:
        raise InputError(
            f"{source.title}: downstream= scores maps against labels, and the {what} images have "
            "none: give (image, label) pairs, or an edgevit.ImageFolder of class folders"
        )
