"""`edgevit validate`: the artifact on labelled images, by the C++ harness, with gates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgevit.commands.generate import PATH, collect, options_of
from edgevit.commands.options import force_option, json_option
from edgevit.console import say
from edgevit.measure.request import HarnessRequest, ValidateOptions


@click.command("validate")
@click.argument("artifact", metavar="ARTIFACT", type=PATH)
@options_of(HarnessRequest, without=("artifact", "out", "leave_out", "reference", "maps_last"))
@click.option(
    "--plan-cache",
    metavar="DIR",
    help="TensorRT: existing folder, writable by you alone, that keeps plans; the same as "
    "-O plan_cache=DIR.  [default: none]",
)
@options_of(ValidateOptions)
@click.option(
    "-o",
    "--output",
    metavar="JSON",
    type=PATH,
    help="File to write the figures to.  [default: ARTIFACT/validation.json]",
)
@force_option("each file written")
@json_option
def validate_command(
    artifact: Path, output: Path | None, force: bool, as_json: bool, plan_cache: str | None,
    **given: Any,
) -> None:  # fmt: skip
    """Run an artifact on labelled images and gate its accuracy.

    An artifact of features takes any folder of images: each output is gated against the program's.
    The harness is built first when needed. Exit code 3: a gate does not hold (the JSON is
    written all the same).

    \b
    Example:
      edgevit validate build/tflite --data eurosat-val.tar
      edgevit validate build/tflite --data eurosat-val.tar --device ssh://pi@board --mlperf
      edgevit validate build/coreml --data eurosat-val.tar -O compute_units=cpu-ane
    """
    from edgevit.measure.validate import validate

    if plan_cache is not None:
        if "plan_cache" in given["runtime_options"]:
            raise click.UsageError("--plan-cache and -O plan_cache=DIR are the same; give one")
        given["runtime_options"]["plan_cache"] = plan_cache
    request = collect(HarnessRequest, given, artifact=artifact)
    found = validate(request, collect(ValidateOptions, given), out=output, force=force)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, allow_nan=False))
        return
    accuracy, invoke = found.result["accuracy"], found.result["latency_us"]["invoke"]
    if accuracy is not None:
        say(f"top-1 {accuracy['top1_percent']:.2f} % of {accuracy['count']} images")
    if found.outputs is not None:
        say(f"outputs {found.outputs}")
    if found.accuracy is not None and found.agreement is not None:
        say(f"against {found.compared_with}: {found.accuracy}")
        say(f"agreement with the program: {found.agreement.agreement:.2f} %")
    say(
        f"invoke p50 {invoke['p50'] / 1e3:.2f} ms, p90 {invoke['p90'] / 1e3:.2f} ms, "
        f"{found.result['threads']} thread(s)"
    )
    for line in _more(found.result):
        say(line)


def _more(result: dict[str, Any]) -> list[str]:
    """What a long run and an early stop have to say."""
    from edgevit.measure.report.long_run import sentences

    lines = [] if result["long_run"] is None else sentences(result["long_run"])
    stop = result["early_stop"]
    if stop is not None and stop["stopped"]:
        lines.append(
            f"stopped early after {stop['images_run']} of {stop['images']} images: "
            + {"holds": "both gates hold whatever the rest gives; the figures against float and "
               "program count the rest as wrong",
               "fails": "a gate cannot hold any more"}[stop["verdict"]]
        )  # fmt: skip
    return lines
