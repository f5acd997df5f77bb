"""`edgevit report`: one page and one JSON for a run folder."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("report")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace report.html and report.json.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def report_command(run: Path, force: bool, as_json: bool) -> None:
    """Gather a run folder (M.evq, artifact folders, validations) into report.html and report.json.

    Exit code 3: a validation in it failed its gate.

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
        click.echo(f"wrote {run / 'report.html'} and {run / 'report.json'}")
    if not report["passed"]:
        raise GateFailed(f"a gate failed in {run}: see {run / 'report.html'}")
