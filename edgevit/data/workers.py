"""Processes that decode and augment images for this one: torch's DataLoader with clean workers.

They are started by a fork server, which has no threads and no CUDA context that a fork would break,
and which never imports the caller's `__main__`: a script needs no guard. What a worker gets of a
set of files is a batch's places, so the index of a million images is held once. A worker leaves
Ctrl-C to its parent, and ends when its parent does, however that ends.
"""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import types
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from edgevit.data.images import Preprocessing
from edgevit.data.reading import Files, Place
from edgevit.data.source import ImageFolder, ImageSource
from edgevit.errors import EdgevitError

AUTO_PIXELS = 2**28
"""Of all images of a set, from which on workers are started without being asked for."""
MAX_SOURCE_BYTES = 2**28
"""Of a source that is sent to every worker."""
MAX_AHEAD_BYTES = 2**30
"""Of the batches that wait to be used."""

log = logging.getLogger(__name__)

W = TypeVar("W")


class WorkerLost(EdgevitError):
    """A data worker ended before its work; of nobody's bad input."""


class Reader(Protocol):
    """Makes crops, in a worker; it is sent there once."""

    def crops(self, items: Sequence[Any]) -> np.ndarray:
        """uint8 (N, H, W, C) of what `items_of` made of the indices."""
        ...


@dataclass(frozen=True)
class FileReader:
    """Of a set of files: an item is a `Place`."""

    files: Files
    rules: Preprocessing

    def crops(self, items: Sequence[Place]) -> np.ndarray:
        """uint8 (N, H, W, C). Raises InputError naming an unusable image."""
        return np.stack([self.files.crop(place, self.rules) for place in items])


@dataclass(frozen=True)
class SourceReader:
    """Of any other source: an item is an index."""

    source: ImageSource

    def crops(self, items: Sequence[int]) -> np.ndarray:
        """uint8 (N, H, W, C). Raises what the source raises."""
        return self.source.pixels(items)


def workers_for(source: ImageSource, wanted: int | None) -> int:
    """How many workers decode for this process; None: the cores, where the set is large."""
    if wanted is not None:
        return wanted
    height, width, _ = source.preprocessing.pixel_shape
    if len(source) * height * width < AUTO_PIXELS:
        return 0
    return own_cores()


def own_cores() -> int:
    """This process's part of the cores that it may use, which torchrun's share."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def reader_of(source: ImageSource) -> Reader | None:
    """What workers read the source with; None, and a line says why, where they cannot."""
    if type(source) is ImageFolder:
        return FileReader(source.images.files, source.preprocessing)
    reader = SourceReader(source)
    known = _REASONS.get(id(source))
    if known is None or known[0]() is not source:
        known = weakref.ref(source), _cannot_be_sent(reader)
        _REASONS[id(source)] = known
        if known[1]:
            log.info("%s is read in this process: %s", source.title, known[1])
    return None if known[1] else reader


_REASONS: dict[int, tuple[weakref.ref[Any], str]] = {}
"""By the id of a source: why it cannot be sent; asked, and said, once."""


def items_of(source: ImageSource, indices: Sequence[int]) -> list[Any]:
    """What the source's reader is asked for."""
    if type(source) is ImageFolder:
        return [source.images.place_of(i) for i in indices]
    return list(indices)


def _cannot_be_sent(reader: Reader) -> str:
    """Why no other process can have it; empty where it can."""
    sink = _Counted()
    try:
        with _no_main():
            pickle.Pickler(sink, pickle.HIGHEST_PROTOCOL).dump(reader)
    except _TooLarge:
        return f"it holds over {MAX_SOURCE_BYTES >> 20} MiB, which every worker would copy"
    except Exception as error:  # whatever the user's own classes raise
        return f"it cannot be sent to another ({type(error).__name__}: {error})"
    return ""


class _TooLarge(Exception):
    pass


