"""`edgevit fuse`: one plain convolution for every branched layer, with a proof."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from torch import Tensor

    from edgevit.data.images import ImageSet
    from edgevit.models.fuse import FuseProof

DEFAULT_IMAGES = 64


@click.command("fuse")
@click.argument("checkpoint", metavar="CKPT", type=click.Path())
@click.option("-o", "--output", required=True, metavar="OUT", help="The .safetensors to write.")
@click.option(
    "--data", metavar="DIR", help="Image folder or tar to prove it on; without it, seeded noise."
)
@click.option(
    "--images",
    "count",
    default=DEFAULT_IMAGES,
    show_default=True,
    type=click.IntRange(min=1),
    help="How many of its images, spread evenly over the classes.",
)
@click.option(
    "--image-size",
    default=224,
    show_default=True,
    metavar="PX",
    type=click.IntRange(32, 4096),
    help="Size the network is given; use that of the training.",
)
@click.option(
    "--bound", type=float, metavar="LOGITS", help="Largest |Δlogit| allowed.  [default: 1e-4]"
)
@click.option("--variant", metavar="NAME", help="Demand this one, such as repvit_m0_9.")
@click.option(
    "--weights", metavar="KEY", help="Which weights to take of several, such as model_ema."
)
@click.option("--force", is_flag=True, help="Replace OUT when it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the proof as one JSON object.")
def fuse_command(
    checkpoint: str,
    output: str,
    data: str | None,
    count: int,
    image_size: int,
    bound: float | None,
    variant: str | None,
    weights: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Fuse a RepViT checkpoint and prove that it is the same net.

    Branches, batch norms and the two heads become single layers. The proof counts what is left
    and compares the logits; it is printed, and stored in OUT. When it fails the exit code is 3
    and nothing is written. A checkpoint that is fused already is checked and written anew.

    \b
    Example:
      edgevit fuse repvit.pth -o fused.safetensors --data eurosat-val.tar --image-size 64
    """
    from edgevit.data.images import ImageSet
    from edgevit.files import check_target
    from edgevit.models.checkpoint import load
    from edgevit.models.fuse import DEFAULT_BOUND, NOISE_SOURCE, fuse, noise_images, save_fused

    check_target(output, force)
    loaded = load(checkpoint, variant=variant, weights=weights, image_size=image_size)
    if data is None:
        images, source = noise_images(image_size), NOISE_SOURCE
    else:
        image_set = ImageSet.open(data)
        count = min(count, len(image_set))
        images = _batches(image_set, count, image_size)
        source = f"{count} of {len(image_set)} images of the set with sha256 {image_set.sha256}"
    result = fuse(
        loaded.model,
        images,
        DEFAULT_BOUND if bound is None else bound,
        images_source=source,
        original=loaded.info.proof,
    )
    save_fused(result, output, force)
    if as_json:
        click.echo(json.dumps(result.proof.to_json(), indent=2, allow_nan=False))
    else:
        _print_table(result.proof, loaded.info.variant, output)


def _batches(image_set: ImageSet, count: int, image_size: int) -> Iterator[Tensor]:
    """`count` images at even distances, in batches of (N, 3, image_size, image_size)."""
    from edgevit.data.images import Preprocessing
    from edgevit.models.fuse import BATCH_SIZE
    from edgevit.progress import Progress

    preprocessing = Preprocessing(image_size, resize_size=image_size)
    indices = [place * len(image_set) // count for place in range(count)]
    done = 0
    with Progress("proof", count, "images") as progress:
        for images, _ in image_set.batches(preprocessing, BATCH_SIZE, indices):
            yield images
            done += len(images)
            progress.update(done)


def _print_table(proof: FuseProof, variant: str, output: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{variant}, fused: proof", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("batch norms and branches left", str(proof.norms_and_branches_left))
    table.add_row("convolutions", f"{proof.convs} of {proof.expected_convs} expected")
    if proof.already_fused:
        table.add_row("logits", "not compared: it came fused")
    else:
        table.add_row("max |Δlogit|", f"{proof.max_abs_delta_logit:.2e} (≤ {proof.bound:g})")
        table.add_row("largest logit", f"{proof.max_abs_logit:.2f}")
        table.add_row("predictions changed", f"{proof.top1_changed} of {proof.images}")
    table.add_row("images", f"{proof.images} at {proof.image_size} px: {proof.images_source}")
    table.add_row("written to", output)
    Console().print(table)
