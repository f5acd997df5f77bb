"""Which images train, which select, and which the accuracy is reported on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgevit.data.batches import split
from edgevit.data.source import ImageSource
from edgevit.errors import InputError
from edgevit.quantize.options import QuantizeOptions

REPORT_SHARE = 0.1


@dataclass(frozen=True)
class Parts:
    """The images of a run: training and selection draw on one source, the report on its own."""

    images: ImageSource
    report: ImageSource
    train: list[int]
    holdout: list[int]
    reported: list[int]

    @property
    def report_labels(self) -> np.ndarray:
        return self.report.labels[self.reported]


def divide(images: ImageSource, report: ImageSource, options: QuantizeOptions) -> Parts:
    """The parts of a run, drawn by its seed; one source for both gives a tenth to the report.

    Raises InputError when the report would be on training images, or on images of other classes
    or preprocessing.
    """
    rules = images.preprocessing
    if options.augment == "dihedral" and rules.height != rules.width:
        raise InputError(
            f"--augment dihedral turns images by 90 degrees, which an input of {rules.size_text} "
            "cannot be; use flip or none"
        )
    every = len(images)
    rest, reported = list(range(every)), list(range(len(report)))
    if report is images:
        rest, reported = split(every, REPORT_SHARE, options.seed + 1)
    elif report.sha256 == images.sha256:
        raise InputError(
            f"{report.title} holds the training images: accuracy must be reported on images that "
            "the fine-tuning never saw (val=, or --eval-data)"
        )
    if list(report.classes) != list(images.classes):
        raise InputError(
            f"{report.title} has other classes than {images.title}; open it with like=the other"
        )
    if report.preprocessing != images.preprocessing:
        raise InputError(
            f"{report.title} is pre-processed otherwise than {images.title}; open it with like="
        )
    train, chosen = split(len(rest), options.holdout, options.seed)
    return Parts(images, report, [rest[i] for i in train], [rest[i] for i in chosen], reported)
