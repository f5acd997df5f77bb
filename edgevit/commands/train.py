"""`edgevit train`: a RepViT from scratch, by the paper's recipe."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from edgevit.commands.generate import PATH, collect, options_of
from edgevit.commands.options import force_option, json_option, labels_option, read_labels
from edgevit.console import say
from edgevit.data.options import ImageSetOptions, PreprocessingOptions
from edgevit.runs.options import MachineOptions
from edgevit.train.options import TrainOptions


@click.command("train")
@click.option(
    "--data",
    required=True,
    metavar="DIR",
    type=PATH,
    help="Training images: a folder or tar of class folders.",
)
@click.option(
    "--eval-data",
    metavar="DIR",
    type=PATH,
    help="Images that top-1 is measured on, once, at the end.",
)
@click.option(
    "-o", "--output", required=True, metavar="DIR", type=PATH, help="The folder to write."
)
@options_of(PreprocessingOptions)
@labels_option("class folder name", "sorted folders")
@options_of(ImageSetOptions)
@options_of(TrainOptions)
@click.option(
    "--teacher",
    metavar="timm:NAME|CKPT|MODULE:FUNCTION",
    help="Teacher of the distillation, which gives the net its second head: a net of timm's, whose "
    "weights are downloaded, a RepViT checkpoint, or a Python function.  [default: none]",
)
@options_of(MachineOptions)
@force_option("the folder")
@json_option
def train_command(**given: Any) -> None:
    """Train a RepViT from scratch and write its weights for `edgevit quantize`.

    AdamW, cosine with warm-up, RandAugment, Mixup, CutMix, Random Erasing, label smoothing, moving
    average, distillation: the paper's recipe, of timm's and torch's parts. DIR is a folder that
    timm reads as well. The same command continues an interrupted run. Needs timm
    (pip install 'edgevit[train]').

    \b
    Example:
      edgevit train --data eurosat-train.tar --eval-data eurosat-val.tar --image-size 64 \\
          --epochs 30 --batch-size 128 -o eurosat
      edgevit quantize eurosat --data eurosat-train.tar --eval-data eurosat-val.tar -o model.evq
    Several processes:
      torchrun --nproc-per-node 4 -m edgevit train --data imagenet/train -o net
    """
    options, machine = collect(TrainOptions, given), collect(MachineOptions, given)
    preprocessing = collect(PreprocessingOptions, given)

    import torch

    from edgevit.data.images import Preprocessing
    from edgevit.data.soundness import sound
    from edgevit.data.source import ImageFolder
    from edgevit.train.run import train

    torch.set_num_threads(machine.threads or os.cpu_count() or 1)
    sets = collect(ImageSetOptions, given)
    rules = Preprocessing.from_options(preprocessing)
    labels = read_labels(given["labels"])

    def opened(path: Path, like: ImageFolder | Preprocessing) -> ImageFolder:
        classes = labels if like is rules else None
        found = ImageFolder(path, classes=classes, like=like, class_order=sets.class_order)
        return found.with_images(sound(found.images, sets.skip_broken, sets.broken_list))

    images = opened(given["data"], rules)
    report = None if given["eval_data"] is None else opened(given["eval_data"], images)
    result = train(
        images,
        report,
        given["output"],
        options,
        machine,
        teacher=given["teacher"],
        force=given["force"],
    )
    if os.environ.get("RANK", "0") == "0":
        _print(result.top1, None if report is None else len(report), given)


def _print(top1: float | None, count: int | None, given: dict[str, Any]) -> None:
    path: Path = given["output"]
    if given["as_json"]:
        found = {"schema_version": 1, "output": str(path), "top1": top1, "images": count}
        click.echo(json.dumps(found, indent=2, allow_nan=False))
        return
    if top1 is not None:
        say(f"top-1 {100 * top1:.2f} % of {count} images")
    say(f"wrote {path}")
