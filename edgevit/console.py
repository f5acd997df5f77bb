"""What people see on a terminal: text of any origin, shown as it is and never obeyed.

Names of files, classes and tensors come from strangers. A control character in one would reach the
terminal, and brackets would be markup to `rich`: here they are text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import Any

_MIN_WIDTH = 72
"""Columns that a table takes where the terminal has fewer: cells must not be cut away."""
_ESCAPED = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNING = frozenset(
    map(chr, (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))
)


def printable(text: str, keep: str = "\n") -> str:
    """The text with control characters, bytes that are not UTF-8 and changes of the writing
    direction spelled out, such as "\\x1b"; those in `keep` stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(each) if each not in keep else each for each in text)


def _spelled(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED and character not in _TURNING:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def storable(value: Any) -> Any:
    """A JSON value with every text `printable`: names of files need not be UTF-8, as JSON is."""
    if isinstance(value, dict):
        return {key: storable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [storable(each) for each in value]
    return printable(value) if isinstance(value, str) else value


def say(text: str, error: bool = False) -> None:
    """Print text, made `printable`, on standard output, or on standard error."""
    import click

    click.echo(printable(text), err=error)


def print_table(
    title: str,
    rows: Iterable[Sequence[str]],
    headings: Sequence[str] = (),
    *,
    right: Collection[int] = (),
    min_width: int = _MIN_WIDTH,
) -> None:
    """Print a table on standard output.

    headings    of the columns; without, the first column names what the second holds
    right       columns that are numbers, and so aligned on the right
    min_width   characters that it takes even where the terminal has fewer
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    table = Table(title=Text(printable(title, keep="")), show_header=bool(headings))
    for i in range(len(headings or rows[0])):
        table.add_column(
            Text(printable(headings[i])) if headings else "",
            justify="right" if i in right else "left",
            no_wrap=i == 0,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(printable(cell, keep="")) for cell in row))
    Console(width=max(Console().width, min_width), markup=False, highlight=False).print(table)
