"""One process or many: torchrun sets the environment, one process is the special case."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from edgevit.device import chosen_device

T = TypeVar("T")


class Group:
    """The processes that work together: this one's rank, their number, sums over all of them."""

    def __init__(self, device: str = "cpu") -> None:
        """Join the group that torchrun describes (RANK, WORLD_SIZE), if any."""
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.device = chosen_device(device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.size > 1 and not dist.is_initialized():
            # One process calibrates and evaluates while the others wait, for hours on big sets.
            dist.init_process_group(
                "nccl" if self.device.type == "cuda" else "gloo", timeout=timedelta(days=1)
            )

    @classmethod
    def alone(cls, device: torch.device | str = "cpu") -> Group:
        """A group of this process only, for what one process does while the others wait."""
        group = cls.__new__(cls)
        group.size, group.rank, group.device = 1, 0, torch.device(device)
        return group

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def share(self, items: list[int]) -> list[int]:
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

    def gather_rows(self, rows: Tensor, count: int) -> Tensor:
        """(count, ...) in the original order, from each process's `share` of the rows."""
        if self.size == 1:
            return rows
        full = rows.new_zeros((count, *rows.shape[1:]))
        full[self.rank :: self.size] = rows
        dist.all_reduce(full)
        return full

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