class _Counted(io.RawIOBase):
    """Takes bytes up to a limit and keeps none."""

    count = 0

    def write(self, data: Any) -> int:
        self.count += len(data)
        if self.count > MAX_SOURCE_BYTES:
            raise _TooLarge
        return len(data)


@dataclass(frozen=True)
class _Refused:
    """An error that a worker met, on its way to the one who asked."""

    error: EdgevitError


class _Remote(Dataset[Any]):
    """In a worker: `work` applied to what was asked."""

    def __init__(self, work: Callable[[Any], Any], shared: bool) -> None:
        self.work, self.shared = work, shared

    def __getitem__(self, index: Any) -> Any:
        try:
            found = self.work(index)
        except EdgevitError as error:
            return _Refused(error)
        if self.shared or not isinstance(found, torch.Tensor):
            return found
        return found.numpy()


class _Asked(Sampler[Any]):
    def __init__(self, items: Iterator[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return self.items


def worked(
    work: Callable[[Any], Any],
    asked: Iterable[tuple[W, Any]],
    workers: int,
    batch_bytes: int,
    pin: bool = False,
) -> Iterator[tuple[W, Any]]:
    """Yield (note, work(item)) of each (note, item) in order; the notes stay in this process.

    work         what the workers do; it and the items are pickled
    batch_bytes  of a result at most, to bound those that wait
    pin          put tensors into memory that a GPU copies from while it computes
    Raises the EdgevitError of the first item that met one; WorkerLost when a worker ended.
    """
    notes: deque[W] = deque()

    def items() -> Iterator[Any]:
        for note, item in asked:
            notes.append(note)
            yield item

    ahead = max(1, min(2, MAX_AHEAD_BYTES // max(1, workers * batch_bytes)))
    shared = _fits_shared_memory((workers * ahead + 2) * batch_bytes)
    iterator = _iterator(
        DataLoader[Any],
        dataset=_Remote(work, shared),
        batch_size=None,
        sampler=_Asked(items()),
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_begin,
        multiprocessing_context=_CleanContext(),
        prefetch_factor=ahead,
        pin_memory=pin,
        generator=torch.Generator(),  # the caller's random state stays
    )
    try:
        with losses_named(workers):
            for found in iterator:
                if isinstance(found, _Refused):
                    raise found.error
                is_array = isinstance(found, np.ndarray)
                yield notes.popleft(), torch.from_numpy(found) if is_array else found
    finally:
        # Its workers end with it, now and not when memory is tidied.
        iterator._shutdown_workers()


@contextlib.contextmanager
def losses_named(workers: int) -> Iterator[None]:
    """Turn what torch raises for a worker that ended into WorkerLost."""
    try:
        yield
    except (RuntimeError, EOFError, ConnectionError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise WorkerLost(
            "a process that decodes images was ended from outside, most often for lack of memory "
            f"({error}); use fewer of them: --workers {max(0, workers // 2)}"
        ) from error


def _iterator(make: Callable[..., Iterable[Any]], **given: Any) -> Any:
    """A loader's iterator, without its advice on the number of workers, which the user chose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        return iter(make(**given))


def _as_it_is(found: Any) -> Any:
    return found


def _fits_shared_memory(size_bytes: int) -> bool:
    """Whether results may go through /dev/shm, which is small in many containers."""
    try:
        found = os.statvfs("/dev/shm")
    except OSError:
        return False
    return size_bytes <= found.f_bavail * found.f_frsize // 2


def _begin(_: int) -> None:
    """At the start of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


class _CleanProcess(ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        # The server is started by the first process, with what all of them need.
        forkserver.set_forkserver_preload([__name__, "PIL.Image"])
        with _no_main(), _no_interrupts():
            return ForkServerProcess._Popen(process_obj)


class _CleanContext(ForkServerContext):
    Process = _CleanProcess


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Hide `__main__`, so that no worker imports it, and nothing of it can be pickled."""
    own = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = own


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Block Ctrl-C here and in what is started meanwhile; one that comes is served afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
