"""Click options made from option classes (`edgevit.options`), so that nothing stands twice."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from edgevit.options import OptionField, option_fields

if TYPE_CHECKING:
    from click.types import OptionHelpExtra

_NUMBERS = re.compile(r"[-+]?[0-9.][-+0-9.eE]*(,[-+]?[0-9.][-+0-9.eE]*)*,?|,")

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")


class _Path(click.Path):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "\0" in os.fspath(value):
            self.fail("there is a NUL in the name", param, ctx)
        return super().convert(value, param, ctx)


PATH = _Path(path_type=Path)
"""The type of a file or folder on the command line."""


def options_of(
    cls: type, *, only: Collection[str] | None = None, without: Collection[str] = ()
) -> Callable[[Command], Command]:
    """Decorator: the options of a dataclass, in its order, with its defaults and help texts.

    `only` and `without` name fields. The command receives each by its field's name.
    """
    chosen = [
        each
        for each in option_fields(cls)
        if (only is None or each.name in only) and each.name not in without
    ]

    def add(command: Command) -> Command:
        for each in reversed(chosen):
            command = _click_option(each)(command)
        return command

    return add


def collect(cls: type[T], given: Mapping[str, Any], **more: Any) -> T:
    """An instance of the dataclass, from a command's keywords and the fields in `more`.

    Keywords of other classes are left alone. Raises InputError as the class does.
    """
    own = {each.name: given[each.name] for each in option_fields(cls) if each.name in given}
    return cls(**{**own, **more})


def explicit(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a dataclass that the running command was given, not those of their default."""
    context = click.get_current_context()
    return {
        each.name: given[each.name]
        for each in option_fields(cls)
        if each.name in given
        and context.get_parameter_source(each.name) is not ParameterSource.DEFAULT
    }


def given_flags(*classes: type, names: Collection[str] = ()) -> list[str]:
    """The options of dataclasses, and those of these names, that the running command was given."""
    own = {each.name for cls in classes for each in option_fields(cls)} | set(names)
    context = click.get_current_context()
    return [
        parameter.opts[-1]
        for parameter in context.command.params
        if parameter.name in own
        and context.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT
    ]


def options_of_several(owners: Mapping[str, type]) -> Callable[[Command], Command]:
    """Decorator: the options of several dataclasses, such as every target's, joined by name.

    owners  name of the owner -> its class
    The choices of a shared option are joined; its help names each owner and its default. The
    command receives None for an option that was not given: each owner has its own default. An
    option of several values is repeated, and each owner takes those that it knows (`own_values`).
    """
    shared: dict[str, dict[str, OptionField]] = {}
    for owner, cls in owners.items():
        for each in option_fields(cls):
            shared.setdefault(each.name, {})[owner] = each

    def add(command: Command) -> Command:
        for users in reversed(shared.values()):
            command = _shared_option(users)(command)
        return command

    return add


