"""`edgevit run`: single images classified with an artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgevit.commands.generate import PATH, collect, collect_given, options_of, options_of_several
from edgevit.commands.options import json_option
from edgevit.console import say
from edgevit.measure.options import ClassifyOptions
from edgevit.targets import option_classes


@click.command("run")
@click.argument("folder", metavar="ARTIFACT", type=PATH)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=PATH)
@options_of(ClassifyOptions)
@options_of_several(option_classes("RunOptions"))
@json_option
def run_command(folder: Path, images: tuple[Path, ...], as_json: bool, **given: Any) -> None:
    """Classify images with a compiled artifact, preprocessed as its manifest says.

    A TFLite artifact runs under LiteRT. A Core ML package runs under a reference interpreter,
    which shows that graph, weights, scales and preprocessing are right, but not an iPhone's own
    arithmetic.

    \b
    Example:
      edgevit run build/coreml photo.jpg
    """
    options = collect(ClassifyOptions, given)

    from edgevit.measure.classify import classify

    chosen = collect_given(option_classes("RunOptions"), given)
    engine, answers = classify(folder, list(images), options.top_k, **chosen)
    if as_json:
        rows = {str(path): answer for path, answer in zip(images, answers)}
        click.echo(json.dumps({"engine": engine, "images": rows}, indent=2, allow_nan=False))
        return
    say(engine)
    for path, answer in zip(images, answers):
        text = ", ".join(f"{row['label']} {100 * row['probability']:.1f} %" for row in answer)
        say(f"{path}: {text}")
