"""Tasks: what a net's outputs mean, so that a run knows what to train, measure and gate.

A task is a module here, found by its name, that offers TASK, an object with the methods of `Task`.
Everything else treats outputs as tensors only. Importing a task imports no torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from edgevit.errors import InputError
from edgevit.schema import OMIT_DEFAULT

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Outputs = Tensor | tuple[Tensor, ...]
    """What a net returns for a batch: one tensor or several, each (N, ...)."""

_SHARED = ("doubt", "gate", "options")
"""Modules of this package that are no task."""


@dataclass(frozen=True)
class LossWeights:
    """How much the student learns from the teacher (at a temperature) and from the labels."""

    temperature: float
    teacher_weight: float
    label_weight: float


@dataclass(frozen=True)
class Limits:
    """What a quantized net must reach against float, on the same images.

    max_drop        points of the score that it may lose
    min_agreement   percent of the images on which both must agree; 0 asks for none
    min_sqnr_db, min_cosine
                    of each output against float's, where outputs are features
    min_sqnr_of     of outputs that have a limit of their own, by name
    """

    max_drop: float
    min_agreement: float = 0.0
    min_sqnr_db: float = 0.0
    min_cosine: float = 0.0
    min_sqnr_of: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class OutputFigures:
    """One output against another net's: signal-to-noise in dB over all images, the mean cosine.

    name    the output's public one; "" in files of before outputs had names
    """

    sqnr_db: float
    cosine: float
    name: str = field(default="", metadata=OMIT_DEFAULT)


class Gate(Protocol):
    """What a comparison with float came to; `str` of it is one line for people."""

    @property
    def passed(self) -> bool: ...

    def require(self) -> None:
        """Raises GateFailed, with the figures, when the gate does not hold."""

    def to_json(self) -> dict[str, Any]: ...


class Task(Protocol):
    """How outputs are trained, measured and compared.

    name        by which manifests name it
    score_name  of the figure that `score` gives, in metrics, such as "top1"
    score_title the same for people, such as "top-1"
    stages      metric name -> title, of the nets that a report shows as rows, in order
    has_labels  whether an image's class means anything; its outputs are logits then, and a program
                records them
    """

    @property
    def name(self) -> str: ...
    @property
    def score_name(self) -> str: ...
    @property
    def score_title(self) -> str: ...
    @property
    def stages(self) -> Mapping[str, str]: ...
    @property
    def has_labels(self) -> bool: ...

    def for_outputs(self, names: Sequence[str]) -> Task:
        """This task for a net whose outputs are called so; it speaks of them by these names."""
        ...

    def check(self, shapes: Sequence[tuple[int, ...]], classes: int) -> None:
        """Raises InputError where output shapes (N, ...) and the number of classes do not fit."""

    def kept(self, outputs: Outputs) -> Tensor:
        """What is kept of the outputs of N images for measuring and recording: (N, K)."""
        ...

    def loss(
        self, student: Outputs, teacher: Outputs, labels: Tensor, weights: LossWeights
    ) -> Tensor:
        """The scalar that training lowers; `labels` int64 (N,)."""
        ...

    def selection(
        self, student: Tensor, teacher: Tensor, labels: Tensor, weights: LossWeights
    ) -> dict[str, float]:
        """Figures of one state on the selection images: the lowest "holdout_loss" is the best.

        "holdout_agreement" is the agreement with the teacher, percent; others as the task likes.
        `student` and `teacher` are (N, K), as `kept` gives them.
        """
        ...

    def score(self, kept: Tensor, labels: Tensor, reference: Tensor) -> float:
        """How good a net is, from 0 to 1; `reference` is what the float net gives."""
        ...

    def doubt(self, kept: Tensor, labels: Tensor, classes: Sequence[str]) -> str | None:
        """Why the float net's outputs cannot be those it was trained to give; None: no reason."""
        ...

    def agreement(self, reference: np.ndarray, found: np.ndarray) -> np.ndarray:
        """On which of N images two nets agree: bool (N,), of what was kept of each, (N, K)."""
        ...

    def gate(
        self, reference: np.ndarray, found: np.ndarray, labels: np.ndarray, limits: Limits
    ) -> Gate:
        """The comparison of a quantized net with float, both (N, K), on the same images."""
        ...

    def by_output(self, reference: np.ndarray, found: np.ndarray) -> tuple[OutputFigures, ...]:
        """Figures of each output, where that says more than the gate; else none."""
        ...

    def metrics(self, found: Any, earlier: Mapping[str, float]) -> dict[str, float]:
        """What a program records: the gate's figures among those of the stages before, ordered."""
        ...


def task_names() -> list[str]:
    """Every task, by the name of its module, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _SHARED)


def load_task(name: str) -> Task:
    """The task of that name. Raises InputError, listing what there is, for an unknown one."""
    if name not in task_names():
        raise InputError(f"task {name!r} is not one of {', '.join(task_names())}")
    return importlib.import_module(f"{__name__}.{name}").TASK
