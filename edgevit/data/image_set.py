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
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevit.data.class_order import ORDERS
from edgevit.data.kinds import name_text
from edgevit.data.listing import Listing, left_out_line, list_set, list_tars
from edgevit.data.reading import DamagedImages, Files, Place, cropped
from edgevit.data.table import GONE, Row, Table, View
from edgevit.errors import InputError
from edgevit.limits import MAX_CLASSES, MAX_LABEL_BYTES

if TYPE_CHECKING:
    import torch

    from edgevit.data.images import Preprocessing

SPLITS = frozenset((
    "train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval",
    "evaluation", "holdout",
))  # fmt: skip
_NAMED = 5

__all__ = ["DamagedImages", "ImageSet", "check_labels"]


class ImageSet:
    """Images in class folders, from a folder or an uncompressed tar; nothing is held but the index.

    entries     (name, class index) by the bytes of the name, CLASS/.../NAME; bytes of a file's name
                that no text can hold stand as \\xNN in it
    classes     in the order of the logits
    left_out    (name, why) of the files that look like images and are not read
    empty       folders beside the class folders that hold no image
    holes       places of images that are known to be damaged or gone; none is read
    is_part     whether images of the files at `path` are left out because they are damaged
    labelled    whether folders are classes; else they mean nothing, and all images are of one class
                without a name

    A single folder around the class folders is dropped from the names. Hidden files are ignored.
    """

    def __init__(
        self,
        path: Path,
        listing: Listing,
        labels: Sequence[str] | None,
        order: str = "default",
        labelled: bool = True,
    ) -> None:
        self.path, self.tars, self.labelled = path, listing.tars, labelled
        top = _top_folder(listing.raws, labels) if labelled else b""
        names = [_text_bytes(raw[len(top) :]) for raw in listing.raws]
        found: set[str] = set()
        self.classes: list[str] = []
        if labelled:
            found = self._found(listing, names, top, labels)
            self.classes = list(labels) if labels is not None else ORDERS[order](found)
        index = self._index(sorted(found))
        self._root = os.path.join(os.fsencode(path), top)
        self._table = _table(listing, names, len(top), index)
        self.files = Files(path)
        self.holes: frozenset[int] = frozenset()
        self.is_part = False
        self.left_out = listing.left_out
        known = {*found, *self.classes}
        beside = (name_text(f[len(top) :]) for f in listing.folders if f.startswith(top))
        empty = {f for f in beside if f and "/" not in f} - known
        self.empty = sorted(empty) if labelled else []

    def _found(
        self, listing: Listing, names: list[bytes], top: bytes, labels: Sequence[str] | None
    ) -> set[str]:
        """The names of the class folders."""
        self._check_depth(names)
        folders = {raw[len(top) :].partition(b"/")[0] for raw in listing.raws}
        found = {name_text(folder) for folder in folders}
        _check_no_splits(self.path, found, labels)
        _check_text(self.path, folders)
        return found

    def _index(self, found: Sequence[str]) -> dict[str, int] | None:
        """Class folder -> index; None where folders are no classes."""
        if not self.labelled:
            return None
        check_labels(self.classes)
        index = {c: i for i, c in enumerate(self.classes)}
        for name in found:
            if name not in index:
                raise InputError(_unknown_class(self.path, name, self.classes))
        return index

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        labels: Sequence[str] | None = None,
        *,
        order: str = "default",
        labelled: bool = True,
    ) -> ImageSet:
        """Index an image folder or a tar, or several tars as one set.

        path        a folder or tar of class folders, a folder of such tars, a pattern for their
                    names ("train-*.tar"), or a list of them
        labels      class folder names in the order of the logits; None: those found, in `order`
        order       "default" (torchvision's, by code point) or "natural" (timm's)
        labelled    False: a folder of images, in folders or not, which have no class

        Raises InputError when it is missing, unreadable, holds no image, holds images outside
        class folders, a class that is not in `labels`, or splits (train/, val/) in place of
        classes.
        """
        if order not in ORDERS:
            raise InputError(f"class order {order!r} is not one of {tuple(ORDERS)}")
        if isinstance(path, str | os.PathLike):
            path = Path(path)
            listing = list_set(path)
        else:
            tars = [Path(each) for each in path]
            if not tars:
                raise InputError("an empty list of tars is no image set")
            path = tars[0].with_name(f"{tars[0].name} and {len(tars) - 1} more")
            listing = list_tars(tars, path)
        if not listing.raws:
            left_out = left_out_line(listing.left_out, str(path))
            expected = "; expected CLASS/IMAGE.jpg below it" if labelled else ""
            raise InputError(
                f"{path}: no JPEG or PNG image found, and no WebP, BMP or PPM{expected}"
                f"{'. ' + left_out if left_out else ''}"
            )
        return cls(path, listing, labels, order, labelled)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def file(self) -> Path | None:
        """The folder or tar that holds exactly these images; None where it takes several tars."""
        if self.is_part or len(self.tars) > 1:
            return None
        return self.tars[0] if self.tars else self.path

    @property
    def entries(self) -> View[tuple[str, int]]:
        """(name, class index) by the bytes of the name; made as they are asked for."""
        return self._table.entries()

    @property
    def names(self) -> View[str]:
        """The names of the entries."""
        return self._table.texts()

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
        return self._table.labels

    @cached_property
    def sha256(self) -> str:
        """Of one line "path<TAB>bytes" an image, in order: names the set without reading it.

        Holes are no images.
        """
        return self._table.sha256(self.holes)

    @cached_property
    def sha256_with_holes(self) -> str:
        """The same, of the set as it was before its damaged images were known."""
        return self._table.sha256() if self.holes else self.sha256

    def size_of(self, index: int) -> int:
        """Bytes of the encoded file."""
        return int(self._table.sizes[index])

    def sizes_of(self, names: Collection[str]) -> list[tuple[str, int]]:
        """(name, bytes) of the images of these names."""
        return [(self._table.name(i).decode(), self.size_of(i)) for i in self._indices(names)]

    def _indices(self, names: Collection[str]) -> list[int]:
        found = {self._table.index_of(name.encode()) for name in names}
        return sorted(i for i in found if i is not None)

    def is_on_disk(self, index: int) -> bool:
        """False for a hole whose file is gone."""
        return int(self._table.places[index]) != GONE

    def without(self, names: Collection[str]) -> ImageSet:
        """The set less the images of these names; those it does not have are passed over."""
        dropped = self._indices(names)
        if not dropped:
            return self
        if len(dropped) == len(self):
            raise InputError(f"{self.path}: no image is left that can be decoded")
        gone = frozenset(dropped)
        holes = {i - bisect.bisect_left(dropped, i) for i in self.holes if i not in gone}
        return self._copy(self._table.less(dropped), holes)

    def with_holes(self, holes: Collection[tuple[str, int]]) -> ImageSet:
        """The set with these (name, bytes) as holes; one that is gone has its place again."""
        if not holes:
            return self
        marked = {self._table.name(i) for i in self.holes}
        index = self._index(())
        sizes, rows = {}, []
        for name, size in holes:
            at = self._table.index_of(name.encode())
            if at is not None:
                sizes[at] = size
            elif (label := _label(index, name)) is not None:
                rows.append(Row(name.encode(), label, size))
            else:
                continue
            marked.add(name.encode())
        table = self._table.with_sizes(sizes).with_rows(rows)
        found = (table.index_of(name) for name in marked)
        return self._copy(table, {i for i in found if i is not None})

    def without_holes(self) -> ImageSet:
        """The set with its holes taken for images, to look at them again."""
        return self._copy(self._table, frozenset())

    def _copy(self, table: Table, holes: Collection[int]) -> ImageSet:
        copy = ImageSet.__new__(ImageSet)
        copy.__dict__.update(self.__dict__)
        for name in ("sha256", "sha256_with_holes"):
            copy.__dict__.pop(name, None)
        copy._table = table
        copy.holes, copy.is_part = frozenset(holes), True
        return copy

    def place_of(self, index: int) -> Place:
        """Where the encoded file is."""
        table, name = self._table, self._table.name(index)
        size, place = int(table.sizes[index]), int(table.places[index])
        if place == GONE:
            return Place(name.decode(), b"", None, size)
        if self.tars:
            tar = os.fsencode(self.tars[table.archives[index]])
            return Place(name.decode(), tar, place, size)
        return Place(name.decode(), self._root + table.raws.get(index, name), None, size)

    @property
    def stamps(self) -> np.ndarray:
        """int64 (N,): when each file changed last, ns since 1970; 0 in a tar."""
        return self._table.stamps

    def fingerprints(self, salt: str) -> np.ndarray:
        """uint64 (N,): of each file's name, size, place and time of change, and of the salt."""
        table = self._table
        columns = (table.sizes, table.places, table.archives, table.stamps)
        begun = hashlib.blake2b(salt.encode(), digest_size=8)
        prints = bytearray()
        for name, *numbers in zip(table.names(), *(column.tolist() for column in columns)):
            digest = begun.copy()
            digest.update(b"%b\0%d,%d,%d,%d" % (name, *numbers))
            prints += digest.digest()
        return np.frombuffer(bytes(prints), np.uint64)

    def read_bytes(self, index: int, start: int = 0, count: int | None = None) -> bytes:
        """The encoded file, or `count` bytes of it from `start` on.

        Raises InputError when it is larger than 64 MiB, cut short or unreadable.
        """
        return self.files.read(self.place_of(index), start, count)

    def load_rgb(self, index: int) -> Any:
        """`load` of an RGB image."""
        return self.load(index, "RGB")

    def load(self, index: int, mode: str) -> Any:
        """Decode to a PIL image of mode RGB or RGBA; EXIF orientation is not applied.

        Raises DamagedImages naming the file when it is not a readable image.
        """
        return self.files.load(self.place_of(index), mode)

    def pixels(self, indices: Sequence[int], preprocessing: Preprocessing) -> np.ndarray:
        """uint8 (len(indices), H, W, C)."""
        mode = preprocessing.source_mode
        return np.stack(
            [
                cropped(
                    preprocessing,
                    partial(self.load, i, mode),
                    f"{self.path}: {self._table.name(i).decode()}",
                )
                for i in indices
            ]
        )

    def batches(
        self, preprocessing: Preprocessing, batch_size: int, indices: Sequence[int] | None = None
    ) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        """Yield (float32 (B, C, H, W), int64 labels (B,)) in order."""
        order = range(len(self)) if indices is None else indices
        labels = self.labels
        for start in range(0, len(order), batch_size):
            chunk = list(order[start : start + batch_size])
            yield preprocessing.normalise(self.pixels(chunk, preprocessing)), labels[chunk]

    def _check_depth(self, names: Sequence[bytes]) -> None:
        loose = sorted(name for name in names if b"/" not in name)
        if loose:
            raise InputError(
                f"{self.path}: the image {loose[0].decode()} is in no class folder"
                f"{f', as {len(loose) - 1} more' if len(loose) > 1 else ''}; expected CLASS/IMAGE"
            )


