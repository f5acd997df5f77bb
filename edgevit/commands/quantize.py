"""`edgevit quantize`: INT8 with learned scales, gated on accuracy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevit.commands.config import config_option, config_text
from edgevit.commands.generate import PATH, collect, options_of
from edgevit.commands.options import force_option, json_option, labels_option, read_labels
from edgevit.commands.preprocessing import chosen_preprocessing, preprocessing_options
from edgevit.console import say
from edgevit.data.options import ImageSetOptions, PreprocessingOptions
from edgevit.models.options import CheckpointOptions
from edgevit.quantize.options import QuantizeOptions
from edgevit.runs.options import MachineOptions
from edgevit.tasks.options import TaskOptions

CURVES_SUFFIX = ".metrics.csv"
"""What the curves of M.evq's fine-tuning are called beside it."""

if TYPE_CHECKING:
    from edgevit.quantize.from_files import Source
    from edgevit.quantize.pipeline import Result


@click.command("quantize")
@click.argument("checkpoint", metavar="CKPT", type=PATH)
@click.option(
    "--data",
    required=True,
    metavar="DIR",
    type=PATH,
    help="Training images: a folder or tar of class folders (for features: of images), or "
    "'train-*.tar' for several tars.",
)
@click.option(
    "--eval-data",
    metavar="DIR",
    type=PATH,
    help="Images the accuracy is reported on.  [default: a tenth of --data, held out]",
)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="M.evq",
    type=PATH,
    help="The quantized program to write.",
)
@preprocessing_options()
@labels_option("class folder name", "sorted folders")
@options_of(ImageSetOptions)
@options_of(CheckpointOptions)
@options_of(TaskOptions)
@options_of(QuantizeOptions)
@click.option(
    "--teacher",
    metavar="CKPT|MODULE:FUNCTION",
    help="Teacher of the distillation: a RepViT checkpoint, or a Python function from images to "
    "logits.  [default: the float net]",
)
@click.option("--author", metavar="TEXT", help="Author named in the artifacts' metadata.")
@click.option("--license", metavar="TEXT", help="License named in the artifacts' metadata.")
@options_of(MachineOptions)
@config_option(
    PreprocessingOptions,
    ImageSetOptions,
    CheckpointOptions,
    TaskOptions,
    QuantizeOptions,
    MachineOptions,
)
@force_option("M.evq")
@json_option
def quantize_command(**given: Any) -> None:
    """Quantize a net to INT8 and write the program that every target starts from.

    CKPT is a RepViT's checkpoint. timm:NAME is a net of timm (pip install 'edgevit[train]') with
    --weights FILE; its preprocessing is timm's where none is given. Nothing is downloaded.

    The net is fused (with proof), calibrated by NNCF, corrected, and fine-tuned with learned
    scales under distillation from the float net. The accuracy gate compares it with float on the
    reported images; when it fails, the exit code is 3 and M.evq is not written. The same command
    continues an interrupted run. The curves of the fine-tuning are in M.evq.metrics.csv.

    \b
    Example:
      edgevit quantize repvit.pth --data eurosat-train.tar --eval-data eurosat-val.tar \\
          --image-size 64 -o model.evq
    The same from a file (epochs = 8 ...), but for what is said here:
      edgevit quantize --config recipe.toml --lr 5e-5
    Another net than RepViT:
      edgevit quantize timm:mobilenetv3_large_100 --weights mine.pth --data train.tar -o m.evq
    Several processes:
      torchrun --nproc-per-node 4 -m edgevit quantize repvit.pth --data imagenet/train -o m.evq
    """
    options, machine = collect(QuantizeOptions, given), collect(MachineOptions, given)
    preprocessing = chosen_preprocessing(given, given["checkpoint"])

    import torch

    from edgevit.quantize.from_files import quantize_files

    torch.set_num_threads(machine.threads or os.cpu_count() or 1)
    result = quantize_files(
        _source(preprocessing, given),
        given["output"],
        options,
        machine,
        force=given["force"],
        recipe=config_text(click.get_current_context(), {**given, **vars(preprocessing)}),
        curves=given["output"].with_name(given["output"].name + CURVES_SUFFIX),
    )
    if os.environ.get("RANK", "0") == "0":
        _print(result, given["output"], given["as_json"])


def _source(preprocessing: PreprocessingOptions, given: dict[str, Any]) -> Source:
    from edgevit.data.images import Preprocessing
    from edgevit.quantize.from_files import Source

    return Source(
        checkpoint=given["checkpoint"],
        data=given["data"],
        preprocessing=Preprocessing.from_options(preprocessing),
        eval_data=given["eval_data"],
        labels=read_labels(given["labels"]),
        teacher=given["teacher"],
        variant=given["variant"],
        weights=given["weights"],
        author=given["author"],
        license=given["license"],
        images=_image_set_options(given),
        task=collect(TaskOptions, given),
    )


def _image_set_options(given: dict[str, Any]) -> ImageSetOptions:
    """Raises InputError for two orders of the classes."""
    from edgevit.errors import InputError

    options = collect(ImageSetOptions, given)
    if given["labels"] is not None and options.class_order != ImageSetOptions.class_order:
        raise InputError("--labels gives the order of the classes: leave out --class-order, or it")
    return options


def _print(result: Result, path: Path, as_json: bool) -> None:
    reported = result.program.info.provenance["report_data"]
    if as_json:
        found = {
            "schema_version": 1,
            "program": str(path),
            "sha256": result.program.sha256,
            "metrics": result.metrics,
            "report_data": reported,
            "gate": result.gate.to_json(),
            "best_step": result.history.best_step,
        }
        click.echo(json.dumps(found, indent=2, allow_nan=False))
        return
    say(str(result.gate))
    if "drawn_from" in reported:
        say(
            f"reported on {reported['images']} of the {reported['drawn_from']} images of "
            f"{reported['file']}, drawn by the seed"
        )
    say(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
