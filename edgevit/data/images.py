"""Labelled image sets (a folder or a tar of class folders), read lazily.

Pixels are decoded by Pillow; the C++ harness repeats the same arithmetic, so every definition here
(order, decoding) is part of the contract between the two. `preprocessing` has what follows.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevit.data.preprocessing import Preprocessing
from edgevit.errors import InputError
from edgevit.limits import (
    MAX_CLASSES,
    MAX_IMAGE_BYTES,
    MAX_IMAGE_PIXELS,
    MAX_LABEL_BYTES,
)

if TYPE_CHECKING:
    import torch

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
# 16-bit greys are left out: Pillow would clip them to white.
RGB_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})


class ImageSet:
    """Images in class folders, from a folder or an uncompressed tar; nothing is held but the index.

    `entries` lists (relative path, class index), sorted by the path's bytes. A single top-level
    folder around the class folders is dropped from the paths. Files that are neither JPEG nor
    PNG by name are ignored.
    """

    def __init__(
        self, path: Path, members: list[tuple[str, Any, int]], labels: Sequence[str] | None
    ):
        members = _strip_top(members)
        members.sort(key=lambda m: m[0].encode())
        found = sorted({PurePosixPath(name).parts[0] for name, _, _ in members})
        self.path = path
        self.classes = list(labels) if labels is not None else found
        check_labels(self.classes)
        unknown = [c for c in found if c not in set(self.classes)]
        if unknown:
            raise InputError(
                f"{path}: the class folder {unknown[0]!r} is not one of the model's "
                f"{len(self.classes)} labels ({', '.join(self.classes[:5])}, ...)"
            )
        index = {c: i for i, c in enumerate(self.classes)}
        self.entries = [(name, index[PurePosixPath(name).parts[0]]) for name, _, _ in members]
        self._where = [where for _, where, _ in members]
        self._sizes = [size for _, _, size in members]
        self._tar: tuple[int, int] | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], labels: Sequence[str] | None = None) -> ImageSet:
        """Index an image folder or a tar.

        Raises InputError when it is missing, unreadable, holds no image, holds images outside
        class folders, or a class that is not in `labels`.
        """
        path = Path(path)
        if path.is_dir():
            members: list[tuple[str, Any, int]] = list(_walk_folder(path))
        elif path.is_file():
            members = list(_walk_tar(path))
        else:
            raise InputError(f"{path}: no such image folder or tar")
        if not members:
            raise InputError(
                f"{path}: no JPEG or PNG image found; expected CLASS/IMAGE.jpg below it"
            )
        return cls(path, members, labels)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,): the class index of every entry."""
        return np.array([label for _, label in self.entries], dtype=np.int64)

    @property
    def sha256(self) -> str:
        """Of one line "path<TAB>bytes" an entry, in order: names the set without reading it."""
        digest = hashlib.sha256()
        for (name, _), size in zip(self.entries, self._sizes, strict=True):
            digest.update(f"{name}\t{size}\n".encode())
        return digest.hexdigest()

    def read_bytes(self, index: int) -> bytes:
        """The encoded file. Raises InputError when it is larger than 64 MiB or cut short."""
        size = self._sizes[index]
        if size > MAX_IMAGE_BYTES:
            raise InputError(f"{self.path}: {self.entries[index][0]} has {size} bytes, over 64 MiB")
        where = self._where[index]
        if isinstance(where, Path):
            return where.read_bytes()
        data = os.pread(self._descriptor(), size, where)
        if len(data) != size:
            raise InputError(f"{self.path}: the tar ends inside {self.entries[index][0]}")
        return data

    def load(self, index: int, mode: str) -> Any:
        """Decode to a PIL image of mode RGB or RGBA; EXIF orientation is not applied.

        Raises InputError naming the file when it is not a readable JPEG or PNG.
        """
        return decode(self.read_bytes(index), f"{self.path}: {self.entries[index][0]}", mode)

    def load_rgb(self, index: int) -> Any:
        """`load` of an RGB image."""
        return self.load(index, "RGB")

    def pixels(self, indices: Sequence[int], preprocessing: Preprocessing) -> np.ndarray:
        """uint8 (len(indices), H, W, C)."""
        crops = []
        for i in indices:
            try:
                crops.append(preprocessing.crop(self.load(i, preprocessing.source_mode)))
            except InputError as error:
                name = self.entries[i][0]
                raise InputError(
                    str(error) if name in str(error) else f"{name}: {error}"
                ) from error
        return np.stack(crops)

    def batches(
        self, preprocessing: Preprocessing, batch_size: int, indices: Sequence[int] | None = None
    ) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        """Yield (float32 (B, C, H, W), int64 labels (B,)) in order."""
        order = range(len(self)) if indices is None else indices
        labels = self.labels
        for start in range(0, len(order), batch_size):
            chunk = list(order[start : start + batch_size])
            yield preprocessing.normalise(self.pixels(chunk, preprocessing)), labels[chunk]

    def _descriptor(self) -> int:
        # Reopened in a forked or spawned data worker: a shared offset would not matter to pread,
        # but a descriptor that the parent closes would.
        if self._tar is None or self._tar[0] != os.getpid():
            self._tar = (os.getpid(), os.open(self.path, os.O_RDONLY))
        return self._tar[1]


