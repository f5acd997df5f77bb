"""`edgevit inspect`: a description of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevit.commands.generate import PATH, collect, explicit, options_of
from edgevit.commands.options import json_option
from edgevit.console import print_table
from edgevit.data.options import PreprocessingOptions
from edgevit.models.named import is_timm
from edgevit.models.options import CheckpointOptions
from edgevit.options import size_text

if TYPE_CHECKING:
    from torch import nn

    from edgevit.models.checkpoint import CheckpointInfo
    from edgevit.models.timm_nets import TimmInfo


@click.command("inspect")
@click.argument("checkpoint", metavar="CKPT|timm:NAME", type=PATH)
@options_of(CheckpointOptions)
@options_of(PreprocessingOptions, only=("image_size",))
@json_option
def inspect_command(checkpoint: Path, as_json: bool, **given: Any) -> None:
    """Describe a RepViT checkpoint: variant, classes, parameters, and MACs at the image size.

    CKPT is a file of torch.save, TorchScript or safetensors in THU-MIG's or timm's naming, a
    folder as Hugging Face lays it out, or a file that `edgevit fuse` wrote. The description comes
    from the tensors alone: edgevit runs no code in the file and writes nothing.

    timm:NAME is a net of timm, filled from --weights FILE or, without it, as it is before training:
    the description says whether edgevit can quantize it and, where not, which operation and layer
    stand against it. Its image size is timm's where none is given.

    \b
    Example:
      edgevit inspect repvit_m0_9_eurosat64_timm.pth
      edgevit inspect timm:mobilenetv3_large_100 --weights mine.pth
    """
    asked, size = collect(CheckpointOptions, given), collect(PreprocessingOptions, given).image_size

    if is_timm(checkpoint):
        _inspect_timm(checkpoint, asked, explicit(PreprocessingOptions, given), as_json)
        return

    from edgevit.models.checkpoint import inspect

    info = inspect(checkpoint, variant=asked.variant, weights=asked.weights, image_size=size)
    if as_json:
        click.echo(json.dumps(info.to_json(), indent=2, allow_nan=False))
    else:
        _print_table(info)


def _inspect_timm(
    checkpoint: Path, asked: CheckpointOptions, given: dict[str, Any], as_json: bool
) -> None:
    from edgevit.models.timm_nets import load_timm, preset_of, timm_info, untrained

    size = PreprocessingOptions(**preset_of(checkpoint).merged(given)).image_size
    if asked.weights is None:
        net = untrained(checkpoint, size)
    else:
        net = load_timm(checkpoint, asked.weights, variant=asked.variant, image_size=size)
    info = timm_info(net)
    found = _merged(net, info)
    if as_json:
        click.echo(json.dumps(info.to_json() | found, indent=2, allow_nan=False))
    else:
        _print_timm(info, found)


def _merged(net: nn.Module, info: TimmInfo) -> dict[str, Any]:
    """What the tracer makes of the net: figures, or why it cannot be quantized."""
    from edgevit.errors import InputError
    from edgevit.graph import trace
    from edgevit.graph.count import count

    size = info.image_size
    sides = size if isinstance(size, tuple) else (size, size)
    try:
        graph = trace(net, (info.in_channels, *sides))
    except InputError as error:
        return {"refused": str(error), "fused_parameters": None, "fused_macs": None}
    found = count(graph)
    return {"refused": None, "fused_parameters": found.parameters, "fused_macs": found.macs}


def _print_timm(info: TimmInfo, found: dict[str, Any]) -> None:
    file = f"{info.path} ({info.size_bytes / 1e6:.1f} MB)" if info.path else "none"
    merged = found["fused_parameters"]
    rows = [("file", file)]
    if info.path:
        rows += [
            ("sha256", info.sha256),
            ("wrapped in", " → ".join(info.wrappers) or "nothing"),
            ("numbers", info.dtype),
        ]
    rows += [
        ("definition", f"timm {info.timm_version}"),
        ("input", f"{info.in_channels} channel{'s' * (info.in_channels != 1)}"),
        ("parameters", f"{info.parameters:,}" + (f" ({merged:,} fused)" if merged else "")),
    ]
    if found["refused"] is None:
        rows.append(("MACs, fused", f"{found['fused_macs']:,} at {size_text(info.image_size)} px"))
    rows.append(("edgevit quantize", "takes it" if found["refused"] is None else found["refused"]))
    for each in info.weights if len(info.weights) > 1 else ():
        rows.append(("weights", f"{each.key}{', taken' * each.taken}"))
    rows += [("note", note) for note in info.notes]
    print_table(f"{info.variant} · {info.num_classes} classes", rows)


def _print_table(info: CheckpointInfo) -> None:
    config = info.config
    se = config.se if isinstance(config.se, str) else "in some blocks"
    ablations = f"kernel {config.kernel_size}, expansion {config.expansion:g}, SE {se}"
    if config.features_only:
        title, heads = f"{info.variant} · a backbone", "none"
    else:
        title = f"{info.variant} · {info.num_classes} classes"
        heads = "two (classifier and distillation)" if info.distillation else "one"
        heads = "merged into one" if info.fused else heads
    shape = f"widths {_listed(config.widths)}, depths {_listed(config.depths)}"
    rows = [
        ("file", f"{info.path} ({info.size_bytes / 1e6:.1f} MB)"),
        ("sha256", info.sha256),
        ("naming", info.naming),
        ("wrapped in", " → ".join(info.wrappers) or "nothing"),
        ("numbers", info.dtype),
        ("fused", "yes" if info.fused else "no"),
        ("heads", heads),
        ("stages", shape),
        ("layers", ablations),
        ("input", f"{config.in_channels} channel{'s' * (config.in_channels != 1)}"),
        ("parameters", f"{info.parameters:,} ({info.fused_parameters:,} fused)"),
        ("MACs, fused", f"{info.fused_macs:,} at {size_text(info.image_size)} px"),
    ]
    if info.proof:
        rows.append(("fusion proof", _proof_text(info.proof)))
    for each in info.weights if len(info.weights) > 1 else ():
        about = f"{each.variant}, {each.num_classes} classes{', taken' * each.taken}"
        rows.append(("weights", f"{each.key}: {about}"))
    rows += [("note", note) for note in info.notes]
    print_table(title, rows)


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _proof_text(stored: dict[str, Any]) -> str:
    from edgevit.models.fuse import FuseProof

    proof = FuseProof.from_json(stored.get("original") or stored)
    if proof.max_abs_delta_logit is None:
        return "by structure alone: fused already"
    return f"max |Δlogit| {proof.max_abs_delta_logit:.2e} on {proof.images} images"
