"""`edgevit doctor`: the toolkits, tools and targets that are usable on this machine."""

from __future__ import annotations

import json
from typing import Any

import click

from edgevit.commands.options import json_option
from edgevit.console import print_table


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> None:
    """List the toolkits, tools and targets that are usable on this machine.

    \b
    Example:
      edgevit doctor
    """
    from edgevit.doctor import examine

    found = examine()
    if as_json:
        click.echo(json.dumps(found, indent=2, allow_nan=False))
        return
    _print(found)


def _print(found: dict[str, Any]) -> None:
    tables = (
        ("toolkits and tools", found["tools"]),
        ("targets", found["targets"]),
        ("compilers of NPUs", found["npus"]),
    )
    for title, rows in tables:
        cells = [(row["name"], row["state"], row["purpose"]) for row in rows]
        print_table(title, cells, ("name", "here", "for"))
