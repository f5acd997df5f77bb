"""--config: a command's options from a TOML or YAML file, and the file written back.

A key is an option's name on the command line without its dashes, or an argument's in lower case
("ckpt"); "_" and "-" are one. A value has the option's own type: nothing is converted, but an
integer for a number. What the command line says goes first.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from edgevit.commands.generate import PATH, Command
from edgevit.console import printable
from edgevit.errors import InputError
from edgevit.files import read_file
from edgevit.options import OptionField, option_fields

MAX_BYTES = 2**20
_LEFT_OUT = ("config", "help", "fresh", "force", "json")
"""Options of one call alone, which no file holds."""
_POWER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


def config_option(*classes: type) -> Callable[[Command], Command]:
    """Decorator: --config, for a command whose options come from these dataclasses, and others."""

    def apply(context: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
        if path is not None:
            context.default_map = _values(path, context.command, _fields(classes))
        return path

    return click.option(
        "--config",
        type=PATH,
        metavar="FILE",
        is_eager=True,
        callback=apply,
        help="TOML or YAML file of these options, by their names; the command line goes first.",
    )


def config_text(context: click.Context, given: Mapping[str, Any]) -> str:
    """The options of the running command as TOML, which `--config` reads back.

    given   values by parameter name, as the command uses them; None is left out
    """
    lines = [f"# edgevit {context.command.name}"]
    for parameter in context.command.params:
        value = given.get(parameter.name or "")
        if value is None or value in ((), {}) or _key(parameter) in _LEFT_OUT:
            continue
        lines.append(f"{_key(parameter)} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _fields(classes: tuple[type, ...]) -> dict[str, OptionField]:
    return {each.name: each for cls in classes for each in option_fields(cls)}


def _key(parameter: click.Parameter) -> str:
    """What a parameter is called in a file."""
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len).removeprefix("--")
    return str(parameter.metavar or parameter.name).lower()


def _values(
    path: Path, command: click.Command, fields: Mapping[str, OptionField]
) -> dict[str, Any]:
    """The file's values by parameter name. Raises InputError naming the key."""
    known = {_key(each): each for each in command.params if _key(each) not in _LEFT_OUT}
    found: dict[str, Any] = {}
    for key, value in _read(path).items():
        parameter = known.get(str(key).replace("_", "-"))
        if parameter is None or parameter.name is None:
            raise InputError(f"{path}: {_unknown(str(key), command, list(known))}")
        if parameter.name in found:
            raise InputError(f"{path}: {key!r} is given twice")
        found[parameter.name] = _checked(path, str(key), value, parameter, fields)
    return found


def _unknown(key: str, command: click.Command, known: list[str]) -> str:
    near = difflib.get_close_matches(key.replace("_", "-"), known, 1)
    hint = f"; is it {near[0]!r}?" if near else ""
    return f"edgevit {command.name} has no option {key!r} for a file{hint}"


def _checked(
    path: Path,
    key: str,
    value: Any,
    parameter: click.Parameter,
    fields: Mapping[str, OptionField],
) -> Any:
    field = fields.get(parameter.name or "")
    if field is not None:
        # YAML 1.1 takes 1e-4 for a text: it wants 1.0e-4.
        if field.kind is float and isinstance(value, str) and _POWER.fullmatch(value):
            value = float(value)
        try:
            checked = field.checked(value)
        except InputError as error:
            raise InputError(f"{path}: {key!r}: {error}") from error
        is_mapping = isinstance(checked, Mapping)
        return [f"{k}={v}" for k, v in checked.items()] if is_mapping else checked
    kind, noun = (
        (bool, "true or false") if getattr(parameter, "is_flag", False) else (str, "a text")
    )
    if not isinstance(value, kind):
        raise InputError(f"{path}: {key!r} is of type {type(value).__name__}, it must be {noun}")
    return value


def _read(path: Path) -> dict[Any, Any]:
    """The mapping that the file holds. Raises InputError with the line of a mistake."""
    try:
        text = read_file(path, MAX_BYTES, "a file of options").decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no UTF-8 text: {error}") from error
    if path.suffix.lower() == ".toml":
        try:
            return tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise InputError(f"{path}: is no TOML: {error}") from error
    if path.suffix.lower() in (".yaml", ".yml"):
        return _read_yaml(path, text)
    raise InputError(f"{path}: a file of options ends in .toml, .yaml or .yml")


def _read_yaml(path: Path, text: str) -> dict[Any, Any]:
    import yaml

    try:
        # An alias may make a few lines a value without end.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise InputError(f"{path}: aliases (*name) are not known here")
        root = yaml.compose(text, yaml.SafeLoader)
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or not isinstance(root, yaml.MappingNode):
        raise InputError(f"{path}: must hold lines of 'option: value'")
    lines: dict[Any, int] = {}
    for key, _ in root.value:
        line = key.start_mark.line + 1
        if (first := lines.setdefault(key.value, line)) != line:
            raise InputError(f"{path}: line {line}: {key.value!r} is on line {first} already")
    return found


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        rows = (f"{_toml(name)} = {_toml(text)}" for name, text in value.items())
        return f"{{ {', '.join(rows)} }}"
    # A JSON text is a TOML one, but for DEL, which `printable` spells out as it does the others.
    return json.dumps(printable(str(value), keep=""), ensure_ascii=False)
