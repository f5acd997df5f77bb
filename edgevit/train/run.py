"""`edgevit train`, end to end: open the images, train, measure, write."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import edgevit
from edgevit.data.batches import split, weights_channels_last
from edgevit.data.distributed import Group
from edgevit.data.overlap import check_overlap
from edgevit.data.source import ImageFolder
from edgevit.device import at_precision, device_text
from edgevit.errors import InputError
from edgevit.files import check_target
from edgevit.models.repvit import RepViT, RepViTConfig
from edgevit.models.variants import variant_config
from edgevit.quantize.subject import key_of
from edgevit.runs.deterministic import deterministic
from edgevit.runs.folder import CURVES, RUN_SUFFIX, STATE, remove_run, run_folder
from edgevit.runs.options import MachineOptions
from edgevit.runs.recording import check_tensorboard
from edgevit.train.options import TrainOptions
from edgevit.train.output import FILES, write_output
from edgevit.train.teacher import teacher_of
from edgevit.train.timm_parts import timm_module
from edgevit.train.trainer import History, Trainer, Where

log = logging.getLogger(__name__)

INTERPOLATIONS = ("bicubic", "bilinear")


@dataclass(frozen=True)
class TrainResult:
    """The averaged net, in eval mode with its branches, and what was measured.

    top1      of the reported images, a fraction of 1; None where none were given
    """

    net: nn.Module
    top1: float | None
    history: History


def train(
    images: ImageFolder,
    report: ImageFolder | None,
    out: Path,
    options: TrainOptions,
    machine: MachineOptions,
    *,
    teacher: str | None = None,
    force: bool = False,
) -> TrainResult:
    """Train a RepViT from scratch and write it to the folder `out`.

    images  to learn from; their pre-processing is that of the finished net
    report  images that top-1 is measured on once, at the end, opened with like=images
    teacher as `teacher_of`: it makes the net learn with two heads

    State is kept in `out`.run while it works; the same call goes on from there. Raises InputError
    for bad input, GateFailed when the loss is no number any more, WorkerLost when a process that
    decodes ended, Interrupted behind a Ctrl-C, ToolMissing without timm.
    """
    timm_module()
    if machine.tensorboard is not None:
        check_tensorboard()
    folder = out.with_name(out.name + RUN_SUFFIX)
    check_target(out, force, listing=lambda _: FILES)
    _check(images, report)
    group = Group(machine.device, machine.workers)
    parts = split(len(images), options.holdout, options.seed)
    if len(parts[0]) < options.batch_size:
        raise InputError(
            f"{images.title} has {len(parts[0])} images to learn from, fewer than --batch-size "
            f"{options.batch_size}; use a smaller batch"
        )
    if group.is_main:
        log.info("on %s", device_text(group.device))
    with deterministic(group.device), at_precision(machine.precision, group.device):
        config = _config(options, len(images.classes), teacher is not None)
        net = _made(config, options.seed, group)
        taught = teacher_of(teacher, images.preprocessing, len(images.classes), group.device)
        about = _about(images, options, machine, teacher, group)
        claimed = run_folder(
            folder, _key(about, taught), machine.fresh, group, machine.resume_with_processes
        )
        with claimed as state:
            where = Where(group, state / STATE, machine.snapshot_interval_s, machine.tensorboard)
            trainer = Trainer(net, images, parts, options, taught, where)
            if group.is_main:
                log.info(
                    "%s from scratch, %d classes, %s; %d images, %d steps of %d",
                    config.variant, len(images.classes), images.preprocessing.size_text,
                    len(parts[0]), trainer.steps, options.batch_size,
                )  # fmt: skip
            result = _finished(trainer, report)
            if group.is_main:
                text = {"schema_version": 1, **about, "processes": group.size}
                text |= _measured(result, report)
                write_output(
                    out, result.net, config, images.preprocessing, list(images.classes), text,
                    (state / CURVES).read_bytes(), force,
                )  # fmt: skip
                remove_run(folder)
            group.wait()
    return result


def _about(
    images: ImageFolder,
    options: TrainOptions,
    machine: MachineOptions,
    teacher: str | None,
    group: Group,
) -> dict[str, Any]:
    """All that decides the result, but for the teacher's weights."""
    return {
        "options": options.to_json(),
        "teacher": teacher,
        "data": {"file": images.title, "sha256": images.sha256},
        "preprocessing": images.preprocessing.to_json(),
        "labels": list(images.classes),
        "device": group.device.type,
        # On the CPU it changes nothing.
        "precision": None if group.device.type == "cpu" else machine.precision,
        "threads": torch.get_num_threads(),
        "versions": {
            "edgevit": edgevit.__version__,
            "torch": torch.__version__,
            "timm": timm_module().__version__,
        },
    }


def _key(about: dict[str, Any], teacher: Callable[..., Any] | None) -> str:
    weights = key_of(teacher) if isinstance(teacher, nn.Module) else None
    text = json.dumps(about | {"teacher_weights": weights}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _finished(trainer: Trainer, report: ImageFolder | None) -> TrainResult:
    history = trainer.run()
    top1 = None
    if report is not None:
        top1 = trainer.top1(report, list(range(len(report))), "report")
    return TrainResult(trainer.average.eval(), top1, history)


def _measured(result: TrainResult, report: ImageFolder | None) -> dict[str, Any]:
    found: dict[str, Any] = {"top1": result.top1, "evaluations": result.history.evaluations}
    if report is not None:
        found["report_data"] = {
            "file": report.title, "sha256": report.sha256, "images": len(report)
        }  # fmt: skip
    return found


def _config(options: TrainOptions, classes: int, distillation: bool) -> RepViTConfig:
    return variant_config(
        options.variant,
        num_classes=classes,
        distillation=distillation,
        se=options.se,
        reparameterization=options.reparameterization,
    )


def _made(config: RepViTConfig, seed: int, group: Group) -> RepViT:
    """The net with weights drawn by the seed; torch's random state is left as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = RepViT(config)
    weights_channels_last(net).to(group.device)
    return net


def _check(images: ImageFolder, report: ImageFolder | None) -> None:
    """Raises InputError for pre-processing that the random crops do not have, and for overlaps."""
    rules = images.preprocessing
    if rules.channels != "RGB" or rules.resize != "shorter":
        raise InputError(
            "edgevit train knows --channels RGB and --resize-mode shorter alone: the random crops "
            "are timm's"
        )
    if rules.interpolation not in INTERPOLATIONS or not rules.antialias:
        raise InputError(
            f"edgevit train resizes by {' or '.join(INTERPOLATIONS)}, with antialias, as timm does"
        )
    if report is None:
        return
    if report.sha256 == images.sha256:
        raise InputError(
            f"{report.title} holds the training images: top-1 must be measured on others "
            "(--eval-data)"
        )
    check_overlap(images.images, report.images)
