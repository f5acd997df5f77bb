"""What a checkpoint's net is quantized for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgevit.errors import InputError
from edgevit.options import check, option

TaskName = Literal["classification", "features"]
UpsampleChoice = Literal["as-trained", "bilinear"]


@dataclass(frozen=True)
class TaskOptions:
    """Raises InputError for an unknown task, and for stages that are none.

    stages   of features: which stages' maps are the outputs, from 1, at strides 4, 8, 16 and 32;
             none named: all, or what an image encoder gives
    upsample of an image encoder with a fusion: how its last stage is enlarged
    """

    task: TaskName = option(
        "classification",
        "classification: logits, gated on top-1; features: the maps of the stages, without the "
        "head, gated on how near float's they are; the images then need no class folders.",
    )
    stages: tuple[int, ...] = option(
        (),
        "With --task features: the stages whose maps are the outputs.",
        minimum=1,
        maximum=64,
        metavar="N,N",
        default_text="all of them; of an image encoder its embeddings",
    )
    upsample: UpsampleChoice = option(
        "as-trained",
        "With --task features, of an image encoder that sums two stages: bilinear in place of the "
        "bicubic enlarging that EdgeSAM is trained with and INT8 runtimes lack.",
    )

    def __post_init__(self) -> None:
        check(self)
        if len(set(self.stages)) != len(self.stages):
            raise InputError(f"--stages {list(self.stages)} must be stages from 1, each once")
