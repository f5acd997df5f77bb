"""Smaller image sets, made of the embedded ones."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from edgevit.data.images import ImageSet


def subset(source: Path, target: Path, every: int) -> Path:
    """A tar of every n-th image."""
    images = ImageSet.open(source)
    with tarfile.open(target, "w") as archive:
        for i in range(0, len(images), every):
            data = images.read_bytes(i)
            member = tarfile.TarInfo(images.entries[i][0])
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target
