"""Which images of a set are damaged, found before hours of work depend on them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from edgevit.data.image_set import DamagedImages, ImageSet
from edgevit.data.kept import Whole
from edgevit.data.kinds import HEAD_BYTES, kind_of
from edgevit.data.reading import Place
from edgevit.data.structure import structure_of
from edgevit.errors import InputError
from edgevit.files import atomic_path
from edgevit.limits import MAX_IMAGE_BYTES
from edgevit.progress import Progress

THREADS = min(16, 2 * (os.cpu_count() or 1))
TAIL_BYTES = 4096
_JPEG_END = b"\xff\xd9"
_CHUNK = 64
"""Images that a thread looks at in one go."""
_AT_ONCE = 64
"""Chunks between two figures of progress."""
_NAMED = 10
_LIST_START = "# edgevit: images that cannot be decoded\n"

log = logging.getLogger(__name__)

Damage = tuple[str, str]
"""An image's name, and what is wrong with it."""


def damaged_images(
    images: ImageSet, *, full: bool = False, indices: Iterable[int] | None = None
) -> list[Damage]:
    """The images that cannot be read, in order; holes are passed over.

    full      decode every image; otherwise only its structure is looked at, of a JPEG its ends
    indices   of the images to look at; None: all
    """
    known = Whole(images, full)
    wanted = [i for i in (range(len(images)) if indices is None else indices)
              if i not in images.holes and not known.known[i]]  # fmt: skip
    found: list[tuple[int, str]] = []

    def look(chunk: Sequence[int]) -> list[tuple[int, str]]:
        reasons = ((i, _damage(images, i, full)) for i in chunk)
        return [(i, reason) for i, reason in reasons if reason is not None]

    title = f"{'decoding' if full else 'checking'} {images.path.name}"
    chunk = 1 if full else _CHUNK
    chunks = [wanted[at : at + chunk] for at in range(0, len(wanted), chunk)]
    with ThreadPoolExecutor(THREADS) as pool, Progress(title, len(wanted), "images") as progress:
        for at in range(0, len(chunks), _AT_ONCE):
            for each in pool.map(look, chunks[at : at + _AT_ONCE]):
                found += each
            progress.update(min(len(wanted), (at + _AT_ONCE) * chunk))
    if indices is None:
        whole = np.ones(len(images), bool)
        whole[[i for i, _ in found]] = whole[sorted(images.holes)] = False
        known.keep(whole)
    return [(images.entries[i][0], reason) for i, reason in found]


def _damage(images: ImageSet, index: int, full: bool) -> str | None:
    try:
        if full:
            images.load_rgb(index)
        elif not _ends_as_jpeg(images, images.place_of(index)):
            structure_of(images.read_bytes(index))
    except InputError as error:
        start = f"{images.path}: {images.entries[index][0]} "
        return str(error).removeprefix(start).removeprefix("cannot be decoded: ")
    return None


def _ends_as_jpeg(images: ImageSet, place: Place) -> bool:
    if place.size > MAX_IMAGE_BYTES:
        return False
    tail = min(TAIL_BYTES, place.size)
    parts = [(0, min(HEAD_BYTES, place.size)), (place.size - tail, tail)]
    head, end = images.files.read_parts(place, parts)
    return kind_of(head) == "JPEG" and _JPEG_END in end


def sound(images: ImageSet, skip_broken: bool, broken_list: Path | None = None) -> ImageSet:
    """The set less its damaged images.

    skip_broken   leave them out and say so; otherwise the first look at their structure refuses
    broken_list   text file to write the name of each to, and what is wrong

    Raises DamagedImages, naming them, where there are some and `skip_broken` is false.
    """
    damaged = damaged_images(images, full=skip_broken)
    if not damaged:
        return images
    write_list(damaged, broken_list)
    if not skip_broken:
        raise refusal(images.path, len(images), damaged)
    log.warning(skipped_line(images.path, damaged))
    return images.without([name for name, _ in damaged])


def write_list(damaged: Sequence[Damage], path: Path | None) -> None:
    """Write a line "CLASS/IMAGE<TAB>reason" for each; None: nowhere.

    Raises InputError for a file that is there and is no such list.
    """
    if path is None:
        return
    with atomic_path(path, force=_is_list(path)) as temporary:
        lines = "".join(f"{name}\t{reason}\n" for name, reason in damaged)
        temporary.write_text(_LIST_START + lines, "utf-8")


def _is_list(path: Path) -> bool:
    if not path.is_file():  # a FIFO would not end
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(_LIST_START)) == _LIST_START.encode()
    except OSError:
        return False


def refusal(path: Path, count: int, damaged: Sequence[Damage], then: str = "") -> DamagedImages:
    """The error that names them, of a set of `count` images.

    then   what happens to the work that was done
    """
    first = ": ".join(damaged[0])
    them = "it" if len(damaged) == 1 else "them"
    text = (
        f"{len(damaged)} of {count} images of {path} cannot be decoded, such as {first}; mend or "
        f"remove {them}, or leave {them} out with --skip-broken{then}"
    )
    if len(damaged) > 1:
        lines = [f"  {name}: {reason}" for name, reason in damaged[:_NAMED]]
        if len(damaged) > _NAMED:
            lines.append(f"  and {len(damaged) - _NAMED} more: --broken-list FILE names all")
        text = "\n".join((text, *lines))
    return DamagedImages(text, path, [name for name, _ in damaged])


def skipped_line(path: Path, damaged: Sequence[Damage]) -> str:
    """What is said of images that are left out."""
    shown = ", ".join(f"{name} ({reason})" for name, reason in damaged[:_NAMED])
    more = f" and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
    count = f"{len(damaged)} damaged image{'s' if len(damaged) > 1 else ''}"
    return f"left out {count} of {path}: {shown}{more}"
