"""What a checkpoint's net is quantized for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgevit.errors import InputError
from edgevit.options import check, option

TaskName = Literal["classification", "features"]


@dataclass(frozen=True)
class TaskOptions:
    """Raises InputError for an unknown task, and for stages that are none.

    stages   of features: which stages' maps are the outputs, from 1, at strides 4, 8, 16 and 32
    """

    task: TaskName = option(
        "classification",
        "classification: logits, gated on top-1; features: the maps of the stages, without the "
        "head, gated on how near float's they are; the images then need no class folders.",
    )
    stages: tuple[int, ...] = option(
        (1, 2, 3, 4),
        "With --task features: the stages whose maps are the outputs.",
        minimum=1,
        maximum=64,
        metavar="N,N",
    )

    def __post_init__(self) -> None:
        check(self)
        if not self.stages or len(set(self.stages)) != len(self.stages):
            raise InputError(f"--stages {list(self.stages)} must be stages from 1, each once")
