"""Image batches for calibration, evaluation and fine-tuning; deterministic by seed and step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgevit.data.distributed import Group
from edgevit.data.source import ImageSource
from edgevit.progress import Progress

PREFETCH = 3


def batch_of(source: ImageSource, indices: Sequence[int]) -> Tensor:
    """The network's input: float32 (N, 3, H, W), channels-last in memory, which kernels prefer."""
    return channels_last(source.preprocessing.normalise(source.pixels(indices)))


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def weights_channels_last(net: nn.Module) -> nn.Module:
    """The net itself, its weights laid out for `channels_last` images."""
    return net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # not in stubs


def split(count: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Two disjoint, sorted index lists: the rest, and `fraction` of them, drawn by seed."""
    order = np.random.default_rng([seed, 0]).permutation(count)
    held = max(1, round(count * fraction)) if fraction > 0 else 0
    return sorted(order[held:].tolist()), sorted(order[:held].tolist())


def draw(indices: Sequence[int], count: int, seed: int) -> list[int]:
    """Up to `count` of the indices, by seed."""
    order = np.random.default_rng([seed, 1]).permutation(len(indices))[:count]
    return [indices[i] for i in order]


def training_batch(indices: Sequence[int], step: int, size: int, seed: int) -> list[int]:
    """The image indices of a step: epochs are permutations by (seed, epoch), laid end to end."""
    chosen = []
    for position in range(step * size, (step + 1) * size):
        epoch, place = divmod(position, len(indices))
        chosen.append(indices[_permutation(len(indices), seed, epoch)[place]])
    return chosen


_LAST: dict[tuple[int, int], np.ndarray] = {}


def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    # Kept for the current epoch only: drawing it anew for each image would be quadratic.
    key = (seed, epoch)
    if key not in _LAST or len(_LAST[key]) != count:
        _LAST.clear()
        _LAST[key] = np.random.default_rng([seed, 2, epoch]).permutation(count)
    return _LAST[key]


def augment(pixels: np.ndarray, kind: str, seed: int, step: int) -> np.ndarray:
    """Random flips ("flip": left-right; "dihedral": all eight symmetries of the square)."""
    if kind == "none":
        return pixels
    choices = np.random.default_rng([seed, 3, step]).integers(8, size=len(pixels))
    result = np.empty_like(pixels)
    for i, (image, choice) in enumerate(zip(pixels, choices, strict=True)):
        if kind == "dihedral":
            image = np.rot90(image, choice // 2)
        result[i] = image[:, ::-1] if choice % 2 else image
    return result


def prefetched(make: Callable[[int], tuple], steps: range) -> Iterator[tuple]:
    """Yield make(step) in order, prepared ahead in a thread: decoding overlaps with training."""
    with ThreadPoolExecutor(1) as pool:
        pending = []
        upcoming = iter(steps)
        try:
            for step in upcoming:
                pending.append(pool.submit(make, step))
                if len(pending) > PREFETCH:
                    yield pending.pop(0).result()
            while pending:
                yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()


@torch.no_grad()
def outputs_of(
    net: Callable[[Tensor], Any],
    kept: Callable[[Any], Tensor],
    source: ImageSource,
    indices: Sequence[int],
    group: Group,
    title: str,
    batch_size: int = 128,
) -> Tensor:
    """What is kept of a net's outputs (see `Task.kept`), float32 (len(indices), K) on the CPU.

    All processes compute it together.
    """
    mine = group.share(list(indices))
    rows = []
    with Progress(title, len(mine), "images") as progress:
        for start in range(0, len(mine), batch_size):
            chunk = mine[start : start + batch_size]
            outputs = net(batch_of(source, chunk).to(group.device))
            rows.append(kept(outputs).float().cpu())
            progress.update(start + len(chunk))
    return group.gather_rows(torch.cat(rows), len(indices))
