"""What the site says of commands and of the library: their own help texts and docstrings.

mkdocs calls `on_page_markdown` for each page; a comment there is replaced.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import click

import edgevit
from edgevit.cli import cli

WIDTH = 100


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with the reference in place of its comment."""
    for comment, made in (("<!-- commands -->", commands), ("<!-- python -->", library)):
        if comment in markdown:
            markdown = markdown.replace(comment, made())
    return markdown


def commands() -> str:
    """A section a command: its help."""
    context = click.Context(cli, info_name="edgevit")
    parts = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None, name
        own = click.Context(
            command, info_name=name, parent=context, terminal_width=WIDTH, max_content_width=WIDTH
        )
        parts.append(f"## edgevit {name}\n\n{_block(command.get_help(own))}")
    return "\n\n".join(parts)


def library() -> str:
    """A section a public name: its signature and docstring, and those of a class's methods."""
    return "\n\n".join(_described(name) for name in edgevit.__all__ if name != "__version__")


def _described(name: str) -> str:
    value = getattr(edgevit, name)
    if inspect.ismodule(value):  # `edgevit.quantize` is a package that can be called
        value = importlib.import_module(f"edgevit.{name}.pipeline").quantize
    lines = [f"{_signature(f'edgevit.{name}', value)}\n{inspect.getdoc(value) or ''}"]
    if inspect.isclass(value):
        for own, member in vars(value).items():
            text = inspect.getdoc(getattr(value, own, None))
            if own.startswith("_") or not text or not _is_own(member):
                continue
            lines.append(_indented(f"{_signature(own, getattr(value, own))}\n{_indented(text)}"))
    return f"## {name}\n\n" + _block("\n\n".join(lines))


def _is_own(member: Any) -> bool:
    return callable(member) or isinstance(member, property | classmethod | staticmethod)


def _signature(name: str, value: Any) -> str:
    if not callable(value):
        return name
    try:
        signature = inspect.signature(value)
    except ValueError:  # exceptions have none
        return name
    text = f"{name}{signature}"
    if len(text) > WIDTH:
        each = [str(parameter) for parameter in signature.parameters.values()]
        kinds = [parameter.kind for parameter in signature.parameters.values()]
        if (
            inspect.Parameter.KEYWORD_ONLY in kinds
            and inspect.Parameter.VAR_POSITIONAL not in kinds
        ):
            each.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
        returned = text[text.rindex(")") + 1 :]
        text = f"{name}(\n" + "".join(f"    {one},\n" for one in each) + f"){returned}"
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


def _block(text: str) -> str:
    return f"```text\n{text}\n```"