def collect_given(owners: Mapping[str, type], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `options_of_several` that were given on the command line."""
    names = {each.name for cls in owners.values() for each in option_fields(cls)}
    return {name: given[name] for name in names if given.get(name) not in (None, ())}


def own_values(each: OptionField, value: Any) -> Any:
    """What an owner takes of a value that several may have been given: its own choices of a list.

    None where none of a list's values is its own.
    """
    if each.form != "list" or not each.option.choices:
        return value
    return tuple(one for one in value if one in each.option.choices) or None


class _SizeType(click.ParamType):
    """224, or 224x160: height and width."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        sides = re.fullmatch(r"(\d{1,9})(?:[x×](\d{1,9}))?", value.strip().lower())
        if not sides:
            self.fail(f"{value!r} is no size: use PX, or HEIGHTxWIDTH such as 224x160", param, ctx)
        height, width = int(sides[1]), sides[2]
        return height if width is None else (height, int(width))


class _NumbersType(click.ParamType):
    """Numbers with commas or spaces between them."""

    name = "numbers"

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return tuple(self.kind(word) for word in value.replace(",", " ").split())
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 0.5,0.5,0.5", param, ctx)


class _Choice(click.Choice[str]):
    """Choices, and values that are none: whoever has the option says why it refuses them."""

    def __init__(self, choices: Collection[str], refused: Collection[str]) -> None:
        super().__init__(list(choices))
        self.refused = refused

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value in self.refused else super().convert(value, param, ctx)


class _Option(click.Option):
    """An option whose --help shows `default_text` for a default that is not a value."""

    def __init__(self, *arguments: Any, default_text: str | None = None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.default_text = default_text

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        extra = super().get_help_extra(ctx)
        return extra if self.default_text is None else {**extra, "default": self.default_text}


class _NumbersOption(_Option):
    """Takes every number that follows it: --mean 0.5 0.5 0.5 and --mean 0.5,0.5,0.5 are one."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        for name in self.opts:
            found = parser._long_opt.get(name) or parser._short_opt[name]
            process = found.process

            def gather(value: Any, state: Any, process: Any = process) -> None:
                words = [str(value)]
                while state.rargs and _NUMBERS.fullmatch(state.rargs[0]):
                    words.append(state.rargs.pop(0))
                process(" ".join(words), state)

            found.process = gather


def _click_option(each: OptionField) -> Callable[[Command], Command]:
    o = each.option
    names = [name for name in (o.short, each.flag) if name]
    if each.kind is bool and each.form == "one":
        if each.default is True:
            names[-1] += f"/--no-{each.flag.removeprefix('--')}"
        return click.option(
            *names, each.name, is_flag=True, default=each.default, show_default=True, help=o.help
        )
    more: dict[str, Any] = {}
    if each.default is MISSING:
        more["required"] = True
    elif each.form in ("list", "mapping") and not _is_numbers(each):
        more |= {"default": _words(each), "show_default": bool(each.default)}
    else:
        more |= {"default": each.default, "show_default": True, "default_text": o.default_text}
    if each.form == "tuple":
        more["nargs"] = each.length
    if each.form in ("list", "mapping") and not _is_numbers(each):
        more["multiple"] = True
    if each.form == "mapping":
        more["callback"] = _as_mapping
    metavar = o.metavar or ("KEY=VALUE" if each.form == "mapping" else None)
    kind = _click_type(each)
    cls = _NumbersOption if _is_numbers(each) else _Option
    return click.option(*names, each.name, cls=cls, type=kind, metavar=metavar, help=o.help, **more)


def _shared_option(users: Mapping[str, OptionField]) -> Callable[[Command], Command]:
    first = next(iter(users.values()))
    if {(each.kind, each.form) for each in users.values()} != {(first.kind, first.form)}:
        raise TypeError(f"{first.flag} is not of one type in {', '.join(users)}")
    if first.form not in ("one", "list"):
        raise TypeError(f"{first.flag} is a {first.form}, which targets cannot share")
    choices = list(dict.fromkeys(c for each in users.values() for c in each.option.choices))
    if choices == ["off", "on"]:
        text = f"{first.option.help} For {', '.join(users)}."
        return click.option(first.flag, first.name, flag_value="on", default=None, help=text)
    refused = {value for each in users.values() for value in each.option.refused}
    kind = _Choice(choices, refused) if choices else _click_type(first)
    if not choices and len(users) > 1:
        kind = first.kind  # ranges may differ: each class checks its own
    return click.option(
        first.flag,
        first.name,
        cls=_Option,
        type=kind,
        multiple=first.form == "list",
        metavar=first.option.metavar,
        help=_shared_help(users),
        default_text=_shared_default(users),
    )


def _shared_help(users: Mapping[str, OptionField]) -> str:
    if len({each.option.help for each in users.values()}) == 1:
        return f"{next(iter(users.values())).option.help} For {', '.join(users)}."
    return " ".join(f"{name}: {each.option.help}" for name, each in users.items())


def _shared_default(users: Mapping[str, OptionField]) -> str:
    defaults = {
        name: _text(each.default)
        if each.default is not None
        else each.option.default_text or "none"
        for name, each in users.items()
    }
    if len(set(defaults.values())) == 1:
        return next(iter(defaults.values()))
    return ", ".join(f"{default} for {name}" for name, default in defaults.items())


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _is_numbers(each: OptionField) -> bool:
    return each.form == "list" and each.kind in (int, float)


def _click_type(each: OptionField) -> Any:
    o = each.option
    if each.form == "size":
        return _SizeType()
    if _is_numbers(each):
        return _NumbersType(each.kind)
    if o.choices:
        return _Choice(o.choices, o.refused)
    if each.kind is Path:
        return PATH
    low = o.above if o.minimum is None else o.minimum
    high = o.below if o.maximum is None else o.maximum
    if low is None and high is None:
        return each.kind
    open_ends = {
        "min_open": o.minimum is None and o.above is not None,
        "max_open": o.maximum is None and o.below is not None,
    }
    if each.kind is int:
        lowest, highest = (None if bound is None else int(bound) for bound in (low, high))
        return click.IntRange(lowest, highest, **open_ends)
    return click.FloatRange(low, high, **open_ends)


def _words(each: OptionField) -> Sequence[Any]:
    if each.form == "mapping":
        return [f"{key}={value}" for key, value in each.default.items()]
    return each.default


def _as_mapping(
    _context: click.Context, parameter: click.Parameter, words: tuple[str, ...]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not key or not sign:
            raise click.BadParameter(f"{word!r} is not KEY=VALUE", param=parameter)
        if key in found:
            raise click.BadParameter(f"{key} is given twice", param=parameter)
        found[key] = value
    return found
