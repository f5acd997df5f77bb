"""Image batches for calibration, evaluation and fine-tuning; deterministic by seed and step."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from edgevit.data.distributed import Group
from edgevit.data.images import Preprocessing
from edgevit.data.source import ImageSource, PixelCache
from edgevit.data.workers import Reader, items_of, reader_of, worked, workers_for
from edgevit.progress import Progress

PREFETCH = 3

T = TypeVar("T")


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
    return turned(pixels, kind, symmetries(kind, seed, step, len(pixels)))


def symmetries(kind: str, seed: int, step: int, count: int) -> np.ndarray:
    """Of a step's images, 0 to 7 each: what `turned` does to them."""
    if kind == "none":
        return np.zeros(count, np.int64)
    return np.random.default_rng([seed, 3, step]).integers(8, size=count)


def turned(pixels: np.ndarray, kind: str, choices: np.ndarray) -> np.ndarray:
    """Each image (N, H, W, C) turned as its choice says; see `augment`."""
    if kind == "none":
        return pixels
    result = np.empty_like(pixels)
    for i, (image, choice) in enumerate(zip(pixels, choices, strict=True)):
        if kind == "dihedral":
            image = np.rot90(image, choice // 2)
        result[i] = image[:, ::-1] if choice % 2 else image
    return result


@dataclass(frozen=True)
class Request:
    """A batch to prepare: its images, and what `turned` does to each; None: nothing."""

    indices: list[int]
    choices: np.ndarray | None = None


@dataclass(frozen=True)
class Finish:
    """From crops to what is sent to the device.

    kind      of `augment`
    as_bytes  leave 8 bits a value, for a device that looks them up itself
    """

    kind: str
    rules: Preprocessing
    as_bytes: bool

    def __call__(self, crops: np.ndarray, choices: np.ndarray | None) -> Tensor:
        """float32 (N, C, H, W) in channels-last, or uint8 (N, H, W, C)."""
        pixels = crops if choices is None else turned(crops, self.kind, choices)
        if self.as_bytes:
            return torch.from_numpy(np.ascontiguousarray(pixels))
        return channels_last(self.rules.normalise(pixels))


@dataclass(frozen=True)
class _Work:
    """What a worker does for a batch; without `finish` its crops go back as they are."""

    reader: Reader
    finish: Finish | None

    def __call__(self, asked: tuple[list[Any], np.ndarray | None]) -> Tensor:
        items, choices = asked
        if not items:
            return torch.empty(0, dtype=torch.uint8)
        crops = self.reader.crops(items)
        return torch.from_numpy(crops) if self.finish is None else self.finish(crops, choices)


def prepared(
    source: ImageSource, requests: Iterable[Request], group: Group, kind: str = "none"
) -> Generator[Tensor]:
    """Yield the network's input for each request in order, on the group's device.

    float32 (N, C, H, W) in channels-last. Decoded ahead, in `group.workers` processes, or in a
    thread of this one; the values are the same. Raises InputError naming an unusable image.
    """
    rules = source.preprocessing
    finish = Finish(kind, rules, group.device.type == "cuda")
    workers = workers_for(source, group.workers)
    reader = reader_of(source) if workers else None
    if reader is None:
        made = (finish(source.pixels(r.indices), r.choices) for r in requests)
    else:
        made = _by_workers(source, reader, requests, workers, finish)
    with closing(ahead(made)) as batches:
        for batch in batches:
            yield on_device(batch, rules, group.device)


def _by_workers(
    source: ImageSource, reader: Reader, requests: Iterable[Request], workers: int, finish: Finish
) -> Generator[Tensor]:
    """Where crops are kept in this process, workers read only those that are not here yet."""
    cache = getattr(source, "cache", None)
    if not isinstance(cache, PixelCache) or not cache.keeps:
        cache = None

    def asked() -> Iterator[tuple[tuple[Request, list[int]], Any]]:
        for request in requests:
            wanted = request.indices if cache is None else cache.missing(request.indices)
            choices = request.choices if cache is None else None
            yield (request, wanted), (items_of(source, wanted), choices)

    requests = iter(requests)
    first = next(requests, None)
    if first is None:
        return
    requests = chain([first], requests)
    pixels = math.prod(source.preprocessing.pixel_shape) * len(first.indices)
    size_bytes = pixels if cache is not None or finish.as_bytes else 4 * pixels
    work = _Work(reader, finish if cache is None else None)
    pin = finish.as_bytes and cache is None
    for (request, wanted), found in worked(work, asked(), workers, size_bytes, pin):
        if cache is None:
            yield found
            continue
        if wanted:
            cache.put(wanted, found.numpy().copy())  # out of shared memory
        yield finish(source.pixels(request.indices), request.choices)


def on_device(batch: Tensor, rules: Preprocessing, device: torch.device) -> Tensor:
    """The input that a batch of `Finish` is, there; bytes are looked up in `rules.table()`."""
    batch = batch.to(device, non_blocking=True)
    if batch.dtype != torch.uint8:
        return batch
    table = torch.from_numpy(rules.table()).to(device)
    planes = [table[c][batch[..., c].long()] for c in range(batch.shape[-1])]
    return torch.stack(planes, dim=-1).permute(0, 3, 1, 2)


def ahead(items: Iterator[T]) -> Generator[T]:
    """The same items, `PREFETCH` of them made ahead in a thread: making overlaps with using."""
    done = object()
    with ThreadPoolExecutor(1) as pool:
        pending: deque[Future[Any]] = deque()
        try:
            while True:
                while len(pending) < PREFETCH:
                    pending.append(pool.submit(next, items, done))
                found = pending.popleft().result()
                if found is done:
                    return
                yield found
        finally:
            for future in pending:
                future.cancel()
            if isinstance(items, Generator):
                pool.submit(items.close).result()


def training_batches(
    source: ImageSource,
    train: Sequence[int],
    steps: range,
    size: int,
    seed: int,
    kind: str,
    group: Group,
) -> Generator[tuple[Tensor, Tensor]]:
    """Yield this process's share of each step's batch: images as `prepared`, int64 labels (N,)."""
    shares: deque[list[int]] = deque()

    def requests() -> Iterator[Request]:
        for step in steps:
            indices = training_batch(train, step, size, seed)
            choices = symmetries(kind, seed, step, len(indices))
            mine = group.share(list(range(len(indices))))
            shares.append([indices[i] for i in mine])
            yield Request(shares[-1], choices[mine])

    with closing(prepared(source, requests(), group, kind)) as batches:
        for images in batches:
            labels = torch.from_numpy(source.labels[shares.popleft()])
            yield images, labels.to(group.device)


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
    indices = list(indices)
    chunks = [indices[at : at + batch_size] for at in range(0, len(indices), batch_size)]
    # Whole batches: what a net gives for an image may depend, in its last bit, on those beside it.
    mine = group.share(chunks)
    rows, done = [], 0
    with (
        Progress(title, sum(map(len, mine)), "images") as progress,
        closing(prepared(source, map(Request, mine), group)) as batches,
    ):
        for chunk, images in zip(mine, batches):
            rows.append(kept(net(images)).float().cpu())
            done += len(chunk)
            progress.update(done)
    return group.gather_batches(rows, list(map(len, chunks)))
