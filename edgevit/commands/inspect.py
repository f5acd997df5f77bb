"""`edgevit inspect`: a description of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevit.commands.generate import PATH, collect, options_of
from edgevit.commands.options import json_option
from edgevit.console import print_table
from edgevit.data.options import PreprocessingOptions
from edgevit.models.options import CheckpointOptions

if TYPE_CHECKING:
    from edgevit.models.checkpoint import CheckpointInfo


@click.command("inspect")
@click.argument("checkpoint", metavar="CKPT", type=PATH)
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
    config = info.config
    ablations = f"kernel {config.kernel_size}, expansion {config.expansion:g}, SE {config.se}"
    if info.fused:
        heads = "merged into one"
    else:
        heads = "two (classifier and distillation)" if info.distillation else "one"
    rows: list[tuple[str, str]] = []
    rows.append(("file", f"{info.path} ({info.size_bytes / 1e6:.1f} MB)"))
    rows.append(("sha256", info.sha256))
    rows.append(("naming", info.naming))
    rows.append(("wrapped in", " → ".join(info.wrappers) or "nothing"))
    rows.append(("numbers", info.dtype))
    rows.append(("fused", "yes" if info.fused else "no"))
    rows.append(("heads", heads))
    rows.append(("layers", ablations))
    rows.append(("parameters", f"{info.parameters:,} ({info.fused_parameters:,} fused)"))
    rows.append(("MACs, fused", f"{info.fused_macs:,} at {info.image_size} px"))
    if info.proof:
        rows.append(("fusion proof", _proof_text(info.proof)))
    print_table(f"{info.variant} · {info.num_classes} classes", rows)


def _proof_text(stored: dict[str, Any]) -> str:
    from edgevit.models.fuse import FuseProof

    proof = FuseProof.from_json(stored.get("original") or stored)
    if proof.max_abs_delta_logit is None:
        return "by structure alone: fused already"
    return f"max |Δlogit| {proof.max_abs_delta_logit:.2e} on {proof.images} images"
