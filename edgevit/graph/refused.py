"""What to do about an operation that no program may hold: where it is called, what can be taken."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import PurePath
from typing import Any

NO_TARGET = "no target of edgevit takes it"
"""What no program may hold, none of the targets gets."""

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in ')
_LIBRARY = re.compile(r"[/\\]torch[/\\]")


def what_to_do(
    call: Any,
    calls: Sequence[Any],
    leaves: Collection[str],
    source: str,
) -> str:
    """The end of the message about a call that is refused, for whoever wrote the net.

    calls       of the exported program, in order
    leaves      paths of the modules without children
    source      name of the net's input in the calls
    """
    place = _place(call)
    text = f"; it is called in {place}, and {NO_TARGET}. " if place else f"; {NO_TARGET}. "
    text += (
        "Write it with other operations; or, where it only turns the answers into boxes, classes "
        "or another order, give out what it reads and do that outside of the net"
    )
    body = _body_before(call, calls, leaves, source)
    if body is None:
        return text
    named = all(part.isidentifier() for part in body.split("."))
    given = f"net.{body}" if named else f'net.get_submodule("{body}")'
    return (
        f"{text}. {body!r} comes before it and can be quantized alone: "
        f'edgevit.quantize({given}, ..., task="features")'
    )


def _place(call: Any) -> str | None:
    """File and line of the innermost frame that is not torch's own."""
    frames = _FRAME.findall(call.meta.get("stack_trace") or "")
    own = [(file, line) for file, line in frames if not _LIBRARY.search(file)]
    return f"{PurePath(own[-1][0]).name}, line {own[-1][1]}" if own else None


def _body_before(
    call: Any,
    calls: Sequence[Any],
    leaves: Collection[str],
    source: str,
) -> str | None:
    """The largest module that takes the net's input and is through before the call."""
    index = next(i for i, each in enumerate(calls) if each is call)
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    count: dict[str, int] = {}
    for i, each in enumerate(calls):
        # Modules that were called: a ModuleDict that only holds others is none.
        for path, _ in (each.meta.get("nn_module_stack") or {}).values():
            first.setdefault(path, i)
            last[path], count[path] = i, count.get(path, 0) + 1
    found = [
        path
        for path in first
        if path
        and path not in leaves
        and last[path] < index
        and any(str(argument) == source for argument in calls[first[path]].args)
    ]
    return max(found, key=lambda path: count[path], default=None)