def check_labels(labels: Sequence[str]) -> None:
    """Raises InputError for class names that an artifact could not hold: here, before a training.

    They are distinct UTF-8, one line each, without spaces around them. Zero bytes end a text in C.
    A label has MAX_LABEL_BYTES at most, a net MAX_CLASSES.
    """
    if len(set(labels)) != len(labels):
        raise InputError(
            f"{len(labels)} labels ({len(set(labels))} distinct): each class needs its own name"
        )
    if len(labels) > MAX_CLASSES:
        raise InputError(f"{len(labels)} classes are too many, at most {MAX_CLASSES} are allowed")
    for label in labels:
        if not label or label != label.strip() or "\n" in label:
            raise InputError(
                f"the label {label[:40]!r} is empty, or has spaces around it or a line break in it"
            )
        if label != label.encode("utf-8", "replace").decode():
            raise InputError(f"the label {label!r} is no UTF-8 text; rename its folder")
        if "\0" in label:
            raise InputError(f"the label {label[:40]!r} holds a zero byte, which ends a text in C")
        if len(label.encode()) > MAX_LABEL_BYTES:
            raise InputError(f"the label {label[:40]!r}... has over {MAX_LABEL_BYTES} bytes")


def decode(data: bytes, what: str, mode: str = "RGB") -> Any:
    """A JPEG or PNG file as a PIL image of mode RGB or RGBA; EXIF orientation is not applied.

    Raises InputError, beginning with `what`, when it is not a readable one.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        if image.width * image.height > MAX_IMAGE_PIXELS:
            raise InputError(f"{what} has {image.width}x{image.height} pixels, over 64 million")
        if image.mode not in RGB_MODES:
            raise InputError(
                f"{what} has pixels of mode {image.mode}; save it with 8 bits a channel"
            )
        return image.convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{what} cannot be decoded: {error}") from error


def _walk_folder(path: Path) -> Iterator[tuple[str, Path, int]]:
    for folder, subfolders, files in os.walk(path):
        subfolders.sort()
        for name in files:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                full = Path(folder) / name
                yield full.relative_to(path).as_posix(), full, full.stat().st_size


def _walk_tar(path: Path) -> Iterator[tuple[str, int, int]]:
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isfile() and Path(member.name).suffix.lower() in IMAGE_SUFFIXES:
                    yield PurePosixPath(member.name).as_posix(), member.offset_data, member.size
            # tarfile takes a damaged header for the end: a shorter set would pass in silence.
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise InputError(
                    f"{path}: damaged or cut short at byte {archive.offset}: neither a tar header "
                    "nor the end of the archive is there"
                )
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a readable, uncompressed tar: {error}") from error


def _strip_top(members: list[tuple[str, Any, int]]) -> list[tuple[str, Any, int]]:
    parts = [PurePosixPath(name).parts for name, _, _ in members]
    if len({p[0] for p in parts}) == 1 and min(len(p) for p in parts) > 2:
        members = [("/".join(p[1:]), where, size) for p, (_, where, size) in zip(parts, members)]
        parts = [p[1:] for p in parts]
    for p in parts:
        if len(p) < 2:
            raise InputError(f"the image {'/'.join(p)} is in no class folder; expected CLASS/IMAGE")
    return members
