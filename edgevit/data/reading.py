"""The files of a set's images: read, decoded and cropped, in this process or in a data worker."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevit.data.decode import decode
from edgevit.errors import InputError
from edgevit.limits import MAX_IMAGE_BYTES

if TYPE_CHECKING:
    from edgevit.data.images import Preprocessing

_FEW_OPEN = 1024


class DamagedImages(InputError):
    """Images that cannot be decoded: `path` is their set, `names` are theirs in it."""

    def __init__(self, message: str, path: Path, names: Sequence[str]) -> None:
        super().__init__(message)
        self.path, self.names = path, tuple(names)

    def __reduce__(self) -> tuple[Any, ...]:
        return DamagedImages, (str(self), self.path, self.names)


@dataclass(frozen=True)
class Place:
    """Where an image's bytes are.

    name    of the image in its set
    path    of its file, or of the tar that holds it; empty where it is gone
    offset  in the tar; None for a file of its own
    size    bytes
    """

    name: str
    path: bytes
    offset: int | None
    size: int


class Files:
    """The files of the set at `path`; tars stay open from the first read on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: dict[bytes, int] = {}
        self._process = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        return Files, (self.path,)

    def read(self, place: Place, start: int = 0, count: int | None = None) -> bytes:
        """The encoded file, or `count` bytes of it from `start` on.

        Raises InputError when it is larger than 64 MiB, cut short or unreadable.
        """
        wanted = place.size - start if count is None else min(count, place.size - start)
        return self.read_parts(place, [(start, wanted)])[0]

    def read_parts(self, place: Place, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        """Parts (start, bytes) of the encoded file, which is opened once. Raises as `read`."""
        what = f"{self.path}: {place.name}"
        if place.size > MAX_IMAGE_BYTES:
            raise InputError(f"{what} has {place.size} bytes, over 64 MiB")
        try:
            if place.offset is None:
                found = _read_file(place.path, parts)
            else:
                at = [(place.offset + start, count) for start, count in parts]
                found = self._read_tar(place.path, at)
        except OSError as error:
            raise InputError(f"{what} cannot be read: {error.strerror}") from error
        if any(len(data) != count for data, (_, count) in zip(found, parts)):
            raise InputError(f"{what} ends before its {place.size} bytes")
        return found

    def load(self, place: Place, mode: str) -> Any:
        """Decode to a PIL image of mode RGB or RGBA; EXIF orientation is not applied.

        Raises DamagedImages naming the file when it is not a readable image.
        """
        try:
            return decode(self.read(place), f"{self.path}: {place.name}", mode)
        except InputError as error:
            raise DamagedImages(str(error), self.path, [place.name]) from error

    def crop(self, place: Place, rules: Preprocessing) -> np.ndarray:
        """uint8 (H, W, C), as `Preprocessing.crop` makes it. Raises as `load` and `crop` do."""
        return cropped(
            rules, lambda: self.load(place, rules.source_mode), f"{self.path}: {place.name}"
        )

    def _read_tar(self, tar: bytes, parts: Sequence[tuple[int, int]]) -> list[bytes]:
        # Reopened in a forked process: one that the parent closes would be closed there too.
        if self._process != os.getpid():
            self._open, self._process = {}, os.getpid()
        known = self._open.get(tar)
        if known is not None:
            return _read(known, parts)
        opened = os.open(tar, os.O_RDONLY | os.O_CLOEXEC)
        # Never one in place of another: a thread may read from that one.
        if len(self._open) < _most_open() and self._open.setdefault(tar, opened) is opened:
            return _read(opened, parts)
        try:
            return _read(opened, parts)
        finally:
            os.close(opened)


@cache
def _most_open() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _FEW_OPEN if limit == resource.RLIM_INFINITY else limit // 2


def cropped(rules: Preprocessing, load: Callable[[], Any], what: str) -> np.ndarray:
    """The crop of a loaded picture. Raises InputError naming `what` where it cannot be cropped."""
    picture = load()
    try:
        return rules.crop(picture)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def _read_file(path: bytes, parts: Sequence[tuple[int, int]]) -> list[bytes]:
    # A file may have become a FIFO since it was listed: opening must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _read(descriptor, parts)
    finally:
        os.close(descriptor)


def _read(descriptor: int, parts: Sequence[tuple[int, int]]) -> list[bytes]:
    return [os.pread(descriptor, count, start) for start, count in parts]
