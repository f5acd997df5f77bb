"""`edgevit benchmark`: nets, targets and precisions, measured in turn by the C++ harness."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevit.commands.generate import PATH, options_of
from edgevit.commands.options import force_option, json_option
from edgevit.console import print_table, say
from edgevit.measure.options import BenchmarkOptions

if TYPE_CHECKING:
    from edgevit.measure.benchmark_rows import Benchmark

BUSY = 0.5
"""Processes a core that wait or run, from which on they are in a benchmark's way."""


@click.command("benchmark")
@click.argument("nets", metavar="NET...", nargs=-1, required=True)
@options_of(BenchmarkOptions)
@click.option(
    "-o",
    "--output",
    metavar="JSON",
    type=PATH,
    help="File to write the figures to after each round; the same command goes on with it after "
    "an interruption.  [default: none]",
)
@click.option(
    "--plot",
    metavar="SVG",
    type=PATH,
    help="File to draw latency against size and accuracy in; needs edgevit[plot].  [default: none]",
)
@force_option("each file written")
@json_option
def benchmark_command(
    nets: tuple[str, ...],
    output: Path | None,
    plot: Path | None,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Compare the size, compile time and latency of nets, targets and precisions.

    NET is a program (M.evq), an artifact folder, a RepViT checkpoint, the name of a published
    variant such as repvit_m1_1, or timm:NAME, which takes edgevit[train]. A program and an artifact
    are measured as they are; of anything else a program for timing alone is made and thrown away,
    with random weights where NET is a name.

    Every round runs each artifact once, in an order of its own. "× first" is the median of the
    rounds' times over those of the first row. What cannot be compiled or run here is a row that
    says why. Ctrl-C shows the rounds so far.

    \b
    Example:
      edgevit benchmark model.evq repvit_m1_1 --precision int8 --precision float32
      edgevit benchmark repvit_m0_9 --target tflite --target onnx -o bench.json --plot bench.svg
    """
    from edgevit.files import check_target
    from edgevit.measure.benchmark import BenchmarkInterrupted, benchmark
    from edgevit.measure.benchmark_plot import require_matplotlib

    if plot is not None:
        require_matplotlib()
        check_target(plot, force)
    targets, precisions = given.pop("target"), given.pop("precision")
    command = shlex.join(["edgevit", *sys.argv[1:]])
    try:
        found = benchmark(
            nets, targets, precisions, out=output, force=force, command=command, **given
        )
    except BenchmarkInterrupted as interrupted:
        _print(interrupted.result, as_json)
        raise
    _print(found, as_json)
    if plot is not None:
        found.plot(plot, force)
    for path in (output, plot):
        if path is not None and not as_json:
            say(f"wrote {path}")


def _print(found: Benchmark, as_json: bool) -> None:
    from edgevit.measure.benchmark_rows import HEADINGS, cells, notes

    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, allow_nan=False))
        return
    rows = [cells(row) for row in found.rows]
    # A column without a figure says nothing.
    kept = [i for i in range(len(HEADINGS)) if i < 3 or any(row[i] for row in rows)]
    settings, machine = found.settings, found.machine
    title = f"{settings['rounds']} rounds of {settings['inferences']}, {settings['threads']} thread"
    title += "s" * (settings["threads"] != "1") + f", {machine.get('cpu', 'not timed')}"
    print_table(
        title,
        [[row[i] for i in kept] for row in rows],
        [HEADINGS[i] for i in kept],
        right=[place for place, i in enumerate(kept) if i > 2],
        min_width=128,
    )
    load, cores = found.machine["load_averages"][0], machine.get("cores")
    say(f"load average {load} of {cores or '?'} cores when it began")
    if cores is not None and load > BUSY * cores:
        say("the machine was busy: run it again on a quiet one before a figure is used")
    for line in notes(found.rows):
        say(line)
