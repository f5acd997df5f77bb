"""One process or many: torchrun sets the environment, one process is the special case."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from edgevit.device import chosen_device
from edgevit.errors import EdgevitError

T = TypeVar("T")


class Group:
    """The processes that work together: this one's rank, their number, sums over all of them.

    workers     processes that decode images for this one; None: as many as suit the set
    """

    def __init__(self, device: str = "cpu", workers: int | None = None) -> None:
        """Join the group that torchrun describes (RANK, WORLD_SIZE), if any."""
        self.workers = workers
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.device = chosen_device(device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.size > 1 and not dist.is_initialized():
            # One process calibrates and evaluates while the others wait, for hours on big sets.
            # What is gathered lies on the CPU, whatever the device.
            both = "cpu:gloo,cuda:nccl"
            dist.init_process_group(
                both if self.device.type == "cuda" else "gloo", timeout=timedelta(days=1)
            )
            atexit.register(_leave)  # or the group's threads may abort the process at its end

    @classmethod
    def alone(cls, device: torch.device | str = "cpu", *, workers: int | None = None) -> Group:
        """A group of this process only, for what one process does while the others wait."""
        group = cls.__new__(cls)
        group.size, group.rank, group.device = 1, 0, torch.device(device)
        group.workers = workers
        return group

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def share(self, items: list[T]) -> list[T]:
        """This process's part: every size-th item, so that parts differ by one at most."""
        return items[self.rank :: self.size]

    def share_size(self, count: int) -> int:
        """How many of `count` items are this process's."""
        return len(range(self.rank, count, self.size))

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        tensors = list(tensors)
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([t.flatten() for t in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def gather_batches(self, rows: list[Tensor], lengths: list[int]) -> Tensor:
        """(sum of `lengths`, ...) in the original order, in every process, on the CPU.

        rows      what this process made of its `share` of the batches, on the CPU
        lengths   rows of every batch of all processes
        """
        if self.size == 1:
            return torch.cat(rows)
        # One process may have none, where the batches are few; the main one has the first.
        shape = self.same_object(lambda: tuple(rows[0].shape[1:]))
        full = torch.zeros(sum(lengths), *shape)
        places = full.split(lengths)
        for place, found in zip(places[self.rank :: self.size], rows, strict=True):
            place.copy_(found)
        dist.all_reduce(full)
        return full

    def require_same(self, found: str, what: str) -> None:
        """Raises EdgevitError in every process where they do not all have the same text.

        found   such as a checksum
        what    it is of, for the message
        """
        if self.size == 1:
            return
        every: list[Any] = [None] * self.size
        dist.all_gather_object(every, found)
        others = [str(rank) for rank, each in enumerate(every) if each != every[0]]
        if others:
            raise EdgevitError(
                f"{what} of process {', '.join(others)} differ from those of process 0: the "
                "processes no longer train one net (another torch, other hardware, a fault of "
                "memory); the same command goes on from the last saved state"
            )

    def same(self, value: int) -> int:
        """The main process's value, in every process."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], device=self.device)
        dist.broadcast(tensor, 0)
        return int(tensor)

    def same_object(self, make: Callable[[], T]) -> T:
        """What the main process makes, in every process; the others wait for it."""
        if self.size == 1:
            return make()
        held: list[Any] = [make() if self.is_main else None]
        dist.broadcast_object_list(held, 0)
        return held[0]

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
