"""`edgevit demo`: every step on the embedded images and checkpoint."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from edgevit.commands.generate import collect, options_of
from edgevit.commands.options import force_option, json_option
from edgevit.console import say
from edgevit.demo import DemoOptions


@click.command("demo")
@options_of(DemoOptions)
@force_option("the folder of an earlier demo")
@json_option
def demo_command(force: bool, as_json: bool, **given: Any) -> None:
    """Quantize, compile and validate a RepViT-M0.9 on an embedded sample of EuroSAT.

    It takes up to 5 minutes on two cores and ends with a table.

    \b
    Example:
      edgevit demo
    """
    options = collect(DemoOptions, given)

    import torch

    from edgevit.demo import run_demo
    from edgevit.measure.report.page import print_table

    torch.set_num_threads(os.cpu_count() or 1)
    report = run_demo(options.output, force)
    if as_json:
        click.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    print_table(report, "RepViT-M0.9 on a EuroSAT sample")
    say(f"{report['seconds']} s; the report is {options.output / 'report.html'}")
