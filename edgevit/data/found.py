"""What is found in a folder or a tar: images, files that are left out, folders."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from edgevit.data.kinds import (
    HEAD_BYTES,
    OTHER_PICTURE_SUFFIXES,
    READ_SUFFIXES,
    is_picture,
    name_text,
    suffix_of,
)
from edgevit.errors import InputError
from edgevit.limits import MAX_SET_DEPTH, MAX_SET_FILES

Where: TypeAlias = bytes | int
"""A file's path, or the offset of its first byte in the tar."""


@dataclass
class Listing:
    """Of a set. Of its images, unordered, in columns of the same length:

    raws       paths in the set, as they are on disk
    sizes      bytes
    places     the offset in the tar; 0 of a file of its own
    archives   which of `tars` it is in
    stamps     when the file was changed last, ns since 1970; 0 in a tar

    folders    all that were visited, by their paths in the set
    left_out   (path in the set, why)
    tars       of the set; none for a folder
    """

    raws: list[bytes] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    places: array[int] = field(default_factory=lambda: array("q"))
    archives: array[int] = field(default_factory=lambda: array("h"))
    stamps: array[int] = field(default_factory=lambda: array("q"))
    folders: list[bytes] = field(default_factory=list)
    left_out: list[tuple[bytes, str]] = field(default_factory=list)
    tars: list[Path] = field(default_factory=list)
    visited: int = 0

    def visit(self, path: bytes, depth: int, root: Path) -> None:
        """Count a file or folder. Raises InputError where links make the set endless."""
        self.visited += 1
        if self.visited > MAX_SET_FILES or depth > MAX_SET_DEPTH:
            raise InputError(
                f"{root}: at {name_text(path)[:200]} the set has over {MAX_SET_FILES} files or "
                f"{MAX_SET_DEPTH} folders inside each other: links may lead in circles"
            )

    def add(self, path: bytes, where: Where, size: int, head: Head, stamp: int = 0) -> None:
        """A regular file: an image, a picture to leave out, or of no concern."""
        suffix = suffix_of(path[path.rfind(b"/") + 1 :])
        if suffix in READ_SUFFIXES:
            self.raws.append(path)
            self.sizes.append(size)
            self.places.append(where if isinstance(where, int) else 0)
            self.archives.append(max(0, len(self.tars) - 1))
            self.stamps.append(stamp)
        elif suffix in OTHER_PICTURE_SUFFIXES or is_picture(head(where, size)):
            self.left_out.append((path, name_text(suffix) or "file without a suffix"))


class Head:
    """The first bytes of a file, where it can be read."""

    def __init__(self, tar: Path | None = None) -> None:
        self._tar = None if tar is None else open(tar, "rb")  # noqa: SIM115  # closed by _add_tar

    def __call__(self, where: Where, size: int) -> bytes:
        if self._tar is None:
            try:
                with open(where, "rb") as file:
                    return file.read(HEAD_BYTES)
            except OSError:
                return b""
        assert isinstance(where, int)
        self._tar.seek(where)
        return self._tar.read(min(size, HEAD_BYTES))

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
