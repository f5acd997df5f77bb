"""`edgevit report`: one page and one JSON file about a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgevit.commands.generate import PATH, collect, options_of
from edgevit.commands.options import force_option, json_option
from edgevit.console import say
from edgevit.measure.options import ReportOptions


@click.command("report")
@click.argument("run", metavar="RUN", type=PATH)
@options_of(ReportOptions)
@force_option("the report's files")
@json_option
def report_command(run: Path, force: bool, as_json: bool, **given: Any) -> None:
    """Write report.json and a page about a run folder.

    RUN holds M.evq, artifact folders and validations. An artifact has passed when its
    validation.json is of its own bytes and its gates held. Exit code 3: a gate failed, or no
    artifact has passed one.

    \b
    Example:
      edgevit report build/
      edgevit report build/ --format md --format junit
    """
    from edgevit.errors import GateFailed
    from edgevit.measure.report.page import FORMS, print_table, write_report

    forms = collect(ReportOptions, given).format
    report = write_report(run, force, forms)
    if as_json:
        click.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        print_table(report, str(run))
        written = ["report.json", *(FORMS[form][0] for form in dict.fromkeys(forms))]
        say(f"wrote {', '.join(str(run / name) for name in written)}")
        for name, why in report["not_validated"].items():
            say(f"{name}: {why}")
    if report["passed"] is False:
        raise GateFailed(f"a gate failed in {run}: see {run / 'report.json'}")
    if not report["passed_artifacts"]:
        raise GateFailed(f"no artifact in {run} was validated: see `edgevit validate --help`")
