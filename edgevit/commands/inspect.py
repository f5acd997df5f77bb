"""`edgevit inspect`: a description of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevit.commands.generate import collect, options_of
from edgevit.commands.options import json_option
from edgevit.data.options import PreprocessingOptions
from edgevit.models.options import CheckpointOptions
from edgevit.options import size_text

if TYPE_CHECKING:
    from edgevit.models.checkpoint import CheckpointInfo


@click.command("inspect")
@click.argument("checkpoint", metavar="CKPT", type=click.Path(path_type=Path))
@options_of(CheckpointOptions)
@options_of(PreprocessingOptions, only=("image_size",))
@json_option
def inspect_command(checkpoint: Path, as_json: bool, **given: Any) -> None:
    """Describe a RepViT checkpoint: variant, classes, parameters, and MACs at the image size.

    CKPT is a .pth, .pt or .safetensors file in THU-MIG's or timm's naming, or one that
    `edgevit fuse` wrote. The description comes from the tensors alone: edgevit runs no code in
    the file and writes nothing.

    \b
    Example:
      edgevit inspect repvit_m0_9_eurosat64_timm.pth
    """
    asked, size = collect(CheckpointOptions, given), collect(PreprocessingOptions, given).image_size

    from edgevit.models.checkpoint import inspect

    info = inspect(checkpoint, variant=asked.variant, weights=asked.weights, image_size=size)
    if as_json:
        click.echo(json.dumps(info.to_json(), indent=2, allow_nan=False))
    else:
        _print_table(info)


def _print_table(info: CheckpointInfo) -> None:
    from rich.console import Console
    from rich.table import Table

    config = info.config
    ablations = f"kernel {config.kernel_size}, expansion {config.expansion:g}, SE {config.se}"
    if info.fused:
        heads = "merged into one"
    else:
        heads = "two (classifier and distillation)" if info.distillation else "one"
    table = Table(title=f"{info.variant} · {info.num_classes} classes", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("file", f"{info.path} ({info.size_bytes / 1e6:.1f} MB)")
    table.add_row("sha256", info.sha256)
    table.add_row("naming", info.naming)
    table.add_row("wrapped in", " → ".join(info.wrappers) or "nothing")
    table.add_row("numbers", info.dtype)
    table.add_row("fused", "yes" if info.fused else "no")
    table.add_row("heads", heads)
    table.add_row("layers", ablations)
    table.add_row("parameters", f"{info.parameters:,} ({info.fused_parameters:,} fused)")
    table.add_row("MACs, fused", f"{info.fused_macs:,} at {size_text(info.image_size)} px")
    if info.proof:
        table.add_row("fusion proof", _proof_text(info.proof))
    Console().print(table)


def _proof_text(stored: dict[str, Any]) -> str:
    from edgevit.models.fuse import FuseProof

    proof = FuseProof.from_json(stored.get("original") or stored)
    if proof.max_abs_delta_logit is None:
        return "by structure alone: fused already"
    return f"max |Δlogit| {proof.max_abs_delta_logit:.2e} on {proof.images} images"
