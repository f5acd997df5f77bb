"""The images of a torch DataLoader, whose order, batch size and workers do not matter here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from edgevit.data.given import GivenImage, is_tensor, understood
from edgevit.data.images import Preprocessing
from edgevit.errors import InputError

MAX_HELD_BYTES = 4 * 2**30
"""Of pixels from a DataLoader that can be read from its beginning only."""
# By name: subclasses pick other images.
_PLAIN_SAMPLERS = ("SequentialSampler", "RandomSampler")


def is_loader(value: Any) -> bool:
    """Whether it is a DataLoader; where nothing has imported torch, nothing is."""
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(value, data.DataLoader)


def first_image(loader: Any) -> Any:
    """The first image that the loader yields. Raises InputError when there is none."""
    for batch in loader:
        for image, _ in _pairs(batch):
            return image
    raise InputError("the DataLoader yields no images")


def items_of(loader: Any, rules: Preprocessing) -> Any:
    """(image, class) by index: the loader's dataset, where the loader gives all of it as it is.

    Otherwise (a sampler or collate_fn of its own, an IterableDataset) what it yields in one pass,
    held in memory. Raises InputError when that is over 4 GiB, and for a DistributedSampler.
    """
    from torch.utils.data import DistributedSampler, IterableDataset, default_collate

    dataset, sampler = loader.dataset, loader.sampler
    if isinstance(sampler, DistributedSampler):
        raise InputError(
            "the DataLoader has a DistributedSampler, but edgevit divides the images among the "
            "processes by itself: give it a DataLoader of all of them"
        )
    plain = (
        not isinstance(dataset, IterableDataset)
        and type(sampler).__name__ in _PLAIN_SAMPLERS
        and not getattr(sampler, "replacement", False)
        and len(sampler) == len(dataset)
        and type(loader.batch_sampler).__name__ in ("BatchSampler", "NoneType")
        and (loader.collate_fn is default_collate or loader.batch_sampler is None)
    )
    return dataset if plain else list(_read_through(loader, rules))


def _read_through(loader: Any, rules: Preprocessing) -> Iterator[tuple[GivenImage, Any]]:
    held_bytes = 0
    for batch in loader:
        for image, label in _pairs(batch):
            given = understood(image, rules)
            pixels = given.cropped if given.picture is None else given.picture
            held_bytes += 0 if pixels is None else pixels.nbytes
            if held_bytes > MAX_HELD_BYTES:
                raise InputError(
                    f"the DataLoader yields over {MAX_HELD_BYTES >> 30} GiB of images, and they "
                    "can be read from its beginning only: use edgevit.ImageFolder, or a DataLoader "
                    "over a map-style Dataset without a sampler or collate_fn of its own"
                )
            yield given, label


def _pairs(batch: Any) -> Iterator[tuple[Any, Any]]:
    """The (image, class) pairs of what a loader yields: a batch, or one pair without batching."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        images, labels = batch
        if not isinstance(images, tuple | list) and not (is_tensor(images) and images.ndim == 4):
            yield images, labels
            return
        if len(images) == len(labels):
            yield from zip(images, labels)
            return
    raise InputError(
        f"the DataLoader yields {type(batch).__name__}, expected (images, classes), as many of each"
    )
