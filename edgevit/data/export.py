"""An image source as files, for programs of their own such as the C++ harness."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np

from edgevit.data.source import ImageFolder, ImageSource
from edgevit.errors import InputError


def image_files(source: ImageSource, folder: Path) -> Path:
    """Class folders, or a tar of them, that hold the source's images and no others.

    Without classes they are images in any folder. Written into `folder` where they are not files,
    or a part of them.

    Raises InputError as `write_tar` does.
    """
    if isinstance(source, ImageFolder) and source.images.file is not None:
        return source.images.file
    path = folder / "images.tar"
    write_tar(source, path)
    return path


def write_tar(source: ImageSource, path: Path) -> None:
    """Write the images as an uncompressed tar of class folders, or of images without classes.

    An `ImageFolder` of that tar has the source's names and pixels, in the order of the names.
    Raises InputError for a class that cannot be a folder's name, and as `cropped_bytes` does.
    """
    for name in source.classes:
        if "/" in name or "\0" in name or name in ("", ".", ".."):
            raise InputError(f"{source.title}: the class {name!r} cannot be the name of a folder")
    encoded = getattr(source, "encoded", None)
    # One folder around all: without it a lone class folder would be taken for that.
    around = "images/" if source.classes else ""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for i, name in enumerate(source.names):
            data = cropped_bytes(source, i) if encoded is None else encoded(i)
            member = tarfile.TarInfo(f"{around}{name}")
            member.size, member.mode, member.mtime = len(data), 0o600, 0
            archive.addfile(member, io.BytesIO(data))


def cropped_bytes(source: ImageSource, index: int) -> bytes:
    """A cropped image as PNG. Raises InputError where preprocessing would resize it again."""
    rules = source.preprocessing
    if not rules.keeps_crops:
        raise InputError(
            f"{source.title}: its images were cropped to {rules.size_text} before, and the "
            f"preprocessing first resizes to {rules.resize_size} px, so an artifact cannot be run "
            "on them as files; use an edgevit.ImageFolder of the original images"
        )
    return picture_bytes(rules.picture_of(source.pixels([index])[0]))


def picture_bytes(pixels: np.ndarray) -> bytes:
    """A picture as a PNG file: uint8 (H, W, 3) or (H, W, 4), or grey (H, W)."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
