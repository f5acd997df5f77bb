"""`edgevit report`: one page and one JSON file about a run folder."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgevit.commands.generate import PATH
from edgevit.commands.options import force_option, json_option
from edgevit.console import say


@click.command("report")
@click.argument("run", metavar="RUN", type=PATH)
@force_option("report.html or report.json")
@json_option
def report_command(run: Path, force: bool, as_json: bool) -> None:
    """Write report.html and report.json about a run folder.

    RUN holds M.evq, artifact folders and validations. An artifact has passed when its
    validation.json is of its own bytes and its gates held. Exit code 3: a gate failed, or no
    artifact has passed one.

    \b
    Example:
      edgevit report build/
    """
    from edgevit.errors import GateFailed
    from edgevit.measure.report.page import print_table, write_report

    report = write_report(run, force)
    if as_json:
        click.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        print_table(report, str(run))
        say(f"wrote {run / 'report.html'} and {run / 'report.json'}")
        for name, why in report["not_validated"].items():
            say(f"{name}: {why}")
    if report["passed"] is False:
        raise GateFailed(f"a gate failed in {run}: see {run / 'report.html'}")
    if not report["passed_artifacts"]:
        raise GateFailed(f"no artifact in {run} was validated: see `edgevit validate --help`")
