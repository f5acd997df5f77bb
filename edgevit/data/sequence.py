"""Images that the caller holds, as an image source: a sequence, a torch Dataset or DataLoader."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

from edgevit.data.export import cropped_bytes, picture_bytes
from edgevit.data.given import GivenImage, own_size, understood
from edgevit.data.images import Preprocessing, check_labels
from edgevit.data.loader import first_image, is_loader, items_of
from edgevit.data.source import (
    ImageFolder,
    ImageSource,
    PixelCache,
    check_source,
    preprocessing_of,
)
from edgevit.data.structure import structure_of
from edgevit.errors import InputError
from edgevit.progress import Progress

Images: TypeAlias = Any
"""What `as_source` takes: an ImageSource, a sequence, a DataLoader, a folder or tar."""

READ_TWICE = 8
"""Images that are read again, to find a set that gives others each time."""


class ImageSequence:
    """An `ImageSource` over (image, class) by index; `from_sequence` makes one."""

    def __init__(
        self,
        items: Any,
        preprocessing: Preprocessing,
        classes: Sequence[str] | None,
        title: str,
    ) -> None:
        self._items = items
        self.preprocessing, self.title = preprocessing, title
        self.cache = PixelCache(len(items), preprocessing)
        self.labelled = classes is None or len(classes) > 0
        given, digests, suffixes = self._read_all()
        self._check_repeatable(digests)
        self.classes: list[str] = []
        self.labels = np.zeros(len(items), np.int64)
        if self.labelled:
            self.classes = _class_names(given, classes, title)
            check_labels(self.classes)
            self.labels = _class_indices(given, self.classes, title)
        folders = self.classes or ["images"]
        self.names = [
            f"{folders[label]}/{i:07d}{suffix}"
            for i, (label, suffix) in enumerate(zip(self.labels.tolist(), suffixes, strict=True))
        ]
        lines = (f"{n}\t{d}\n" for n, d in zip(self.names, digests, strict=True))
        self.sha256 = hashlib.sha256("".join(lines).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return (
            f"ImageSequence({self.title!r}, {len(self)} images, {len(self.classes)} classes, "
            f"{self.preprocessing.size_text})"
        )

    def pixels(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 (N, H, W, C). Raises InputError naming an unusable image."""

        def read(wanted: Sequence[int]) -> np.ndarray:
            return np.stack([self._crop(i, self._item(i)[0]) for i in wanted])

        return self.cache.get(indices, read)

    def encoded(self, index: int) -> bytes:
        """A JPEG or PNG file from which `preprocessing` makes the image's pixels.

        Raises InputError for an image that was cropped before and would be resized again.
        """
        image, _ = self._item(index)
        if image.path is not None:
            return image.file_bytes()
        return cropped_bytes(self, index) if image.picture is None else picture_bytes(image.picture)

    def damaged(self) -> list[tuple[str, str]]:
        """The images given as paths that are not whole, and why."""
        found = []
        for i in range(len(self)):
            image, _ = self._item(i)
            try:
                if image.path is not None:
                    structure_of(image.file_bytes())
            except InputError as error:
                found.append((str(image.path), str(error)))
        return found

    def _read_all(self) -> tuple[list[Any], list[str], list[str]]:
        """Of every image: its class as given, what tells it from others, its file's suffix."""
        classes, digests, suffixes = [], [], []
        with Progress(f"reading {self.title}", len(self), "images") as progress:
            for i in range(len(self)):
                image, label = self._item(i)
                classes.append(label)
                suffixes.append(".png" if image.path is None else image.path.suffix.lower())
                digests.append(self._digest(i, image))
                progress.update(i + 1)
        return classes, digests, suffixes

    def _digest(self, index: int, image: GivenImage) -> str:
        if image.path is not None:
            return str(image.file_size())
        pixels = self.cache.get([index], lambda _: self._crop(index, image)[None])
        return _sha256(pixels)

    def _check_repeatable(self, digests: list[str]) -> None:
        for i in sorted({k * len(self) // READ_TWICE for k in range(READ_TWICE)}):
            image, _ = self._item(i)
            if image.path is None and _sha256(self._crop(i, image)) != digests[i]:
                raise InputError(
                    f"{self.title}: image {i} is another one when it is read again: give the set "
                    "without random transforms; edgevit augments by itself (augment=)"
                )

    def _item(self, index: int) -> tuple[GivenImage, Any]:
        item = self._items[index]
        if not self.labelled and not isinstance(item, tuple | list):
            item = item, 0
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise InputError(
                f"{self.title}: item {index} is {type(item).__name__}, expected (image, class)"
            )
        with _naming(self.title, index):
            return understood(item[0], self.preprocessing), item[1]

    def _crop(self, index: int, image: GivenImage) -> np.ndarray:
        with _naming(self.title, index):
            return image.crop(self.preprocessing)


def _sha256(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


@contextmanager
def _naming(title: str, index: int) -> Iterator[None]:
    """Says in an InputError which image it is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{title}: image {index}: {error}") from error


def from_sequence(
    images: Any,
    size: int | None = None,
    *,
    resize: int | None = None,
    interpolation: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    like: ImageSource | Preprocessing | None = None,
    title: str | None = None,
) -> ImageSequence:
    """An `ImageSource` over images that the caller holds.

    images      (image, class) by index (a list, any sequence, a torch Dataset), or a DataLoader
    an image    a PIL image, uint8 (H, W, 3) RGB, uint8 tensor (3, H, W), or the path of an
                image file: resized and cropped here; or a float32 tensor (3, size, size): resized,
                cropped and normalised before, with `mean` and `std`, and taken back to its pixels
    a class     its index, or its name
    size        input height and width, pixels; default: that of a tensor or a square array
    resize, interpolation, mean, std, like
                as for `ImageFolder`; where the images were cropped before, say here how, since
                programs and artifacts record it and applications repeat it
    classes     class names in the order of the logits; default: `like`'s, the Dataset's `classes`,
                or else the names found, sorted, or "0", "1", ... up to the largest index found;
                (): the images have no class, and may stand alone
    title       what to call the set in messages

    Every image is read once, here. Raises InputError for an image or class that cannot be
    understood, for tensors that are not normalised 8-bit pixels, and for a set that gives other
    images when it is read again.
    """
    dataset = images.dataset if is_loader(images) else images
    rules = preprocessing_of(like, size, resize, interpolation, mean, std)
    if rules is None:
        found = own_size(first_image(images) if is_loader(images) else _first(images))
        if found is None:
            raise InputError(
                "these images do not tell the network's input size: "
                "edgevit.from_sequence(images, size=224), or like=another source"
            )
        rules = preprocessing_of(None, found, resize, interpolation, mean, std)
        assert rules is not None
    items = items_of(images, rules) if is_loader(images) else images
    _first(items)
    if classes is None:
        known = getattr(like, "classes", None)
        classes = getattr(dataset, "classes", None) if known is None else known
    kind = "an array" if isinstance(dataset, np.ndarray) else f"a {type(dataset).__name__}"
    return ImageSequence(items, rules, classes, title or kind)


def as_source(
    images: Images,
    like: ImageSource | Preprocessing | None = None,
    classes: Sequence[str] | None = None,
) -> ImageSource:
    """The images as an `ImageSource`, pre-processed as `like` is where they are not one yet.

    Raises InputError when they cannot be one.
    """
    if hasattr(images, "pixels") and hasattr(images, "preprocessing"):
        check_source(images)
        return images
    if isinstance(images, str | os.PathLike):
        labelled = False if classes is not None and not len(classes) else None
        return ImageFolder(images, like=like, classes=classes, labelled=labelled)
    return from_sequence(images, like=like, classes=classes)


def _first(images: Any) -> Any:
    if not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
        raise InputError(
            f"{type(images).__name__} is no set of images: use edgevit.ImageFolder, a sequence of "
            "(image, class), a map-style Dataset or a DataLoader"
        )
    if not len(images):
        raise InputError("there are no images in the sequence")
    item = images[0]
    if isinstance(item, tuple | list):
        return item[0] if item else None
    return item


def _class_names(given: list[Any], classes: Sequence[str] | None, title: str) -> list[str]:
    if classes is not None:
        return [str(name) for name in classes]
    if all(isinstance(each, str) for each in given):
        return sorted(set(given))
    return [str(i) for i in range(1 + max(_index(each, title) for each in given))]


def _class_indices(given: list[Any], classes: list[str], title: str) -> np.ndarray:
    """int64 (N,)."""
    places = {name: i for i, name in enumerate(classes)}
    found = []
    for each in given:
        place = places.get(each) if isinstance(each, str) else _index(each, title)
        if place is None or place >= len(classes):
            raise InputError(
                f"{title}: the class {each!r} is not one of the {len(classes)} classes "
                f"({', '.join(classes[:5])}, ...); give classes= in the order of the logits"
            )
        found.append(place)
    return np.array(found, dtype=np.int64)


def _index(given: Any, title: str) -> int:
    """A class index as an int: of a Python, NumPy or torch integer."""
    value = given.item() if getattr(given, "shape", None) == () else given
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(
            f"{title}: {given!r} is no class: use its index (0 or more) or its name, one or the "
            "other for all images"
        )
    return value
