"""`edgevit fuse`: every branched layer becomes one convolution, with a proof."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevit.commands.generate import PATH, collect, options_of
from edgevit.commands.options import force_option, json_option
from edgevit.commands.preprocessing import chosen_preprocessing, preprocessing_options
from edgevit.console import print_table
from edgevit.data.options import DamageOptions, PreprocessingOptions
from edgevit.errors import InputError
from edgevit.models.named import is_timm
from edgevit.models.options import CheckpointOptions, FuseOptions
from edgevit.options import size_text

if TYPE_CHECKING:
    from torch import Tensor

    from edgevit.data.images import ImageSet
    from edgevit.models.fuse import FuseProof


@click.command("fuse")
@click.argument("checkpoint", metavar="CKPT", type=PATH)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    type=PATH,
    help="The .safetensors file to write.",
)
@click.option(
    "--data",
    metavar="DIR",
    type=PATH,
    help="Images to prove it on: a folder or tar of class folders.  [default: seeded noise]",
)
@options_of(FuseOptions)
@preprocessing_options()
@options_of(DamageOptions)
@options_of(CheckpointOptions)
@force_option("OUT")
@json_option
def fuse_command(
    checkpoint: Path,
    output: Path,
    data: Path | None,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Fuse a RepViT checkpoint and prove that the fused net gives the same logits.

    Branches, batch norms and the two heads become single layers. The proof counts the layers that
    are left and compares the logits; it is printed, and stored in OUT. When it fails, the exit
    code is 3 and nothing is written. A fused checkpoint is checked and written again.

    \b
    Example:
      edgevit fuse repvit.pth -o fused.safetensors --data eurosat-val.tar --image-size 64
    """
    if is_timm(checkpoint):
        raise InputError(
            f"{checkpoint}: `edgevit fuse` is for RepViT's checkpoints; `edgevit quantize "
            f"{checkpoint}` merges a net's branches by itself, with a proof"
        )
    options, asked = collect(FuseOptions, given), collect(CheckpointOptions, given)
    preprocessing, damage = chosen_preprocessing(given, checkpoint), collect(DamageOptions, given)

    from edgevit.device import at_precision, chosen_device
    from edgevit.files import check_target
    from edgevit.models.checkpoint import load
    from edgevit.models.fuse import NOISE_SOURCE, fuse, noise_images, save_fused

    check_target(output, force)
    size = preprocessing.image_size
    loaded = load(checkpoint, variant=asked.variant, weights=asked.weights, image_size=size)
    if data is None:
        images, source = [noise_images(size, loaded.model.config.in_channels)], NOISE_SOURCE
    else:
        image_set = _sound_set(data, damage)
        count = min(options.images, len(image_set))
        images = _batches(image_set, count, preprocessing)
        source = f"{count} of {len(image_set)} images of the set with sha256 {image_set.sha256}"
    device = chosen_device(options.device)
    with at_precision("float32", device):
        result = fuse(
            loaded.model.to(device),
            (batch.to(device) for batch in images),
            options.bound,
            images_source=source,
            original=loaded.info.proof,
        )
    save_fused(result, output, force)
    if as_json:
        click.echo(json.dumps(result.proof.to_json(), indent=2, allow_nan=False))
    else:
        _print_table(result.proof, loaded.info.variant, output)


def _sound_set(data: Path, options: DamageOptions) -> ImageSet:
    """The images without the damaged ones; says what is left out."""
    import logging

    from edgevit.data.images import ImageSet
    from edgevit.data.soundness import sound

    images = ImageSet.open(data)
    for line in images.notices:
        logging.getLogger("edgevit").warning(line)
    return sound(images, options.skip_broken, options.broken_list)


def _batches(
    image_set: ImageSet, count: int, preprocessing: PreprocessingOptions
) -> Iterator[Tensor]:
    """`count` images at even distances, in batches of (N, C, H, W)."""
    from edgevit.data.images import Preprocessing
    from edgevit.models.fuse import BATCH_SIZE
    from edgevit.progress import Progress

    rules = Preprocessing.from_options(preprocessing)
    indices = [place * len(image_set) // count for place in range(count)]
    done = 0
    with Progress("proof", count, "images") as progress:
        for images, _ in image_set.batches(rules, BATCH_SIZE, indices):
            yield images
            done += len(images)
            progress.update(done)


def _print_table(proof: FuseProof, variant: str, output: Path) -> None:
    rows: list[tuple[str, str]] = []
    rows.append(("batch norms and branches left", str(proof.norms_and_branches_left)))
    rows.append(("convolutions", f"{proof.convs} of {proof.expected_convs} expected"))
    if proof.already_fused:
        rows.append(("logits", "not compared: fused already"))
    else:
        rows.append(("max |Δlogit|", f"{proof.max_abs_delta_logit:.2e} (≤ {proof.bound:.2e})"))
        rows.append(("largest logit", f"{proof.max_abs_logit:.2f}"))
        rows.append(("predictions changed", f"{proof.top1_changed} of {proof.images}"))
    size = size_text(proof.image_size)
    rows.append(("images", f"{proof.images} at {size} px: {proof.images_source}"))
    rows.append(("written to", str(output)))
    print_table(f"{variant}, fused: proof", rows)
