"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from edgevit.commands.generate import Command

BUILD_FOLDER = Path("build")
"""The folder that `compile` writes and `package` reads, unless another is named."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def force_option(what: str) -> Callable[[Command], Command]:
    """--force: replace `what`, such as "M.evq"."""
    return click.option("--force", is_flag=True, help=f"Replace {what} if it exists.")
