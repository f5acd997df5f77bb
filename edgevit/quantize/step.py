"""One training step on the device: gradients, their sum over the processes, the update.

On a GPU the launches of a net of small layers cost more than their work, so the step is captured
once as a CUDA graph and replayed. A batch that the memory does not hold is halved.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from edgevit.choices import Precision
from edgevit.device import at_precision
from edgevit.errors import InputError

WARM_UP_STEPS = 2
"""Steps that run before one is captured: libraries choose their kernels, optimizers make states."""

log = logging.getLogger(__name__)


class Graph(Protocol):
    """The operations of a function, recorded once; replaying them writes the same tensors anew."""

    def record(self, function: Callable[[], Any]) -> Any: ...

    def replay(self) -> None: ...


class CudaGraph:
    """A CUDA graph; raises RuntimeError for an operation that waits for the device."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def record(self, function: Callable[[], Any]) -> Any:
        # Only this thread's calls are recorded: another one may pin memory meanwhile.
        stream = _side_stream()
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            return function()

    def replay(self) -> None:
        self._graph.replay()


@functools.cache
def _side_stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()


@contextlib.contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """On the stream that a step is captured on: what a backward leaves there belongs to it."""
    if device.type != "cuda":
        yield
        return
    stream = _side_stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


GRAPHS: dict[str, Callable[[], Graph]] = {"cuda": CudaGraph}
"""By type of device; a device without one runs each step operation by operation."""


class TrainingStep:
    """Runs steps; `gradients` and `update` are captured where the device can do that.

    What differs from step to step must then be a tensor that is changed in place: a Python number
    stays as it was when the step was captured. After any other change call `changed`.
    """

    def __init__(
        self,
        gradients: Callable[[Tensor, Tensor, float], Tensor],
        reduce: Callable[[], None],
        update: Callable[[], None],
        forget: Callable[[], None],
        device: torch.device,
        precision: Precision = "tf32",
    ) -> None:
        """
        gradients  (images, labels, share): adds the gradients of these images' mean loss times
                   share; returns that loss, a scalar on the device
        reduce     sums the gradients over the processes; never captured
        update     moves the parameters by the gradients
        forget     drops the gradients
        precision  of matrix products and convolutions on CUDA
        """
        self._gradients, self._reduce, self._update, self._forget = (
            gradients, reduce, update, forget,
        )  # fmt: skip
        self.device = device
        self.precision: Precision = precision
        self.pieces = 1
        self.why_not_captured: str | None = None
        self._captured: _Captured | None = None
        self._warm = 0

    @property
    def is_captured(self) -> bool:
        return self._captured is not None

    def changed(self) -> None:
        """The step does something else from here on: capture it anew."""
        self._captured, self._warm = None, 0
        # Those of a captured step stay, for a replay writes them anew.
        self._forget()

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """A step with this process's images of the batch; the mean loss of these, on the device.

        Raises InputError when the device has no memory for a single image.
        """
        with at_precision(self.precision, self.device):
            while True:
                try:
                    return self._run(images, labels)
                except torch.OutOfMemoryError as error:
                    reason = str(error).partition("\n")[0]
                # Here, where no traceback holds the step's tensors any more.
                self._halve(len(images), reason)

    def _run(self, images: Tensor, labels: Tensor) -> Tensor:
        if self._captured is None and self._may_capture():
            self._capture(images, labels)
        if self._captured is not None:
            return self._captured.step(images, labels, self._reduce)
        images = images.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        warming_up = self.device.type in GRAPHS and self.why_not_captured is None
        with _aside(self.device) if warming_up else contextlib.nullcontext():
            loss = self._in_pieces(images, labels)
            self._reduce()
            self._update_or_say()
            self._forget()
        self._warm += 1
        return loss

    def _may_capture(self) -> bool:
        return (
            self.device.type in GRAPHS
            and self._warm >= WARM_UP_STEPS
            and self.why_not_captured is None
        )

    def _capture(self, images: Tensor, labels: Tensor) -> None:
        try:
            self._captured = _Captured(
                self._in_pieces, self._update, images.to(self.device), labels.to(self.device)
            )
            return
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # What ends the capture may complain in its turn.
            if isinstance(error.__context__, torch.OutOfMemoryError):
                raise error.__context__ from None
            self.why_not_captured = str(error).strip().partition("\n")[0]
        log.warning(
            "each step runs operation by operation, which takes longer: it cannot be captured (%s)",
            self.why_not_captured,
        )
        self._forget()

    def _in_pieces(self, images: Tensor, labels: Tensor) -> Tensor:
        """The mean loss; its gradients are added up piece by piece."""
        if self.pieces == 1:
            return self._gradients(images, labels, 1.0)
        size = -(-len(images) // self.pieces)
        total = torch.zeros((), device=images.device)
        for some, theirs in zip(images.split(size), labels.split(size), strict=True):
            share = len(some) / len(images)
            total += self._gradients(some, theirs, share) * share
        return total

    def _update_or_say(self) -> None:
        try:
            self._update()
        except torch.OutOfMemoryError as error:
            raise InputError(
                "the GPU has no memory left for the optimizer's state; free some of it, or use "
                f"another GPU: {str(error).partition(chr(10))[0]}"
            ) from error

    def _halve(self, count: int, reason: str) -> None:
        self.changed()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.pieces >= count:
            raise InputError(
                f"the GPU has no memory for a training step with a single image: {reason}"
            )
        self.pieces = min(count, 2 * self.pieces)
        log.warning(
            "the GPU has no memory for %d images at once: each step now adds up the gradients of "
            "%d pieces of at most %d, which is the same within rounding (%s)",
            count, self.pieces, -(-count // self.pieces), reason,
        )  # fmt: skip


class _Captured:
    """Gradients and update as two graphs; between them the processes meet."""

    def __init__(
        self,
        gradients: Callable[[Tensor, Tensor], Tensor],
        update: Callable[[], None],
        images: Tensor,
        labels: Tensor,
    ) -> None:
        self._images, self._labels = images.clone(), labels.clone()
        self._gradients, self._update = (GRAPHS[images.device.type]() for _ in range(2))
        self._loss: Tensor = self._gradients.record(lambda: gradients(self._images, self._labels))
        self._update.record(update)

    def step(self, images: Tensor, labels: Tensor, reduce: Callable[[], None]) -> Tensor:
        if images.shape != self._images.shape:
            raise ValueError(f"captured for {self._images.shape}, called with {images.shape}")
        self._images.copy_(images, non_blocking=True)
        self._labels.copy_(labels, non_blocking=True)
        self._gradients.replay()
        reduce()
        self._update.replay()
        return self._loss
