"""Whether the images that accuracy is reported on are among those that were trained on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence

from edgevit.data.image_set import ImageSet
from edgevit.errors import InputError
from edgevit.progress import Progress

MAX_SHARE = 0.1
"""Of the reported images; a few duplicates occur in public sets, and are said."""

_ENDS_BYTES = 1024
_SHOWN_EVERY = 1024

log = logging.getLogger(__name__)


def check_overlap(train: ImageSet, report: ImageSet) -> None:
    """Compare the contents of two sets' files.

    Logs a warning for reported images that are training images too; raises InputError when they
    are over a tenth of the reported ones.
    """
    common = common_images(train, report)
    if not common:
        return
    count = len(report) - len(report.holes)
    text = (
        f"{len(common)} of {count} report images are also training images (first: {common[0]} of "
        f"{report.path}): accuracy must be reported on images that the fine-tuning never saw"
    )
    if len(common) > MAX_SHARE * count:
        raise InputError(f"{text}; take them out of {train.path} or of {report.path}")
    log.warning(text)


def common_images(train: ImageSet, report: ImageSet) -> list[str]:
    """The names in `report` of images whose files are, byte for byte, in `train` too."""
    sizes = {report.size_of(i) for i in _present(report)}
    likely = [i for i in _present(train) if train.size_of(i) in sizes]
    title = f"comparing {report.path.name} with {train.path.name}"
    total = len(likely) + len(report)
    with Progress(title, total, "images", quiet=True) as progress:
        of_train = _ends_of(train, likely, progress)
        ends = set(of_train)
        present = list(_present(report))
        pairs = zip(present, _ends_of(report, present, progress))
        again = {i: end for i, end in pairs if end in ends}
    wanted = set(again.values())
    whole = {_digest(train, i) for i, end in zip(likely, of_train) if end in wanted}
    return [report.entries[i][0] for i in again if _digest(report, i) in whole]


def _present(images: ImageSet) -> Iterable[int]:
    return (i for i in range(len(images)) if i not in images.holes)


def _ends_of(
    images: ImageSet, indices: Sequence[int], progress: Progress
) -> list[tuple[int, bytes]]:
    found = []
    for at, index in enumerate(indices):
        found.append(_ends(images, index))
        if at % _SHOWN_EVERY == 0:
            progress.update(progress.done + min(_SHOWN_EVERY, len(indices) - at))
    return found


def _ends(images: ImageSet, index: int) -> tuple[int, bytes]:
    """The size and the ends of a file: few files share them, and they are soon read."""
    place = images.place_of(index)
    part = min(_ENDS_BYTES, place.size)
    head, tail = images.files.read_parts(place, [(0, part), (place.size - part, part)])
    return place.size, hashlib.sha256(head + tail).digest()


def _digest(images: ImageSet, index: int) -> bytes:
    return hashlib.sha256(images.read_bytes(index)).digest()