def _text_bytes(raw: bytes) -> bytes:
    """The bytes of `name_text`; the object itself where they are the same."""
    text = name_text(raw).encode()
    return raw if text == raw else text


def _label(index: dict[str, int] | None, name: str) -> int | None:
    """The class index of an image's name; 0 where there are no classes, None for an unknown one."""
    return 0 if index is None else index.get(name.partition("/")[0])


def _table(
    listing: Listing, names: list[bytes], top_bytes: int, index: dict[str, int] | None
) -> Table:
    """The images in order; `top_bytes` is the length of the folder around all classes."""
    order = sorted(range(len(names)), key=listing.raws.__getitem__)
    order.sort(key=names.__getitem__)
    places = np.array(order, np.int64)
    numbers = None if index is None else {name.encode(): n for name, n in index.items()}
    ordered = [names[i] for i in order]
    lengths = np.fromiter(map(len, ordered), np.int64, len(ordered))
    labels = (0 if numbers is None else numbers[name.partition(b"/")[0]] for name in ordered)
    raws = ((i, listing.raws[old][top_bytes:]) for i, old in enumerate(order))
    return Table(
        b"".join(ordered),
        np.cumsum(lengths),
        labels=np.fromiter(labels, np.int64, len(ordered)),
        sizes=np.array(listing.sizes)[places],
        places=np.array(listing.places)[places],
        archives=np.array(listing.archives)[places],
        stamps=np.array(listing.stamps)[places],
        raws={i: raw for i, raw in raws if raw != ordered[i]},
    )


def _top_folder(images: Sequence[bytes], labels: Sequence[str] | None) -> bytes:
    """The one folder around all class folders, with its slash; empty where there is none.

    A class folder that has folders of its own looks the same: the labels tell them apart.
    """
    top, inner = images[0].partition(b"/")[0], set()
    for raw in images:
        first, _, rest = raw.partition(b"/")
        second, slash, _ = rest.partition(b"/")
        if first != top or not slash:
            return b""
        inner.add(second)
    if labels is not None and name_text(top) in labels:
        known = set(labels)
        if not {name_text(name) for name in inner} <= known:
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
