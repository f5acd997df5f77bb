"""Whether the images that accuracy is reported on are among those that were trained on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable

from edgevit.data.image_set import ImageSet
from edgevit.errors import InputError

MAX_SHARE = 0.1
"""Of the reported images; a few duplicates occur in public sets, and are said."""

_ENDS_BYTES = 1024

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
    ends = {_ends(train, i) for i in likely}
    again = [i for i in _present(report) if _ends(report, i) in ends]
    wanted = {_ends(report, i) for i in again}
    whole = {_digest(train, i) for i in likely if _ends(train, i) in wanted} if wanted else set()
    return [report.entries[i][0] for i in again if _digest(report, i) in whole]


def _present(images: ImageSet) -> Iterable[int]:
    return (i for i in range(len(images)) if i not in images.holes)


def _ends(images: ImageSet, index: int) -> tuple[int, bytes]:
    """The size and the ends of a file: few files share them, and they are soon read."""
    size = images.size_of(index)
    head = images.read_bytes(index, 0, _ENDS_BYTES)
    tail = images.read_bytes(index, max(0, size - _ENDS_BYTES), _ENDS_BYTES)
    return size, hashlib.sha256(head + tail).digest()


def _digest(images: ImageSet, index: int) -> bytes:
    return hashlib.sha256(images.read_bytes(index)).digest()
