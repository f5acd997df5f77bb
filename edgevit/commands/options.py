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


def program_option(default: str) -> Callable[[Command], Command]:
    """--program: the program that an artifact is compared with, None for the `default`."""
    return click.option(
        "--program",
        metavar="M.evq",
        type=click.Path(path_type=Path),
        help=f"Program that the artifact was compiled from.  [default: {default}]",
    )
