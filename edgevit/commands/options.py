"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from edgevit.commands.generate import PATH, Command

BUILD_FOLDER = Path("build")
"""The folder that `compile` writes and `package` reads, unless another is named."""
MAX_LABELS_BYTES = 64 * 2**20

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def force_option(what: str) -> Callable[[Command], Command]:
    """--force: replace `what`, such as "M.evq"."""
    return click.option("--force", is_flag=True, help=f"Replace {what} if it exists.")


def labels_option(what: str, default: str) -> Callable[[Command], Command]:
    """--labels: a file with one `what` per line, such as "class name"; see `read_labels`."""
    return click.option(
        "--labels",
        metavar="FILE",
        type=PATH,
        help=f"Text file with one {what} per line, in the order of the logits.  "
        f"[default: {default}]",
    )


def read_labels(path: Path | None) -> tuple[str, ...] | None:
    """The labels in a text file, one per line.

    Raises InputError when the file is missing or empty, or repeats a label.
    """
    from edgevit.errors import InputError
    from edgevit.files import read_file

    if path is None:
        return None
    data = read_file(path, MAX_LABELS_BYTES, "a list of labels")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"--labels {path}: cannot be read: {error}") from error
    labels = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not labels or len(set(labels)) != len(labels):
        raise InputError(f"--labels {path}: must hold one label per line, each different")
    return labels
