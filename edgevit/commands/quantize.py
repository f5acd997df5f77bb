"""`edgevit quantize`: INT8 with learned scales, gated on accuracy."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevit.data.images import IMAGENET_MEAN, IMAGENET_STD, INTERPOLATIONS

if TYPE_CHECKING:
    from edgevit.quantize.pipeline import Result

TRIPLE = click.Tuple([float, float, float])


@click.command("quantize")
@click.argument("checkpoint", metavar="CKPT", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Training images: a folder or tar of class folders.",
)
@click.option(
    "--eval-data",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Images the accuracy is reported on.  [default: a tenth of --data, held out]",
)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="M.evq",
    type=click.Path(path_type=Path),
    help="The quantized program to write.",
)
@click.option("--image-size", default=224, show_default=True, help="Network input, in pixels.")
@click.option(
    "--resize",
    "resize_size",
    type=int,
    metavar="PX",
    help="Shorter side before the centre crop.  [default: the image size]",
)
@click.option(
    "--interpolation", default="bicubic", show_default=True, type=click.Choice(INTERPOLATIONS)
)
@click.option("--mean", type=TRIPLE, default=IMAGENET_MEAN, show_default=True)
@click.option("--std", type=TRIPLE, default=IMAGENET_STD, show_default=True)
@click.option(
    "--labels",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Class folder names in the order of the logits, one a line.  [default: sorted folders]",
)
@click.option("--variant", metavar="NAME", help="Demand this one, such as repvit_m0_9.")
@click.option("--weights", metavar="KEY", help="Which weights of several, such as model_ema.")
@click.option(
    "--profile",
    default="portable",
    show_default=True,
    type=click.Choice(["portable", "asymmetric"]),
    help="portable: symmetric activations, for every target; asymmetric: TFLite and Core ML only.",
)
@click.option(
    "--activation",
    default="gelu",
    show_default=True,
    type=click.Choice(["gelu", "hard-swish", "quick-gelu"]),
    help="In place of every GELU, which NNAPI lacks; the distillation heals the swap.",
)
@click.option(
    "--epochs", default=4.0, show_default=True, help="0: post-training quantization only."
)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--lr", default=1e-4, show_default=True, help="Peak learning rate of the weights.")
@click.option(
    "--scale-lr", default=1e-3, show_default=True, help="Peak, of the scales' logarithms."
)
@click.option("--weight-decay", default=0.0, show_default=True)
@click.option("--ema", default=0.99, show_default=True, help="Weight averaging decay; 0: none.")
@click.option(
    "--augment", default="flip", show_default=True, type=click.Choice(["none", "flip", "dihedral"])
)
@click.option(
    "--teacher",
    metavar="CKPT|MODULE:FUNCTION",
    help="Another teacher: a RepViT checkpoint, or a function that returns images → logits.",
)
@click.option("--temperature", default=2.0, show_default=True, help="Of the distillation.")
@click.option("--teacher-weight", default=1.0, show_default=True)
@click.option("--label-weight", default=0.0, show_default=True)
@click.option("--calibration-images", default=256, show_default=True)
@click.option(
    "--holdout", default=0.1, show_default=True, help="Share that selects the best state."
)
@click.option("--evaluations", default=8, show_default=True, help="Of states to choose from.")
@click.option("--snapped-share", default=0.3, show_default=True, help="Of steps with fp16 scales.")
@click.option("--warmup", default=0.02, show_default=True, help="Share of steps.")
@click.option("--max-drop", default=0.5, show_default=True, help="Gate: top-1 points below float.")
@click.option("--author", metavar="TEXT", help="For the artifacts' metadata.")
@click.option("--license", metavar="TEXT", help="Of the model, for the artifacts' metadata.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="[default: all cores]")
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option(
    "--snapshot-interval",
    "snapshot_interval_s",
    default=60.0,
    show_default=True,
    metavar="S",
    help="Seconds between saved states: at most this much work is lost when the run is killed.",
)
@click.option("--fresh", is_flag=True, help="Discard the state of an interrupted run.")
@click.option("--force", is_flag=True, help="Replace M.evq when it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def quantize_command(**given: Any) -> None:
    """Quantize a RepViT checkpoint to INT8 and write the program that every target starts from.

    The net is fused (with proof), calibrated by NNCF, bias-corrected, and fine-tuned with learned
    scales under distillation from the float net. The accuracy gate compares it with float on the
    reported images; when it fails, the exit code is 3 and M.evq is not written. A run that was
    killed goes on from where it was when the same command is given again.

    \b
    Example:
      edgevit quantize repvit.pth --data eurosat-train.tar --eval-data eurosat-val.tar \\
          --image-size 64 -o model.evq
    Many processes:
      torchrun --nproc-per-node 4 -m edgevit quantize repvit.pth --data imagenet/train -o m.evq
    """
    import torch

    from edgevit.data.images import Preprocessing
    from edgevit.quantize.from_files import Source, quantize_files
    from edgevit.quantize.options import QuantizeOptions

    torch.set_num_threads(given["threads"] or os.cpu_count() or 1)
    size = given["image_size"]
    preprocessing = Preprocessing(
        size, given["resize_size"] or size, given["interpolation"], given["mean"], given["std"]
    )
    source = Source(
        given["checkpoint"],
        given["data"],
        preprocessing,
        given["eval_data"],
        read_labels(given["labels"]),
        given["teacher"],
        given["variant"],
        given["weights"],
        given["author"],
        given["license"],
    )
    names = {field.name for field in fields(QuantizeOptions)}
    options = QuantizeOptions(**{k: v for k, v in given.items() if k in names})
    result = quantize_files(
        source,
        given["output"],
        options,
        force=given["force"],
        fresh=given["fresh"],
        device=given["device"],
        snapshot_interval_s=given["snapshot_interval_s"],
    )
    if os.environ.get("RANK", "0") == "0":
        _print(result, given["output"], given["as_json"])


def read_labels(path: Path | None) -> tuple[str, ...] | None:
    """One label a line. Raises InputError when the file is missing, empty or repeats a label."""
    from edgevit.errors import InputError

    if path is None:
        return None
    try:
        labels = tuple(
            line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()
        )
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--labels {path}: cannot be read: {error}") from error
    if not labels or len(set(labels)) != len(labels):
        raise InputError(f"--labels {path}: must hold one distinct label a line")
    return labels


def _print(result: Result, path: Path, as_json: bool) -> None:
    if as_json:
        found = {
            "schema_version": 1,
            "program": str(path),
            "sha256": result.program.sha256,
            "metrics": result.metrics,
            "gate": result.gate.to_json(),
            "best_step": result.history.best_step,
        }
        click.echo(json.dumps(found, indent=2, allow_nan=False))
        return
    click.echo(str(result.gate))
    click.echo(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
