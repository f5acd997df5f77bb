"""The one form in which every step reads labelled images, and its form for folders and tars.

Calibration, fine-tuning, evaluation, parity and validation ask an `ImageSource` for pixels; where
the images come from (class folders here, a sequence or a DataLoader in `sequence`) is its matter.
Importing this module imports no torch.
"""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np

from edgevit.data.images import ImageSet, Preprocessing
from edgevit.data.soundness import sound
from edgevit.errors import InputError

log = logging.getLogger(__name__)

CACHE_BYTES = 2**30
"""Cropped images are kept in memory while the whole set fits into this."""


class ImageSource(Protocol):
    """Labelled images, cropped to the network's input; the same pixels on every call.

    title           what to call the set in messages and provenance, such as "eurosat-train.tar"
    classes         class names in the order of the logits
    names           a distinct name an image, CLASS/NAME, by which recorded logits are found again
    labels          int64 (N,): the class index of every image
    sha256          names the set: sources with the same images have the same one
    preprocessing   how `pixels` were made and how they become the network's input
    """

    @property
    def title(self) -> str: ...
    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def sha256(self) -> str: ...
    @property
    def preprocessing(self) -> Preprocessing: ...

    def __len__(self) -> int: ...

    def pixels(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 (len(indices), *preprocessing.pixel_shape), channels in the input's order."""
        ...


class PixelCache:
    """Cropped images by index, read once and kept if the whole set fits into `CACHE_BYTES`.

    A copy in another process keeps none.
    """

    def __init__(self, count: int, preprocessing: Preprocessing) -> None:
        fits = count * math.prod(preprocessing.pixel_shape) <= CACHE_BYTES
        self._kept: dict[int, np.ndarray] | None = {} if fits else None

    def __getstate__(self) -> dict[str, Any]:
        return {"_kept": None}

    @property
    def keeps(self) -> bool:
        """Whether the whole set fits."""
        return self._kept is not None

    def missing(self, indices: Sequence[int]) -> list[int]:
        """Of the indices those that are not kept, each once."""
        kept = self._kept or {}
        return list(dict.fromkeys(i for i in indices if i not in kept))

    def put(self, indices: Sequence[int], crops: np.ndarray) -> None:
        """Keep what another process read."""
        if self._kept is not None:
            self._kept.update(zip(indices, crops))

    def get(
        self, indices: Sequence[int], read: Callable[[Sequence[int]], np.ndarray]
    ) -> np.ndarray:
        """uint8 (N, H, W, C); `read` is asked for the images that are not kept yet."""
        if self._kept is None:
            return read(indices)
        for i in indices:
            if i not in self._kept:
                self._kept[i] = read([i])[0]
        return np.stack([self._kept[i] for i in indices])


class ImageFolder:
    """An `ImageSource` over class folders, in a folder or an uncompressed tar.

        train = ImageFolder("train/", size=224, resize=256)
        val = ImageFolder("val/", like=train)

    path        CLASS/IMAGE below it, or in it: JPEG, PNG, WebP, BMP, PPM; links are followed.
                Several tars are one set: a folder of them, "train-*.tar", or a list
    size        input height and width of the network, pixels
    resize      the shorter side before the centre crop, pixels; default: `size`
    classes     folder names in the order of the logits; default: those of `like`, or sorted
    like        a source, whose preprocessing and classes are taken, or a Preprocessing
    class_order how they are sorted: "default" as torchvision does, by code point; "natural" as
                timm does
    skip_broken decode every image once, here, and leave out those that cannot be
    labelled    False: folders are no classes, and images may lie in none; default: as `like`

    What is left out is logged as a warning.
    Raises InputError for a set that is missing, empty or unreadable, for a class folder that is
    not in `classes`, and for preprocessing out of range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        size: int | None = None,
        *,
        resize: int | None = None,
        interpolation: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
        like: ImageSource | Preprocessing | None = None,
        class_order: str = "default",
        skip_broken: bool = False,
        labelled: bool | None = None,
    ) -> None:
        rules = preprocessing_of(like, size, resize, interpolation, mean, std)
        if rules is None:
            raise InputError(
                f"the images of {path} need the network's input size: give size=224, or "
                "like=another source"
            )
        self.preprocessing = rules
        if like is not None and not isinstance(like, Preprocessing):
            classes = like.classes if classes is None else classes
            if labelled is None:
                labelled = bool(like.classes)
        labelled = labelled is not False
        images = ImageSet.open(
            path, classes if labelled else None, order=class_order, labelled=labelled
        )
        for line in images.notices:
            log.warning(line)
        self._take(sound(images, True) if skip_broken else images)

    def _take(self, images: ImageSet) -> None:
        self.images, self.path, self.labels = images, images.path, images.labels
        self.cache = PixelCache(len(images), self.preprocessing)

    @classmethod
    def of(cls, images: ImageSet, rules: Preprocessing) -> ImageFolder:
        """A source over a set that is open already."""
        source = cls.__new__(cls)
        source.preprocessing = rules
        source._take(images)
        return source

    def encoded(self, index: int) -> bytes:
        """An image's file."""
        return self.images.read_bytes(index)

    def with_images(self, images: ImageSet) -> ImageFolder:
        """The same source over a part of its set."""
        if images is self.images:
            return self
        other = copy.copy(self)
        other._take(images)
        return other

    @property
    def title(self) -> str:
        return self.path.name

    @property
    def classes(self) -> list[str]:
        return self.images.classes

    @property
    def names(self) -> Sequence[str]:
        return self.images.names

    @property
    def sha256(self) -> str:
        return self.images.sha256

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 (N, H, W, C). Raises InputError naming an unreadable image."""
        return self.cache.get(
            indices, lambda wanted: self.images.pixels(wanted, self.preprocessing)
        )

    def __repr__(self) -> str:
        return (
            f"ImageFolder({str(self.path)!r}, {len(self)} images, {len(self.classes)} classes, "
            f"{self.preprocessing.size_text})"
        )


def preprocessing_of(
    like: ImageSource | Preprocessing | None,
    size: int | None,
    resize: int | None,
    interpolation: str | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Preprocessing | None:
    """The preprocessing that a source's arguments ask for; None where the size is not given.

    Raises InputError where `like` and another argument would both decide.
    """
    given = {
        "size": size, "resize": resize, "interpolation": interpolation, "mean": mean, "std": std
    }  # fmt: skip
    if like is not None:
        doubled = [name for name, value in given.items() if value is not None]
        if doubled:
            raise InputError(
                f"like= brings its own preprocessing: leave out {', '.join(doubled)}, or like"
            )
        return like if isinstance(like, Preprocessing) else like.preprocessing
    if size is None:
        return None
    return Preprocessing(
        size,
        size if resize is None else resize,
        "bicubic" if interpolation is None else interpolation,
        () if mean is None else _triple("mean", mean),
        () if std is None else _triple("std", std),
    )


def _triple(name: str, values: Sequence[float]) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be three numbers, one a channel, not {values}") from error
    return red, green, blue


def check_same_input(
    source: ImageSource, preprocessing: Preprocessing, classes: Sequence[str]
) -> None:
    """Raises InputError when a source's pixels or classes are not those a program was made for."""
    asked, found = asdict(preprocessing), asdict(source.preprocessing)
    other = [
        f"{name} {found[name]} instead of {asked[name]}"
        for name in asked
        if found[name] != asked[name]
    ]
    if other:
        raise InputError(
            f"{source.title} is pre-processed otherwise than the program: {', '.join(other)}; open "
            "it with like=program.info.preprocessing"
        )
    if list(source.classes) != list(classes):
        raise InputError(
            f"{source.title} has other classes ({', '.join(source.classes[:5])}, ...) than the "
            f"program ({', '.join(classes[:5])}, ...); give classes=program.info.labels"
        )


def check_source(source: Any) -> None:
    """Raises InputError when a source of the user's own lacks a part of `ImageSource`."""
    missing = [name for name in _PARTS if not hasattr(source, name)]
    if missing:
        raise InputError(
            f"{type(source).__name__} is no image source: it has no {', '.join(missing)}; use "
            "edgevit.ImageFolder, or a sequence of (image, class)"
        )
    if source.labels.dtype != np.int64 or source.labels.shape != (len(source),):
        raise InputError(f"{source.title}: labels must be int64 ({len(source)},), one an image")


_PARTS = (
    "title", "classes", "names", "labels", "sha256", "preprocessing", "pixels", "__len__"
)  # fmt: skip
