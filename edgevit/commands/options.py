"""Options that the targets bring along, for the commands that pass them on."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import click

from edgevit.targets import load_target, target_names

Command = Callable[..., None]


def compile_options(command: Command) -> Command:
    """Every target's OPTIONS, for `compile`."""
    return _add(command, lambda target: target.OPTIONS, default=True)


def runner_options(command: Command) -> Command:
    """Every target's RUN_OPTIONS, for the commands that run an artifact."""
    return _add(command, lambda target: target.RUN_OPTIONS, default=False)


def _add(
    command: Command, options: Callable[[ModuleType], dict[str, tuple[str, ...]]], default: bool
) -> Command:
    """Where two targets share an option, their choices are joined.

    The choices "off" and "on" make a flag.
    """
    users: dict[str, dict[str, str]] = {}
    choices: dict[str, dict[str, None]] = {}
    for target in target_names():
        for option, values in options(load_target(target)).items():
            users.setdefault(option, {})[target] = values[0]
            choices.setdefault(option, {}).update(dict.fromkeys(values))
    for option, targets in reversed(users.items()):
        values, name = list(choices[option]), f"--{option.replace('_', '-')}"
        text = f"For {', '.join(targets)}."
        if values == ["off", "on"]:
            command = click.option(name, flag_value="on", default=None, help=text)(command)
            continue
        if default:
            shown = dict.fromkeys(targets.values())
            each = ", ".join(f"{first} for {user}" for user, first in targets.items())
            text += f"  [default: {next(iter(shown)) if len(shown) == 1 else each}]"
        command = click.option(name, type=click.Choice(values), help=text)(command)
    return command
