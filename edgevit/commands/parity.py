"""`edgevit parity`: artifacts against their program, layer by layer, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgevit.commands.options import runner_options

if TYPE_CHECKING:
    from edgevit.measure.parity import Parity


@click.command("parity")
@click.argument(
    "folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--data",
    required=True,
    metavar="DATA",
    type=click.Path(path_type=Path),
    help="Labelled images: a folder or uncompressed tar of class folders.",
)
@click.option(
    "--program",
    metavar="M.evq",
    type=click.Path(path_type=Path),
    help="[default: the file of the manifest's name beside the artifact folder]",
)
@click.option(
    "--layer-images",
    default=32,
    show_default=True,
    type=click.IntRange(1),
    help="Images compared layer by layer.",
)
@click.option(
    "--images", type=click.IntRange(1), help="Images predicted, spread evenly.  [default: all]"
)
@click.option(
    "--min-agreement",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="Exit with 3 when fewer predictions are the program's.  [default: no gate]",
)
@runner_options
@click.option("--all", "every", is_flag=True, help="Print every layer, not the worst alone.")
@click.option("--force", is_flag=True, help="Replace parity.json.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def parity_command(
    folders: tuple[Path, ...],
    data: Path,
    program: Path | None,
    layer_images: int,
    images: int | None,
    min_agreement: float | None,
    every: bool,
    force: bool,
    as_json: bool,
    **options: str | None,
) -> None:
    """Compare artifacts with their program: every layer, and every prediction.

    Writes parity.json into each DIR. TFLite artifacts run under LiteRT; Core ML packages under a
    reference interpreter, which says nothing of an iPhone's own arithmetic or latency.
    Exit code 3: an artifact is below --min-agreement.

    \b
    Example:
      edgevit parity build/tflite build/coreml --data val.tar
    """
    from edgevit.files import check_target
    from edgevit.measure.parity import FILE_NAME, check_agreement, compare
    from edgevit.targets import load_target
    from edgevit.targets.manifest import Manifest

    given = {name: value for name, value in options.items() if value is not None}
    own = {}
    for folder in dict.fromkeys(folders):
        check_target(folder / FILE_NAME, force)
        known = load_target(Manifest.load(folder).target).RUN_OPTIONS
        own[folder] = {name: value for name, value in given.items() if name in known}
    for name in given:
        if not any(name in chosen for chosen in own.values()):
            raise click.UsageError(f"--{name} is not an option of {', '.join(map(str, folders))}")
    found = {
        str(folder): compare(
            folder, data, program=program, layer_images=layer_images, images=images, force=force,
            **chosen,
        )
        for folder, chosen in own.items()
    }  # fmt: skip
    _print(found, every, as_json)
    check_agreement(found, min_agreement)


def _print(found: dict[str, Parity], every: bool, as_json: bool) -> None:
    from edgevit.measure.parity import print_table

    if as_json:
        rows = {name: parity.to_json() for name, parity in found.items()}
        click.echo(json.dumps(rows, indent=2, allow_nan=False))
        return
    short = {Path(name).name: parity for name, parity in found.items()}
    print_table(short if len(short) == len(found) else found, every)
