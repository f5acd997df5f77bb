"""Every error edgevit raises on purpose, and the exit code each one ends a command with.

EdgevitError            1   something inside edgevit went wrong
├── InputError          2   bad usage or bad input: a file, an option, an image set
├── GateFailed          3   the result was computed, and it is not good enough
└── ToolMissing         4   a toolkit, compiler or device that the command needs is not here

Interrupted           130   Ctrl-C in work that can be gone on with; no EdgevitError
"""

from typing import Any


class EdgevitError(Exception):
    """Base class; the message says what is wrong, where, and what to do about it."""

    exit_code = 1


class InputError(EdgevitError):
    """Bad usage or input. Nothing was written."""

    exit_code = 2


class GateFailed(EdgevitError):
    """An accuracy or agreement gate did not hold. The measured figures are in the message.

    `result` is what was computed all the same, where there is something.
    """

    exit_code = 3
    result: Any = None


class ToolMissing(EdgevitError):
    """A toolkit, library, compiler or device is missing. The message names how to get it."""

    exit_code = 4


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or a polite kill. The message says what is kept and how to go on."""
