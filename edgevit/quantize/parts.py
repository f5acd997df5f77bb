"""Which images train, which select, and which the accuracy is reported on."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np

from edgevit.data.batches import draw, split
from edgevit.data.overlap import check_overlap
from edgevit.data.source import ImageFolder, ImageSource
from edgevit.errors import InputError
from edgevit.quantize.options import QuantizeOptions

REPORT_SHARE = 0.1


@dataclass(frozen=True)
class Parts:
    """The images of a run: training and selection draw on one source, the report on its own.

    drawn_from   how many could be reported on, where only some of them are; 0: all are
    """

    images: ImageSource
    report: ImageSource
    train: list[int]
    holdout: list[int]
    reported: list[int]
    drawn_from: int = 0

    @property
    def report_text(self) -> str:
        """How many images are reported on, and of how many they were drawn."""
        drawn = f" drawn from {self.drawn_from}" if self.drawn_from else ""
        return f"{len(self.reported)}{drawn}"

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
    elif isinstance(report, ImageFolder) and isinstance(images, ImageFolder):
        check_overlap(images.images, report.images)
    if list(report.classes) != list(images.classes):
        raise InputError(
            f"{report.title} has other classes than {images.title}; open it with like=the other"
        )
    if report.preprocessing != images.preprocessing:
        raise InputError(
            f"{report.title} is pre-processed otherwise than {images.title}; open it with like="
        )
    drawn_from = 0
    if options.eval_images is not None and options.eval_images < len(reported):
        drawn_from = len(reported)
        reported = sorted(draw(reported, options.eval_images, options.seed))
    train, chosen = split(len(rest), options.holdout, options.seed)
    parts = Parts(
        images,
        report,
        _next_ones([rest[i] for i in train], _holes(images)),
        _less([rest[i] for i in chosen], _holes(images)),
        _less(reported, _holes(report)),
        drawn_from,
    )
    if not parts.train and not parts.holdout:
        raise _too_few(parts, options)
    return parts


def check_enough(parts: Parts, options: QuantizeOptions, processes: int) -> None:
    """Raises InputError where a part of the run has no image, or a process none of a step."""
    if options.batch_size < processes:
        raise InputError(
            f"--batch-size {options.batch_size} is below the {processes} processes, which divide "
            "each batch among them; use a larger batch or fewer processes"
        )
    if not parts.train or not parts.reported or (options.holdout and not parts.holdout):
        raise _too_few(parts, options)


def _too_few(parts: Parts, options: QuantizeOptions) -> InputError:
    count = len(parts.images)
    return InputError(
        f"{parts.images.title} has {count} image{'s' if count > 1 else ''}, too few: "
        f"{len(parts.reported)} are to report on, {len(parts.holdout)} to select on (--holdout "
        f"{options.holdout:g}) and {len(parts.train)} are left to learn from; give more images"
    )


def _holes(source: ImageSource) -> frozenset[int]:
    return source.images.holes if isinstance(source, ImageFolder) else frozenset()


def _less(indices: list[int], holes: frozenset[int]) -> list[int]:
    return [i for i in indices if i not in holes]


def _next_ones(indices: list[int], holes: frozenset[int]) -> list[int]:
    """The indices, each hole replaced by the next image: what is drawn by place stays the same."""
    kept = _less(indices, holes)
    if len(kept) == len(indices) or not kept:
        return kept
    places = [bisect.bisect_left(kept, i) % len(kept) for i in indices]
    return [kept[place] for place in places]
