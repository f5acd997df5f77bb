"""Labelled image sets: a folder or a tar of class folders, read lazily.

Which files are images is decided in `listing`, what their pixels are in `decode`; the C++ harness
repeats both, so every definition here (order, names, sha256) is part of the contract between the
two.
"""

from __future__ import annotations

import bisect
import hashlib
import os
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevit.data.class_order import ORDERS
from edgevit.data.decode import decode
from edgevit.data.kinds import name_text
from edgevit.data.listing import Found, Listing, left_out_line, list_set
from edgevit.errors import InputError
from edgevit.limits import MAX_CLASSES, MAX_IMAGE_BYTES, MAX_LABEL_BYTES

if TYPE_CHECKING:
    import torch

    from edgevit.data.images import Preprocessing

SPLITS = frozenset((
    "train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval",
    "evaluation", "holdout",
))  # fmt: skip
_NAMED = 5


class DamagedImages(InputError):
    """Images that cannot be decoded: `path` is their set, `names` are theirs in it."""

    def __init__(self, message: str, path: Path, names: Sequence[str]) -> None:
        super().__init__(message)
        self.path, self.names = path, tuple(names)


class ImageSet:
    """Images in class folders, from a folder or an uncompressed tar; nothing is held but the index.

    entries     (name, class index) by the bytes of the name, CLASS/.../NAME; bytes of a file's name
                that no text can hold stand as \\xNN in it
    classes     in the order of the logits
    left_out    (name, why) of the files that look like images and are not read
    empty       folders beside the class folders that hold no image
    holes       places of images that are known to be damaged or gone; none is read
    is_part     whether images of the files at `path` are left out because they are damaged

    A single folder around the class folders is dropped from the names. Hidden files are ignored.
    """

    def __init__(
        self,
        path: Path,
        listing: Listing,
        labels: Sequence[str] | None,
        order: str = "default",
    ) -> None:
        self.path = path
        top = _top_folder(listing.images, labels)
        images = [(name_text(f.raw[len(top) :]), f) for f in listing.images]
        images.sort(key=lambda image: (image[0].encode(), image[1].raw))
        self._check_depth([name for name, _ in images])
        found = {name.partition("/")[0] for name, _ in images}
        _check_no_splits(path, found, labels)
        _check_text(path, {f.raw[len(top) :].partition(b"/")[0] for f in listing.images})
        self.classes = list(labels) if labels is not None else ORDERS[order](found)
        check_labels(self.classes)
        index = {c: i for i, c in enumerate(self.classes)}
        for name in sorted(found):
            if name not in index:
                raise InputError(_unknown_class(path, name, self.classes))
        self.entries = [(name, index[name.partition("/")[0]]) for name, _ in images]
        self._where = [f.where for _, f in images]
        self._sizes = [f.size for _, f in images]
        self._tar: tuple[int, int] | None = None
        self.holes: frozenset[int] = frozenset()
        self.is_part = False
        self.left_out = listing.left_out
        known = {*found, *self.classes}
        beside = (name_text(f[len(top) :]) for f in listing.folders if f.startswith(top))
        self.empty = sorted({f for f in beside if f and "/" not in f} - known)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        labels: Sequence[str] | None = None,
        *,
        order: str = "default",
    ) -> ImageSet:
        """Index an image folder or a tar.

        labels      class folder names in the order of the logits; None: those found, in `order`
        order       "default" (torchvision's, by code point) or "natural" (timm's)

        Raises InputError when it is missing, unreadable, holds no image, holds images outside
        class folders, a class that is not in `labels`, or splits (train/, val/) in place of
        classes.
        """
        path = Path(path)
        if order not in ORDERS:
            raise InputError(f"class order {order!r} is not one of {tuple(ORDERS)}")
        listing = list_set(path)
        if not listing.images:
            left_out = left_out_line(listing.left_out, str(path))
            raise InputError(
                f"{path}: no JPEG or PNG image found, and no WebP, BMP or PPM; expected "
                f"CLASS/IMAGE.jpg below it{'. ' + left_out if left_out else ''}"
            )
        return cls(path, listing, labels, order)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def notices(self) -> list[str]:
        """What a user should know of the set, a line each: files left out, folders without one."""
        lines = [left_out_line(self.left_out, str(self.path))]
        if self.empty:
            shown = ", ".join(self.empty[:_NAMED]) + (", ..." if len(self.empty) > _NAMED else "")
            folders, has = (
                ("folder", "it has") if len(self.empty) == 1 else ("folders", "they have")
            )
            are = "is no class" if len(self.empty) == 1 else "are no classes"
            lines.append(
                f"{len(self.empty)} {folders} of {self.path} {are}, for {has} no image: {shown}"
            )
        return [line for line in lines if line]

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,): the class index of every entry."""
        return np.array([label for _, label in self.entries], dtype=np.int64)

    @property
    def sha256(self) -> str:
        """Of one line "path<TAB>bytes" an image, in order: names the set without reading it.

        Holes are no images.
        """
        return self._digest(i for i in range(len(self)) if i not in self.holes)

    @property
    def sha256_with_holes(self) -> str:
        """The same, of the set as it was before its damaged images were known."""
        return self._digest(range(len(self)))

    def _digest(self, indices: Iterable[int]) -> str:
        digest = hashlib.sha256()
        for i in indices:
            digest.update(f"{self.entries[i][0]}\t{self._sizes[i]}\n".encode())
        return digest.hexdigest()

    def size_of(self, index: int) -> int:
        """Bytes of the encoded file."""
        return self._sizes[index]

    def sizes_of(self, names: Collection[str]) -> list[tuple[str, int]]:
        """(name, bytes) of the images of these names."""
        wanted = frozenset(names)
        rows = zip(self.entries, self._sizes, strict=True)
        return [(name, size) for (name, _), size in rows if name in wanted]

    def is_on_disk(self, index: int) -> bool:
        """False for a hole whose file is gone."""
        return self._where[index] != b""

    def without(self, names: Collection[str]) -> ImageSet:
        """The set less the images of these names; those it does not have are passed over."""
        dropped = frozenset(names)
        kept = [i for i, (name, _) in enumerate(self.entries) if name not in dropped]
        if len(kept) == len(self):
            return self
        if not kept:
            raise InputError(f"{self.path}: no image is left that can be decoded")
        places = {old: new for new, old in enumerate(kept)}
        holes = {places[i] for i in self.holes if i in places}
        return self._copy([self._row(i) for i in kept], holes)

    def with_holes(self, holes: Collection[tuple[str, int]]) -> ImageSet:
        """The set with these (name, bytes) as holes; one that is gone has its place again."""
        rows = [self._row(i) for i in range(len(self))]
        marked = {self.entries[i][0] for i in self.holes}
        if not holes:
            return self
        index = {c: i for i, c in enumerate(self.classes)}
        for name, size in sorted(holes, key=lambda hole: hole[0].encode()):
            at = bisect.bisect_left(rows, name.encode(), key=lambda row: row[0][0].encode())
            if at < len(rows) and rows[at][0][0] == name:
                rows[at] = (rows[at][0], rows[at][1], size)
            elif name.partition("/")[0] in index:
                rows.insert(at, ((name, index[name.partition("/")[0]]), b"", size))
            else:
                continue
            marked.add(name)
        return self._copy(rows, {i for i, row in enumerate(rows) if row[0][0] in marked})

    def without_holes(self) -> ImageSet:
        """The set with its holes taken for images, to look at them again."""
        return self._copy([self._row(i) for i in range(len(self))], frozenset())

    def _row(self, index: int) -> tuple[tuple[str, int], bytes | int, int]:
        return self.entries[index], self._where[index], self._sizes[index]

    def _copy(
        self, rows: list[tuple[tuple[str, int], bytes | int, int]], holes: Collection[int]
    ) -> ImageSet:
        copy = ImageSet.__new__(ImageSet)
        copy.__dict__.update(self.__dict__)
        copy.entries = [entry for entry, _, _ in rows]
        copy._where = [where for _, where, _ in rows]
        copy._sizes = [size for _, _, size in rows]
        copy._tar, copy.holes, copy.is_part = None, frozenset(holes), True
        return copy

    def read_bytes(self, index: int, start: int = 0, count: int | None = None) -> bytes:
        """The encoded file, or `count` bytes of it from `start` on.

        Raises InputError when it is larger than 64 MiB, cut short or unreadable.
        """
        size, name = self._sizes[index], self.entries[index][0]
        if size > MAX_IMAGE_BYTES:
            raise InputError(f"{self.path}: {name} has {size} bytes, over 64 MiB")
        where = self._where[index]
        wanted = size - start if count is None else min(count, size - start)
        try:
            if isinstance(where, bytes):
                data = _read_file(where, start, wanted)
            else:
                data = os.pread(self._descriptor(), wanted, where + start)
        except OSError as error:
            raise InputError(f"{self.path}: {name} cannot be read: {error.strerror}") from error
        if len(data) != wanted:
            raise InputError(f"{self.path}: {name} ends before its {size} bytes")
        return data

    def load_rgb(self, index: int) -> Any:
        """`load` of an RGB image."""
        return self.load(index, "RGB")

    def load(self, index: int, mode: str) -> Any:
        """Decode to a PIL image of mode RGB or RGBA; EXIF orientation is not applied.

        Raises DamagedImages naming the file when it is not a readable image.
        """
        name = self.entries[index][0]
        try:
            return decode(self.read_bytes(index), f"{self.path}: {name}", mode)
        except InputError as error:
            raise DamagedImages(str(error), self.path, [name]) from error

    def pixels(self, indices: Sequence[int], preprocessing: Preprocessing) -> np.ndarray:
        """uint8 (len(indices), H, W, C)."""
        crops = []
        for i in indices:
            picture = self.load(i, preprocessing.source_mode)
            try:
                crops.append(preprocessing.crop(picture))
            except InputError as error:
                raise InputError(f"{self.path}: {self.entries[i][0]}: {error}") from error
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

    def _check_depth(self, names: Sequence[str]) -> None:
        loose = [name for name in names if "/" not in name]
        if loose:
            raise InputError(
                f"{self.path}: the image {loose[0]} is in no class folder"
                f"{f', as {len(loose) - 1} more' if len(loose) > 1 else ''}; expected CLASS/IMAGE"
            )

    def _descriptor(self) -> int:
        # Reopened in a forked or spawned data worker: a shared offset would not matter to pread,
        # but a descriptor that the parent closes would.
        if self._tar is None or self._tar[0] != os.getpid():
            self._tar = (os.getpid(), os.open(self.path, os.O_RDONLY))
        return self._tar[1]


def _read_file(path: bytes, start: int, count: int) -> bytes:
    # A file may have become a FIFO since it was listed: opening must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.pread(descriptor, count, start)
    finally:
        os.close(descriptor)


def _top_folder(images: Sequence[Found], labels: Sequence[str] | None) -> bytes:
    """The one folder around all class folders, with its slash; empty where there is none.

    A class folder that has folders of its own looks the same: the labels tell them apart.
    """
    parts = [found.raw.split(b"/", 2) for found in images]
    tops = {part[0] for part in parts}
    if len(tops) != 1 or min(len(part) for part in parts) < 3:
        return b""
    top = tops.pop()
    if labels is not None and name_text(top) in labels:
        known = set(labels)
        if not {name_text(part[1]) for part in parts} <= known:
            return b""
    return top + b"/"


def _check_no_splits(path: Path, found: set[str], labels: Sequence[str] | None) -> None:
    splits = sorted(found)
    if len(splits) < 2 or not all(name.lower() in SPLITS for name in splits):
        return
    if labels is not None and found <= set(labels):
        return
    first = next((s for s in splits if s.lower().startswith("train")), splits[0])
    raise InputError(
        f"{path} holds {' and '.join(splits)}, which are parts of a set and no classes; name one "
        f"of them, such as {path / first}"
    )


def _check_text(path: Path, folders: set[bytes]) -> None:
    for raw in sorted(folders):
        if name_text(raw).encode() != raw:
            raise InputError(
                f"{path}: the class folder {name_text(raw)!r} has bytes in its name that are no "
                "printable UTF-8 text; rename it"
            )


def _unknown_class(path: Path, name: str, labels: Sequence[str]) -> str:
    text = (
        f"{path}: the class folder {name!r} is not one of the model's {len(labels)} labels "
        f"({', '.join(labels[:_NAMED])}, ...)"
    )
    folded = unicodedata.normalize("NFC", name)
    if any(unicodedata.normalize("NFC", label) == folded for label in labels):
        text += "; a label looks the same, but is composed of other characters (NFC and NFD)"
    elif any(label.lower() == name.lower() for label in labels):
        text += "; a label differs from it in upper and lower case only"
    return text


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
