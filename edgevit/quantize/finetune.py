"""Quantization-aware fine-tuning under distillation: deterministic, resumable, distributed."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from edgevit.data.batches import outputs_of, training_batches
from edgevit.data.distributed import Group
from edgevit.data.workers import WorkerLost
from edgevit.errors import GateFailed, InputError, Interrupted
from edgevit.progress import Progress
from edgevit.quantize.distill import Teacher
from edgevit.quantize.net import QuantizedNet
from edgevit.quantize.options import QuantizeOptions
from edgevit.quantize.parts import Parts
from edgevit.quantize.step import Precision, TrainingStep
from edgevit.runs.folder import CURVES
from edgevit.runs.interruption import Stop
from edgevit.runs.recording import Recorder
from edgevit.runs.snapshot import (
    laid_out,
    optimizer_tensors,
    part,
    read_snapshot,
    restore_optimizer,
    write_snapshot,
)
from edgevit.tasks import LossWeights, Task

T = TypeVar("T")

_STOP = 2
"""What processes tell each other at the end of a step: 0 go on, 1 save, 2 save and stop."""


@dataclass
class History:
    """What happened so far; goes into the snapshot and, at the end, into the program's metrics."""

    step: int = 0
    best_step: int = -1
    best_loss: float | None = None
    evaluations: list[dict[str, float]] = field(default_factory=list)


