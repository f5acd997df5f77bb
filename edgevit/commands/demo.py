"""`edgevit demo`: everything, on the embedded default."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click


@click.command("demo")
@click.option(
    "-o",
    "--output",
    default="build/demo",
    show_default=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
)
@click.option("--force", is_flag=True, help="Replace an earlier demo's folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def demo_command(output: Path, force: bool, as_json: bool) -> None:
    """Quantize, compile and validate a RepViT-M0.9 on a sample of EuroSAT; needs no data of yours.

    Takes up to 5 minutes on two cores and ends with a table.

    \b
    Example:
      edgevit demo
    """
    import torch

    from edgevit.demo import run_demo
    from edgevit.measure.report.page import print_table

    torch.set_num_threads(os.cpu_count() or 1)
    report = run_demo(output, force)
    if as_json:
        click.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    print_table(report, "RepViT-M0.9 on a EuroSAT sample")
    click.echo(f"{report['seconds']} s; the report is {output / 'report.html'}")
