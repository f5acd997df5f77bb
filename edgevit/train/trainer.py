"""The training loop: resumable, the same for any number of workers, on one process or several."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from edgevit.data.batches import channels_last, outputs_of
from edgevit.data.distributed import Group
from edgevit.data.source import ImageFolder
from edgevit.data.workers import losses_named, own_cores
from edgevit.errors import GateFailed, Interrupted
from edgevit.progress import Progress
from edgevit.quantize.distill import Teacher
from edgevit.runs.folder import CURVES
from edgevit.runs.interruption import Stop
from edgevit.runs.recording import Recorder
from edgevit.runs.snapshot import (
    optimizer_tensors,
    part,
    read_snapshot,
    restore_optimizer,
    write_snapshot,
)
from edgevit.tasks.classification import TASK
from edgevit.train import timm_parts
from edgevit.train.images import Batches, TrainingImages, loaded, seeded
from edgevit.train.options import TrainOptions

AMP_TYPES = {"none": None, "float16": torch.float16, "bfloat16": torch.bfloat16}
_LOSS_SHOWN_EVERY = 20
_STOP = 2
"""What processes tell each other at the end of a step: 0 go on, 1 save, 2 save and stop."""


@dataclass
class History:
    """What happened so far. `evaluations`: a step, its loss, and hold-out top-1 where measured."""

    step: int = 0
    evaluations: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Where:
    """Where and how a training runs; nothing here decides its result.

    snapshot    the file that keeps the state; metrics.csv lies beside it
    tensorboard a folder for TensorBoard's events; None: there are none
    """

    group: Group
    snapshot: Path
    snapshot_interval_s: float
    tensorboard: Path | None = None


class Trainer:
    """Trains a net on images; `average` holds the weights to be written."""

    def __init__(
        self,
        net: nn.Module,
        images: ImageFolder,
        parts: tuple[list[int], list[int]],
        options: TrainOptions,
        teacher: Teacher | None,
        where: Where,
    ) -> None:
        """
        parts   indices of the images to learn from, and of those only measured
        """
        self.net, self.images, self.options, self.teacher = net, images, options, teacher
        self.learned, self.measured = parts
        self.where, self.group = where, where.group
        workers = self.group.workers
        self.workers = own_cores() if workers is None else workers
        self.classes = len(images.classes)
        self.steps = options.steps(len(self.learned))
        self.steps_an_epoch = len(self.learned) / options.batch_size
        groups = timm_parts.parameter_groups(net, options.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=options.peak_lr)
        self.schedule = timm_parts.schedule(
            self.optimizer, options, self.steps, self.steps_an_epoch
        )
        self.ema = timm_parts.moving_average(net, options.ema) if options.ema else None
        self.mix = timm_parts.mixing(options, self.classes)
        self.amp = AMP_TYPES[options.amp]
        self.scaler = torch.amp.GradScaler(enabled=self.amp is torch.float16)
        self.history = History()
        self.recorder: Recorder | None = None

    @property
    def average(self) -> nn.Module:
        """The net of the averaged weights, or the net itself where none are averaged."""
        return self.net if self.ema is None else self.ema.module

    def run(self) -> History:
        """Train to the end, from the snapshot where there is one.

        Raises GateFailed when the loss is no number any more, InputError where the state cannot be
        saved, WorkerLost where a process that decodes ended, Interrupted behind a Ctrl-C; the last
        good state is kept then.
        """
        self._resume()
        if self.group.is_main:
            curves = self.where.snapshot.with_name(CURVES)
            self.recorder = Recorder(curves, self.where.tensorboard, self.history.step)
        try:
            # torch says that a worker ended wherever this process is, in the middle of a step too.
            with Stop() as stop, losses_named(self.workers):
                self._run(stop)
        finally:
            if self.recorder is not None:
                self.recorder.close()
        return self.history

    def _run(self, stop: Stop) -> None:
        first, size = self.history.step, self.options.batch_size
        steps = range(first, self.steps)
        change = timm_parts.transform(self.options, self.images.preprocessing)
        images = TrainingImages(self.images, change, self.options.seed)
        batches = Batches(self.learned, steps, size, self.options.seed, self.group)
        net = self._parallel()
        saved_s = time.monotonic()
        with Progress("train", self.steps * size, "images", first * size) as progress:
            for step, (pixels, labels) in zip(
                steps, loaded(images, batches, self.group.workers or 0)
            ):
                loss = self._step(net, step, pixels, labels)
                self.history.step = step + 1
                ends = self._ends_an_epoch(step)
                looked = ends or step % _LOSS_SHOWN_EVERY == 0
                note = f"loss {self._finite(loss):.4f}" if looked else ""
                progress.update((step + 1) * size, note)
                if self.recorder is not None:
                    rate = self.optimizer.param_groups[0]["lr"]
                    self.recorder.step(step + 1, loss, {"lr": rate}, size)
                if ends:
                    self._evaluate(self._finite(loss))
                due = time.monotonic() - saved_s > self.where.snapshot_interval_s
                asked = _STOP if stop.asked else int(due or step + 1 == self.steps)
                if (asked := self.group.same(asked)) != 0:
                    self._save(loss)
                    saved_s = time.monotonic()
                if asked == _STOP and step + 1 < self.steps:
                    raise Interrupted(
                        f"interrupted after {step + 1} of {self.steps} steps, and saved: the same "
                        "command goes on from there"
                    )

    def _ends_an_epoch(self, step: int) -> bool:
        done, before = ((step + at) / self.steps_an_epoch for at in (1, 0))
        return step + 1 == self.steps or math.floor(done) > math.floor(before)

    def _parallel(self) -> Callable[[Tensor], Any]:
        if self.group.size == 1:
            return self.net
        ids = [self.group.device.index] if self.group.device.type == "cuda" else None
        return DistributedDataParallel(self.net, device_ids=ids)

    def _step(self, net: Callable[[Tensor], Any], step: int, x: Tensor, labels: Tensor) -> Tensor:
        """One step; the loss of this process's images, on its device."""
        o, device = self.options, self.group.device
        x = channels_last(x.to(device, non_blocking=True))
        labels = labels.to(device, non_blocking=True)
        if self.mix is None:
            targets = timm_parts.soft_targets(labels, self.classes, o.label_smoothing)
        else:
            with seeded(o.seed, step, self.group.rank, 1):
                x, targets = self.mix(x, labels)
        self.net.train()
        self.schedule.step_update(step)
        with torch.autocast(device.type, self.amp, enabled=self.amp is not None):
            loss = self._loss(net(x), x, targets)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if o.clip_grad:
            self.scaler.unscale_(self.optimizer)
            timm_parts.clip(self.net.parameters(), o.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.net, step=step)
        return loss.detach()

    def _loss(self, outputs: Any, images: Tensor, targets: Tensor) -> Tensor:
        """Labels for the first head, the teacher for the second (LeViT's and RepViT's form)."""
        if self.teacher is None:
            return F.cross_entropy(outputs.float(), targets)
        own, distilled = (logits.float() for logits in outputs)
        with torch.no_grad():
            taught = TASK.kept(self.teacher(images)).float()
        weight = self.options.teacher_weight
        learned = self._distillation(distilled, taught)
        return (1 - weight) * F.cross_entropy(own, targets) + weight * learned

    def _distillation(self, found: Tensor, taught: Tensor) -> Tensor:
        if self.options.distillation == "hard":
            return F.cross_entropy(found, taught.argmax(1))
        t = self.options.temperature
        found, taught = F.log_softmax(found / t, 1), F.log_softmax(taught / t, 1)
        return F.kl_div(found, taught, reduction="batchmean", log_target=True) * t**2

    def _finite(self, value: Tensor) -> float:
        """A loss, or a sum of weights. Raises GateFailed for NaN and infinity."""
        found = float(value)
        if not math.isfinite(found):
            raise GateFailed(
                f"the training diverged: after {self.history.step} steps its loss or a weight is "
                f"{found}; use a smaller --lr (a state that was saved before is in "
                f"{self.where.snapshot.parent})"
            )
        return found

    def _evaluate(self, loss: float) -> None:
        figures = {"step": float(self.history.step), "loss": loss}
        if self.measured:
            figures["holdout_top1"] = self.top1(self.images, self.measured, "hold-out")
        self.history.evaluations.append(figures)
        if self.recorder is not None:
            rest = {name: value for name, value in figures.items() if name != "step"}
            self.recorder.evaluation(self.history.step, rest)

    def top1(self, images: ImageFolder, indices: list[int], title: str) -> float:
        """Top-1 of the averaged net, a fraction of 1."""
        net = self.average
        was_training = net.training
        net.eval()
        found = outputs_of(net, TASK.kept, images, indices, self.group, title)
        net.train(was_training)
        return TASK.score(found, torch.from_numpy(images.labels[indices]), found)

    def _save(self, loss: Tensor) -> None:
        self._finite(loss)
        self._finite(torch.stack([p.detach().sum() for p in self.net.parameters()]).sum())
        if self.group.is_main:
            tensors = {f"net.{n}": t for n, t in self.net.state_dict().items()}
            if self.ema is not None:
                tensors |= {f"ema.{n}": t for n, t in self.ema.module.state_dict().items()}
            tensors |= optimizer_tensors(self.optimizer, "adam.")
            state = {"history": vars(self.history), "scaler": self.scaler.state_dict()}
            write_snapshot(self.where.snapshot, tensors, state)
            if self.recorder is not None:
                self.recorder.save()
        self.group.wait()

    def _resume(self) -> None:
        if not self.where.snapshot.exists():
            return
        tensors, state = read_snapshot(self.where.snapshot)
        self.history = History(**state["history"])
        self.scaler.load_state_dict(state["scaler"])

        self.net.load_state_dict(part(tensors, "net."))
        if self.ema is not None:
            self.ema.module.load_state_dict(part(tensors, "ema."))
        restore_optimizer(self.optimizer, part(tensors, "adam."))
