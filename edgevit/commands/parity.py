"""`edgevit parity`: artifacts compared with their program, layer by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevit.commands.generate import PATH, collect, collect_given, options_of, options_of_several
from edgevit.commands.options import force_option, json_option
from edgevit.measure.options import ParityOptions
from edgevit.options import option_fields
from edgevit.targets import load_target, option_classes, unknown_option

if TYPE_CHECKING:
    from edgevit.measure.parity import Parity


@click.command("parity")
@click.argument("folders", metavar="ARTIFACT...", nargs=-1, required=True, type=PATH)
@click.option(
    "--data",
    required=True,
    metavar="DIR",
    type=PATH,
    help="Labelled images: a folder or tar of class folders.",
)
@click.option(
    "--program",
    metavar="M.evq",
    type=PATH,
    help="Program that the artifact was compiled from.  [default: the file beside the artifact "
    "folder that the manifest names]",
)
@options_of(ParityOptions)
@options_of_several(option_classes("RunOptions"))
@click.option("--all", "every", is_flag=True, help="Print every layer, not only the worst.")
@force_option("parity.json")
@json_option
def parity_command(
    folders: tuple[Path, ...],
    data: Path,
    program: Path | None,
    every: bool,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Compare artifacts with their program: every layer, and every prediction.

    The figures are written to parity.json in each ARTIFACT. TFLite artifacts run under LiteRT.
    Core ML packages run under a reference interpreter, which shows neither an iPhone's own
    arithmetic nor its latency. Exit code 3: an artifact is below --min-agreement.

    \b
    Example:
      edgevit parity build/tflite build/coreml --data val.tar
    """
    options = collect(ParityOptions, given)

    from edgevit.files import check_target
    from edgevit.measure.own_file import is_own
    from edgevit.measure.parity import KIND, check_agreement, compare
    from edgevit.targets.manifest import PARITY_FILE

    own = _own_options(list(dict.fromkeys(folders)), given)
    for folder in own:
        check_target(folder / PARITY_FILE, force or is_own(folder / PARITY_FILE, KIND))
    found = {
        str(folder): compare(
            folder,
            data,
            program=program,
            layer_images=options.layer_images,
            images=options.images,
            device=options.device,
            force=force,
            **chosen,
        )
        for folder, chosen in own.items()
    }
    _print(found, every, as_json)
    check_agreement(found, options.min_agreement)


def _own_options(folders: list[Path], given: dict[str, Any]) -> dict[Path, dict[str, Any]]:
    """Each folder's part of its target's run options.

    Raises InputError for a folder that is no artifact and an option that none of them has.
    """
    from edgevit.targets.manifest import Manifest

    asked = collect_given(option_classes("RunOptions"), given)
    targets = {folder: Manifest.load(folder).target for folder in folders}
    known = {
        folder: {each.name for each in option_fields(load_target(target).RunOptions)}
        for folder, target in targets.items()
    }
    for name in asked:
        if not any(name in names for names in known.values()):
            raise unknown_option(name, list(dict.fromkeys(targets.values())), "RunOptions")
    return {
        folder: {name: value for name, value in asked.items() if name in known[folder]}
        for folder in folders
    }


def _print(found: dict[str, Parity], every: bool, as_json: bool) -> None:
    from edgevit.measure.parity import print_table

    if as_json:
        rows = {name: parity.to_json() for name, parity in found.items()}
        click.echo(json.dumps(rows, indent=2, allow_nan=False))
        return
    short = {Path(name).name: parity for name, parity in found.items()}
    print_table(short if len(short) == len(found) else found, every)
