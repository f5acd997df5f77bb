"""Options that the targets bring along, for the commands that pass them on."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import click

from edgevit.targets import load_target, target_names

Command = Callable[..., None]


def compile_options(command: Command) -> Command:
    """Every target's OPTIONS, for `compile`."""
    return _add(command, lambda target: target.OPTIONS, "  [default: {}]")


def runner_options(command: Command) -> Command:
    """Every target's RUN_OPTIONS, for the commands that run an artifact."""
    return _add(command, lambda target: target.RUN_OPTIONS, "")


def _add(
    command: Command, options: Callable[[ModuleType], dict[str, tuple[str, ...]]], default: str
) -> Command:
    """Where two targets share an option, their choices are joined."""
    users: dict[str, list[str]] = {}
    choices: dict[str, dict[str, None]] = {}
    for target in target_names():
        for option, values in options(load_target(target)).items():
            users.setdefault(option, []).append(target)
            choices.setdefault(option, {}).update(dict.fromkeys(values))
    for option, targets in reversed(users.items()):
        values = list(choices[option])
        command = click.option(
            f"--{option.replace('_', '-')}",
            type=click.Choice(values),
            help=f"For {', '.join(targets)}.{default.format(values[0])}",
        )(command)
    return command
