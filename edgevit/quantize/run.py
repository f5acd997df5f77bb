"""The open parts of a run, and the program that a net of it is."""

from __future__ import annotations

import copy
import logging
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import edgevit
from edgevit.choices import Precision
from edgevit.console import storable
from edgevit.data.batches import outputs_of
from edgevit.data.distributed import Group
from edgevit.graph import Graph
from edgevit.program import ModelInfo, Program, ProgramInfo, build_program
from edgevit.quantize.distill import Teacher
from edgevit.quantize.finetune import History
from edgevit.quantize.net import QuantizedNet
from edgevit.quantize.options import QuantizeOptions
from edgevit.quantize.parts import Parts
from edgevit.quantize.subject import Subject
from edgevit.tasks import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """The open parts of a run; `about` is what the caller adds to the program's provenance."""

    subject: Subject
    task: Task
    parts: Parts
    options: QuantizeOptions
    teacher: Teacher
    group: Group
    folder: Path
    graph: Graph
    precision: Precision
    about: dict[str, Any]

    def say(self, text: str) -> None:
        """Log a line, once for all processes."""
        if self.group.is_main:
            log.info(text)

    def outputs(self, net: Callable[[Tensor], Any], title: str, group: Group) -> Tensor:
        """What the task keeps of a net's outputs on the reported images, float32 (N, K)."""
        parts, title = self.parts, f"{title} on report images"
        return outputs_of(net, self.task.kept, parts.report, parts.reported, group, title)


def program_now(run: Run, net: QuantizedNet, info: ProgramInfo | None = None) -> Program:
    """The program that the net would be, snapped, which is what runs in integers."""
    snapped = copy.deepcopy(net)
    snapped.snap()
    return build_program(
        snapped.float_graph(),
        snapped.activation_quantizers(),
        snapped.weight_scales(),
        info or program_info(run, History(), ""),
    )


def program_info(run: Run, history: History, teacher_name: str) -> ProgramInfo:
    parts, options = run.parts, run.options
    classes = tuple(parts.images.classes) if run.task.has_labels else ()
    rules = parts.images.preprocessing
    return ProgramInfo(
        model=ModelInfo(run.subject.name, len(classes), rules.image_size),
        profile=options.profile,
        preprocessing=rules,
        labels=classes,
        task=run.task.name,
        provenance=storable(
            {
                **run.subject.origin,
                "data": {"file": parts.images.title, "sha256": parts.images.sha256},
                "report_data": {
                    "file": parts.report.title,
                    "sha256": parts.report.sha256,
                    "images": len(parts.reported),
                    **({"drawn_from": parts.drawn_from} if parts.drawn_from else {}),
                },
                "images": {"fine_tuned": len(parts.train), "selected": len(parts.holdout)},
                "teacher": teacher_name,
                **run.about,
                "options": options.to_json(),
                "seed": options.seed,
                "threads": torch.get_num_threads(),
                "selection": {"best_step": history.best_step, "evaluations": history.evaluations},
                "versions": _versions(),
            }
        ),
    )


def _versions() -> dict[str, Any]:
    from importlib.metadata import version

    packages = ("torch", "nncf", "numpy", "pillow")
    return {
        "edgevit": edgevit.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
