"""Training images, changed at random: the same ones for any number of workers and processes."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from edgevit.data.batches import training_batch
from edgevit.data.distributed import Group
from edgevit.data.source import ImageFolder
from edgevit.errors import EdgevitError

_ATTEMPTS = 16


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """The random generators of Python, numpy and torch as these numbers give; then as before."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


class TrainingImages(Dataset[Any]):
    """By (index, step, place in the batch): float32 (3, H, W) as the transform makes it, class.

    Or the EdgevitError that the image met: torch would lose its class on the way from a worker.
    """

    def __init__(self, source: ImageFolder, change: Callable[[Any], Tensor], seed: int) -> None:
        self.source, self.change, self.seed = source, change, seed

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[Tensor, int] | EdgevitError:
        index, step, place = key
        try:
            picture = self.source.images.load_rgb(index)
        except EdgevitError as error:
            return error
        return self._changed(picture, step, place), int(self.source.labels[index])

    def _changed(self, picture: Any, step: int, place: int) -> Tensor:
        for attempt in range(_ATTEMPTS):
            with seeded(self.seed, step, place, attempt):
                try:
                    return self.change(picture)
                except ValueError:
                    # timm's RandAugment may ask for a posterize to 0 bits, which Pillow refuses
                    # since version 12: another draw takes its place.
                    if attempt == _ATTEMPTS - 1:
                        raise
        raise AssertionError("the last attempt returns or raises")


class Batches:
    """This process's share of the batches of some steps, as a DataLoader's batch sampler."""

    def __init__(
        self, indices: Sequence[int], steps: range, size: int, seed: int, group: Group
    ) -> None:
        self.indices, self.steps, self.size = indices, steps, size
        self.seed, self.group = seed, group

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        for step in self.steps:
            chosen = training_batch(self.indices, step, self.size, self.seed)
            places = self.group.share(list(range(len(chosen))))
            yield [(chosen[place], step, place) for place in places]


def loaded(
    images: TrainingImages, batches: Batches, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """float32 (n, 3, H, W) and int64 (n,) of every step, decoded in `workers` processes (0: here).

    Raises InputError naming an unusable image.
    """
    loader = DataLoader(
        images,
        batch_sampler=batches,  # pyright: ignore[reportArgumentType]  # keys are tuples
        num_workers=workers,
        collate_fn=_stacked,
        pin_memory=batches.group.device.type == "cuda",
        prefetch_factor=2 if workers else None,
        generator=torch.Generator(),  # it would draw from torch's own for nothing
        worker_init_fn=_leave_interrupts_to_the_parent,
    )
    for found in loader:
        if isinstance(found, EdgevitError):
            raise found
        yield found


def _stacked(items: list[Any]) -> Any:
    """The batch, or the first error among its images."""
    error = next((each for each in items if isinstance(each, EdgevitError)), None)
    return default_collate(items) if error is None else error


def _leave_interrupts_to_the_parent(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
