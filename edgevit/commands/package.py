"""`edgevit package`: an artifact and the code that runs it, as a package for an app project."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgevit.commands.generate import PATH
from edgevit.commands.options import BUILD_FOLDER, json_option
from edgevit.console import say


@click.command("package")
@click.option(
    "--target", required=True, metavar="TARGET", help="Target of the artifact, for example coreml."
)
@click.option(
    "--build",
    default=BUILD_FOLDER,
    show_default=True,
    metavar="DIR",
    type=PATH,
    help="Folder that `edgevit compile -o DIR` wrote; the artifact is DIR/<target>.",
)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    type=PATH,
    help="Folder of the package.  [default: DIR/<target>-package]",
)
@click.option(
    "--name",
    metavar="NAME",
    help="Name of the library in the package.  [default: the template's]",
)
@click.option(
    "--unvalidated",
    is_flag=True,
    help="Pack an artifact whose validation is missing or failed, too.",
)
@click.option("--force", is_flag=True, help="Replace OUT if it exists, and imply --unvalidated.")
@json_option
def package_command(
    target: str,
    build: Path,
    output: Path | None,
    name: str | None,
    unvalidated: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write an artifact and the code that runs it as a package for an app project.

    The code is the target's template (targets/<target>/deploy) and the C++ sources that
    `edgevit validate` runs. An artifact whose sha256 is not its manifest's is refused, and one
    without a validation of its own that passed.

    \b
    Example:
      edgevit package --target coreml --build build -o RepViTClassifier
    """
    from edgevit.apps import write_package

    output = build / f"{target}-package" if output is None else output
    packaged = write_package(
        target, build, output, name=name, force=force, unvalidated=unvalidated or force
    )
    if as_json:
        click.echo(json.dumps({**packaged, "path": str(output)}, indent=2))
        return
    if not packaged["validated"]:
        say(f"{build / target} has no validation that passed", error=True)
    sha256 = packaged["artifact"]["sha256"]
    say(f"{packaged['name']}: {packaged['artifact']['file']}, sha256 {sha256[:12]}...")
    if note := packaged.get("note"):
        say(f"{packaged['name']}: {note}")
    say(f"wrote {output}; {output / 'README.md'} says how an app uses it")
