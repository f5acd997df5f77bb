"""`edgevit report`: one page and one JSON file about a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import click

from edgevit.choices import ReportForm
from edgevit.commands.generate import PATH
from edgevit.commands.options import force_option, json_option
from edgevit.console import say


@click.command("report")
@click.argument("run", metavar="RUN", type=PATH)
@click.option(
    "--format",
    "forms",
    multiple=True,
    default=("html",),
    show_default=True,
    type=click.Choice(get_args(ReportForm)),
    help="html: report.html, a page; md: report.md, for a pull request; junit: report.xml, a test "
    "case an artifact. May be given several times.",
)
@force_option("the report's files")
@json_option
def report_command(run: Path, forms: tuple[str, ...], force: bool, as_json: bool) -> None:
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
