"""`edgevit validate`: the artifact on labelled images, by the C++ harness, with gates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command("validate")
@click.argument("artifact", metavar="ARTIFACT", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Labelled images: a folder or tar of class folders.",
)
@click.option(
    "--program",
    metavar="M.evq",
    type=click.Path(path_type=Path),
    help="Needed for images other than those the program recorded its logits for.",
)
@click.option(
    "-o",
    "--output",
    metavar="JSON",
    type=click.Path(path_type=Path),
    help="[default: ARTIFACT/validation.json]",
)
@click.option(
    "--max-drop", type=float, help="Gate: top-1 points below float.  [default: target.toml]"
)
@click.option(
    "--min-agreement",
    type=float,
    help="Gate: percent of predictions equal to the program's.  [default: target.toml]",
)
@click.option("--no-gate", is_flag=True, help="Measure only.")
@click.option(
    "--device",
    default="local",
    show_default=True,
    metavar="local|ssh://USER@HOST[:PORT]|adb:SERIAL",
    help="Where to run; what is sent there stays for the next run.",
)
@click.option(
    "--keep/--no-keep", default=True, help="Leave what was sent on the device.  [default: keep]"
)
@click.option(
    "--harness",
    metavar="PROGRAM",
    type=click.Path(path_type=Path),
    help="edgevit-harness built for the device.  [default: the one built here]",
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 256))
@click.option("--warmup", default=10, show_default=True, type=click.IntRange(min=0))
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Only N images, evenly spread."
)
@click.option(
    "--backend",
    metavar="NAME",
    help="What runs it, such as onnxruntime for an ONNX file.  [default: the artifact's target]",
)
@click.option(
    "--runtime",
    metavar="LIB",
    type=click.Path(path_type=Path),
    help="The runtime's library.  [default: the one in its installed Python package]",
)
@click.option(
    "--plan-cache",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="TensorRT: existing folder, writable by you alone, that keeps plans.  [default: none]",
)
@click.option(
    "--duration",
    "duration_s",
    type=click.FloatRange(0.001, 3600),
    metavar="S",
    help="Go on over the images for S seconds, at least one pass; latency over time.",
)
@click.option(
    "--bucket",
    "bucket_s",
    type=click.FloatRange(0.01, 3600),
    metavar="S",
    help="Seconds a row of the latency over time.  [default: 10]",
)
@click.option("--mlperf", is_flag=True, help="At least 60 s and 1024 inferences; read the P90.")
@click.option("--early-stop", is_flag=True, help="End the run when the gates are decided.")
@click.option("--force", is_flag=True, help="Replace the JSON when it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON as well.")
def validate_command(
    artifact: Path, data: Path, output: Path | None, no_gate: bool, as_json: bool,
    **rest: Any,
) -> None:  # fmt: skip
    """Run an artifact on labelled images and gate its accuracy.

    The harness is built first when needed. Exit code 3: a gate does not hold (the JSON is
    written all the same).

    \b
    Example:
      edgevit validate build/tflite --data eurosat-val.tar
      edgevit validate build/tflite --data eurosat-val.tar --device ssh://pi@board --mlperf
    """
    from edgevit.measure.validate import validate

    found = validate(artifact, data, out=output, apply_gates=not no_gate, **rest)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, allow_nan=False))
        return
    accuracy, invoke = found.result["accuracy"], found.result["latency_us"]["invoke"]
    click.echo(f"top-1 {accuracy['top1_percent']:.2f} % of {accuracy['count']} images")
    if found.accuracy is not None and found.agreement is not None:
        click.echo(f"against {found.compared_with}: {found.accuracy}")
        click.echo(f"agreement with the program: {found.agreement.agreement:.2f} %")
    click.echo(
        f"invoke p50 {invoke['p50'] / 1e3:.2f} ms, p90 {invoke['p90'] / 1e3:.2f} ms, "
        f"{found.result['threads']} thread(s)"
    )
    for line in _more(found.result):
        click.echo(line)


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