class FineTuner:
    """Trains a QuantizedNet against a teacher and keeps the best state after the snapping."""

    def __init__(
        self,
        net: QuantizedNet,
        teacher: Teacher,
        task: Task,
        parts: Parts,
        options: QuantizeOptions,
        group: Group,
        snapshot: Path,
        snapshot_interval_s: float = 60.0,
        tensorboard: Path | None = None,
        precision: Precision = "tf32",
    ) -> None:
        self.net, self.teacher, self.task, self.parts = net, teacher, task, parts
        self.source = parts.images
        self.options, self.group = options, group
        self.snapshot, self.snapshot_interval_s = snapshot, snapshot_interval_s
        self.tensorboard = tensorboard
        self.recorder: Recorder | None = None
        self.saved_step: int | None = None
        self.weights = LossWeights(
            options.temperature, options.teacher_weight, options.label_weight
        )
        self.steps = options.steps(len(parts.train))
        self.snap_step = options.snap_step(self.steps)
        self.history = History()
        self.parameters = dict(net.named_parameters())
        self.ema: dict[str, Tensor] = {}
        self.best: dict[str, Tensor] = {}
        self.optimizer = self._optimizer()
        self.step = TrainingStep(
            self._gradients, self._reduce, self._update, self._forget, group.device, precision
        )
        # Reading a loss waits for the device; what is NaN once stays it.
        self.look_every = 1 if group.device.type == "cpu" else 10
        self._holdout_teacher: Tensor | None = None

    def run(self) -> History:
        """Train to the end, from the snapshot if one is there, and load the best state.

        Raises GateFailed where the loss is no number any more, InputError where the state cannot be
        saved, Interrupted behind a Ctrl-C; the last good state is kept then.
        """
        self._resume()
        if self.group.is_main:
            curves = self.snapshot.with_name(CURVES)
            self.recorder = Recorder(curves, self.tensorboard, self.history.step)
        try:
            with Stop() as stop:
                return self._run(stop)
        finally:
            if self.recorder is not None:
                self.recorder.close()

    def _run(self, stop: Stop) -> History:
        first = self.history.step
        evaluate_at = self._evaluation_steps()
        saved_s = time.monotonic()
        seen = self.options.batch_size
        title = "fine-tune"
        with (
            Progress(title, self.steps * seen, "images", first * seen) as progress,
            closing(self._batches(range(first, self.steps))) as batches,
        ):
            for step, batch in zip(range(first, self.steps), self._guarded(batches)):
                if step == self.snap_step:
                    self._snap()
                self._set_rate(step)
                loss = self.step(*batch)
                self.history.step = step + 1
                note = ""
                if step % self.look_every == 0 or step + 1 in evaluate_at:
                    note = f"loss {self._finite(loss):.4f}"
                progress.update((step + 1) * seen, note if step % 10 == 0 else "")
                if self.recorder is not None:
                    self.recorder.step(step + 1, loss, self._rates(step), seen)
                if step + 1 in evaluate_at:
                    self._evaluate()
                due = time.monotonic() - saved_s > self.snapshot_interval_s
                asked = _STOP if stop.asked else int(due or step + 1 in evaluate_at)
                if (asked := self.group.same(asked)) != 0:
                    self._finite(loss)
                    self._save()
                    saved_s = time.monotonic()
                if asked == _STOP:
                    self._stop()
        if not self.best:  # a run so short, or snapped so late, that no state was evaluated
            if self.history.step == self.snap_step:
                self._snap()
            self._evaluate()
            self._save()
        self.net.load_state_dict(self.best)
        return self.history

    def _stop(self) -> None:
        """Raises Interrupted; the state has been saved."""
        raise Interrupted(
            f"interrupted after {self.history.step} of {self.steps} steps, and saved: the same "
            "command goes on from there"
        )

    def _evaluation_steps(self) -> set[int]:
        # Only states with snapped scales can be chosen, so only those are worth evaluating.
        last = self.steps - self.snap_step
        count = min(self.options.evaluations, last)
        # None where no step is trained with them: `run` snaps and evaluates at the end.
        return {self.snap_step + round(last * (i + 1) / count) for i in range(count)}

    def _optimizer(self) -> torch.optim.AdamW:
        scales = ("log_scale", "weight_log_scale", "zero_point")
        weights = [p for n, p in self.parameters.items() if n not in scales]
        on_cpu = self.group.device.type == "cpu"

        def rate() -> Tensor | float:
            return 0.0 if on_cpu else torch.zeros((), device=self.group.device)

        return torch.optim.AdamW(
            [
                {"params": weights, "lr": rate(), "peak": self.options.lr},
                {
                    "params": [self.parameters["log_scale"], self.parameters["weight_log_scale"]],
                    "lr": rate(),
                    "peak": self.options.scale_lr,
                    "weight_decay": 0.0,
                },
                # In steps of the grid: a few hundred steps of training may move it by a few.
                {
                    "params": [self.parameters["zero_point"]],
                    "lr": rate(),
                    "peak": 20 * self.options.scale_lr,
                    "weight_decay": 0.0,
                },
            ],
            weight_decay=self.options.weight_decay,
            fused=True,
            capturable=not on_cpu,
        )

    def _batches(self, steps: range) -> Generator[tuple[Tensor, Tensor]]:
        o = self.options
        return training_batches(
            self.source, self.parts.train, steps, o.batch_size, o.seed, o.augment, self.group
        )

    def _guarded(self, batches: Iterator[T]) -> Iterator[T]:
        """The same; where a worker is lost, the state is saved first."""
        try:
            yield from batches
        except WorkerLost as error:
            self._require_finite_weights()
            if self.group.is_main:
                self._write_state()
            step = self.history.step
            raise WorkerLost(
                f"{error}; the same command goes on after step {step} of {self.steps}"
            ) from error

    def _rate(self, step: int) -> float:
        warmup = max(1, round(self.options.warmup * self.steps))
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup)))

    def _rates(self, step: int) -> dict[str, float]:
        """The learning rates of a step, by column of metrics.csv."""
        rate = self._rate(step)
        return {"lr": self.options.lr * rate, "scale_lr": self.options.scale_lr * rate}

    def _set_rate(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            rate = group["peak"] * self._rate(step)
            if isinstance(group["lr"], Tensor):  # a captured step reads it where it lies
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _gradients(self, images: Tensor, labels: Tensor, share: float) -> Tensor:
        """Add the gradients of the images' mean loss, which counts for `share` of this process's.

        Each process's mean counts by its share of the batch. Nothing here may wait for the device.
        """
        self.net.train()
        with torch.no_grad():
            wanted = self.teacher(images)
        loss = self.task.loss(self.net(images), wanted, labels, self.weights)
        mine = self.group.share_size(self.options.batch_size) / self.options.batch_size
        (loss * (mine * share)).backward()
        if not self.net.zero_point_trained:
            self.parameters["zero_point"].grad = None
        return loss.detach()

    def _reduce(self) -> None:
        self.group.sum_(p.grad for p in self.parameters.values() if p.grad is not None)

    def _update(self) -> None:
        self.optimizer.step()
        self.net.bound_zero_points()
        self._update_ema()

    def _forget(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def _finite(self, loss: Tensor) -> float:
        found = float(loss)
        self._require_finite(found)
        return found

    def _require_finite(self, loss: float) -> None:
        """Raises GateFailed for NaN or infinity: no later step makes a number of it."""
        if not math.isfinite(loss):
            raise GateFailed(
                f"the fine-tuning diverged: after {self.history.step} steps its loss is {loss}; "
                f"use a smaller --lr or --scale-lr, or a larger --temperature; {self._kept()}"
            )

    def _require_finite_weights(self) -> None:
        sums = [tensor.detach().sum() for tensor in self.parameters.values()]
        self._require_finite(float(torch.stack(sums).sum()))

    def _kept(self) -> str:
        """What is on disk of the run, for a message that ends it."""
        if self.saved_step is None:
            return "no state had been saved"
        return f"the last good state, of step {self.saved_step}, is kept"

    def _snap(self) -> None:
        self._require_finite(float(self.parameters["log_scale"].detach().sum()))
        self._require_finite(float(self.parameters["weight_log_scale"].detach().sum()))
        self.net.snap()
        # The average belongs to other scales now.
        self.ema = {}
        self.step.changed()

    def _update_ema(self) -> None:
        if not self.options.ema:
            return
        if not self.ema:
            self.ema = {n: p.detach().clone() for n, p in self.parameters.items()}
            return
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]  # it has no public name
            list(self.ema.values()),
            [p.detach() for p in self.parameters.values()],
            1.0 - self.options.ema,
        )

    @torch.no_grad()
    def _evaluate(self) -> None:
        if self.group.size > 1:
            self.group.require_same(checksum(self.net.state_dict()), "the weights and scales")
        live = {n: p.detach().clone() for n, p in self.parameters.items()} if self.ema else {}
        for name, average in self.ema.items():
            if name not in ("log_scale", "weight_log_scale", "zero_point"):
                self.parameters[name].copy_(average)
        self.net.eval()
        labels = torch.from_numpy(self.source.labels[self.parts.holdout])
        if self._holdout_teacher is None:
            self._holdout_teacher = self._outputs(self.teacher, "teacher on hold-out")
        found = self._outputs(self.net, "evaluate on hold-out")
        figures = self.task.selection(found, self._holdout_teacher, labels, self.weights)
        self.history.evaluations.append({"step": self.history.step, **figures})
        if self.recorder is not None:
            self.recorder.evaluation(self.history.step, figures)
        loss, best = figures["holdout_loss"], self.history.best_loss
        self._require_finite(loss)
        if best is None or loss < best:
            self.history.best_loss, self.history.best_step = loss, self.history.step
            self.best = {n: t.detach().clone() for n, t in self.net.state_dict().items()}
        for name, value in live.items():
            self.parameters[name].copy_(value)

    def _outputs(self, net: Teacher, title: str) -> Tensor:
        return outputs_of(net, self.task.kept, self.source, self.parts.holdout, self.group, title)

    def _save(self) -> None:
        """Raises GateFailed, and keeps what is on disk, where a weight is no number any more."""
        self._require_finite_weights()
        if self.group.is_main:
            try:
                self._write_state()
                self.saved_step = self.history.step
                if self.recorder is not None:
                    self.recorder.save()
            except InputError as error:  # a full disk, most of the time
                raise InputError(
                    f"the state of step {self.history.step} was not saved: {error}; "
                    f"{self._kept()}: make room, and the same command goes on"
                ) from error
        self.group.wait()

    def _write_state(self) -> None:
        tensors = {f"net.{n}": t for n, t in self.net.state_dict().items()}
        tensors |= {f"ema.{n}": t for n, t in self.ema.items()}
        tensors |= {f"best.{n}": t for n, t in self.best.items()}
        tensors |= optimizer_tensors(self.optimizer, "adam.")
        write_snapshot(self.snapshot, tensors, vars(self.history))

    def _resume(self) -> None:
        if not self.snapshot.exists():
            return
        tensors, state = read_snapshot(self.snapshot)
        self.history = History(**state)
        self.saved_step = self.history.step

        self.net.load_state_dict(part(tensors, "net."))
        ema, self.best = part(tensors, "ema."), part(tensors, "best.")
        # In the parameters' order, which the averaging relies on; a file keeps none.
        self.ema = {n: laid_out(ema[n], p) for n, p in self.parameters.items() if n in ema}
        restore_optimizer(self.optimizer, part(tensors, "adam."))


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of named tensors' values."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode() + b"\0")
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
