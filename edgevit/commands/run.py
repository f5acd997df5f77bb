"""`edgevit run`: an artifact on single images."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgevit.commands.options import runner_options


@click.command("run")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--top-k", default=3, show_default=True, type=click.IntRange(1), help="Classes.")
@runner_options
@click.option("--json", "as_json", is_flag=True, help="Print the answers as one JSON object.")
def run_command(
    folder: Path, images: tuple[Path, ...], top_k: int, as_json: bool, **options: str | None
) -> None:
    """Say what an artifact sees in images, with the preprocessing of its manifest.

    A TFLite artifact runs under LiteRT. A Core ML package runs under a reference interpreter: it
    shows that graph, weights, scales and preprocessing are right, not what an iPhone makes of them.

    \b
    Example:
      edgevit run build/coreml photo.jpg
    """
    from edgevit.measure.classify import classify

    given = {name: value for name, value in options.items() if value is not None}
    engine, answers = classify(folder, list(images), top_k, **given)
    if as_json:
        rows = {str(path): answer for path, answer in zip(images, answers)}
        click.echo(json.dumps({"engine": engine, "images": rows}, indent=2, allow_nan=False))
        return
    click.echo(engine)
    for path, answer in zip(images, answers):
        text = ", ".join(f"{row['label']} {100 * row['probability']:.1f} %" for row in answer)
        click.echo(f"{path}: {text}")
