"""`edgevit compile`: a quantized program into an artifact folder per target."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgevit.commands.options import compile_options
from edgevit.errors import InputError
from edgevit.targets import load_target, target_names

if TYPE_CHECKING:
    from edgevit.targets.manifest import Manifest


@click.command("compile")
@click.argument("program_file", metavar="M.evq", type=click.Path(path_type=Path))
@click.option(
    "--target",
    "targets",
    multiple=True,
    required=True,
    type=click.Choice(target_names()),
    help="What to compile for; give it again for another.",
)
@click.option(
    "-o",
    "--output",
    default="build",
    show_default=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The artifact goes to DIR/<target>.",
)
@compile_options
@click.option("--force", is_flag=True, help="Replace an artifact folder that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifests as one JSON object.")
def compile_command(
    program_file: Path,
    targets: tuple[str, ...],
    output: Path,
    force: bool,
    as_json: bool,
    **options: str | None,
) -> None:
    """Compile a quantized program: its scales as they are, nothing calibrated anew.

    Every scale, zero-point, weight and bias is read back out of the written artifact and compared
    with the program; a difference stops the build, and nothing is kept.

    \b
    Example:
      edgevit compile model.evq --target tflite --target coreml -o build
    """
    from edgevit.files import check_target
    from edgevit.program import Program

    given = {name: value for name, value in options.items() if value is not None}
    chosen = {name: load_target(name) for name in dict.fromkeys(targets)}
    for option in given:
        if not any(option in target.OPTIONS for target in chosen.values()):
            raise InputError(
                f"--{option.replace('_', '-')} is not an option of {', '.join(chosen)}"
            )
    for name in chosen:
        check_target(output / name, force)
    program = Program.load(program_file)
    manifests: dict[str, Manifest] = {}
    for name, target in chosen.items():
        own = {key: value for key, value in given.items() if key in target.OPTIONS}
        manifests[name] = target.compile_program(program, output / name, force, **own)
        if not as_json:
            _print_summary(manifests[name], output / name)
    if as_json:
        click.echo(
            json.dumps(
                {name: manifest.to_json() for name, manifest in manifests.items()},
                indent=2,
                allow_nan=False,
            )
        )


def _print_summary(manifest: Manifest, folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    artifact, audit = manifest.artifact, manifest.audit
    table = Table(title=f"{manifest.target}: {manifest.model.variant}", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("profile", manifest.profile)
    edges = [("input", manifest.input), *(("output", each) for each in manifest.outputs)]
    for name, tensor in edges:
        how = "" if tensor.scale is None else f", scale {tensor.scale:.6g}, "
        how += "" if tensor.scale is None else f"zero-point {tensor.zero_point}"
        table.add_row(name, f"{tensor.dtype} {list(tensor.shape)}{how}")
    table.add_row("operators", ", ".join(f"{n} {op}" for op, n in manifest.ops.items()))
    table.add_row("options", ", ".join(f"{k} {v}" for k, v in manifest.options.items()))
    table.add_row(
        "scale audit",
        f"exact: {audit.activations} activations, {audit.weight_channels} weight channels"
        if audit
        else "none: a float artifact, to compare with",
    )
    table.add_row("dropped quantizers", _few(manifest.drops))
    table.add_row("size", f"{artifact.size_bytes / 1e6:.2f} MB")
    table.add_row("written to", str(folder))
    Console().print(table)


def _few(names: Sequence[str], most: int = 8) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + rest
