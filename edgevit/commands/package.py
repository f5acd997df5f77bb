"""`edgevit package`: an artifact folder into a package that an app project takes in."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("package")
@click.option("--target", required=True, metavar="TARGET", help="What was compiled for: coreml, ….")
@click.option(
    "--build",
    default="build",
    show_default=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The artifact is DIR/<target>, as `edgevit compile -o DIR` wrote it.",
)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="[default: DIR/<target>-package]",
)
@click.option("--name", help="The library's name in the package.  [default: the template's]")
@click.option("--force", is_flag=True, help="Replace a package that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print what the package holds as JSON.")
def package_command(
    target: str, build: Path, output: Path | None, name: str | None, force: bool, as_json: bool
) -> None:
    """Put an artifact and the code that runs it into a package for an app project.

    The code is the target's template (targets/<target>/deploy) and the sources that the accuracy
    was measured with. The artifact goes in only with the sha256 that its manifest names.

    \b
    Example:
      edgevit package --target coreml --build build -o RepViTClassifier
    """
    from edgevit.apps import write_package

    output = build / f"{target}-package" if output is None else output
    packaged = write_package(target, build, output, name=name, force=force)
    if as_json:
        click.echo(json.dumps({**packaged, "path": str(output)}, indent=2))
        return
    sha256 = packaged["artifact"]["sha256"]
    click.echo(f"{packaged['name']}: {packaged['artifact']['file']}, sha256 {sha256[:12]}...")
    click.echo(f"wrote {output}; {output / 'README.md'} says how an app uses it")
