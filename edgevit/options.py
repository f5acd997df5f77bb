"""Options as dataclass fields: default, choices, range and help text of each stand in one place.

    @dataclass(frozen=True)
    class TrainOptions:
        epochs: float = option(4.0, "Passes over the training images.", minimum=0)
        seed: int = option(0, "Seed of every random choice.", minimum=0, below=2**32)

        def __post_init__(self) -> None:
            check(self)

The Python API takes the class; `edgevit.commands.generate` makes the command's options from it.
A field's type says what it holds: bool, int, float, str, Path, a Literal of strings, any of these
or None, tuple[T, T], tuple[T, ...], dict[str, str], or a `Size`. Fields without `option` are left
alone.
"""

from __future__ import annotations

import math
import numbers
import os
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from edgevit.errors import InputError

Form = Literal["one", "tuple", "list", "mapping", "size"]

Size = tuple[int, int] | int
"""(height, width) in pixels, or one number for a square."""

_METADATA_KEY = "edgevit.option"
_INTEGER_LIMIT = 2**63
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_NOUNS = {
    bool: "true or false", int: "an integer", float: "a number", str: "a text", Path: "a path",
}  # fmt: skip
_SHOWN_CHARACTERS = 80


def size_text(size: Size) -> str:
    """A size for people: "224", or "224x160", height x width."""
    return "x".join(map(str, size)) if isinstance(size, tuple) else str(size)


@dataclass(frozen=True)
class Option:
    """What `option` was given; the bounds hold for each number of a tuple."""

    help: str
    refused: Mapping[str, str]
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    metavar: str | None = None
    cli_name: str | None = None
    short: str | None = None
    default_text: str | None = None


@dataclass(frozen=True)
class OptionField:
    """An option of a dataclass, with its type taken apart.

    kind      bool, int, float, str or Path: the type of the value, or of each of several
    form      "one" value, a "tuple" of `length`, a "list" of any length, a "mapping" of str, or a
              "size": one integer, or two
    default   dataclasses.MISSING where the option must be given
    """

    name: str
    option: Option
    kind: type
    form: Form
    length: int
    optional: bool
    default: Any

    @property
    def flag(self) -> str:
        """The option on the command line, such as --batch-size."""
        return f"--{self.option.cli_name or self.name.replace('_', '-')}"

    def checked(self, value: Any) -> Any:
        """The value as the field's own type: a list as tuple, an int for a float as float.

        Raises InputError naming the option, the value and the rule.
        """
        if value is None and self.optional:
            return None
        if self.form == "mapping":
            return self._mapping(value)
        if self.form == "one":
            return self._one(value, value)
        if self.form == "size":
            return self._size(value)
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise self._error(value)
        if self.form == "tuple" and len(value) != self.length:
            raise self._error(value)
        return tuple(self._one(each, value) for each in value)

    def _size(self, value: Any) -> Size:
        if not isinstance(value, list | tuple):
            return self._one(value, value)
        if len(value) != 2:
            raise self._error(value)
        height, width = (self._one(each, value) for each in value)
        return height if height == width else (height, width)

    def _one(self, value: Any, whole: Any) -> Any:
        found = _CONVERT[self.kind](value)
        if found is None or not self._allows(found):
            raise self._error(whole)
        return found

    def _allows(self, value: Any) -> bool:
        o = self.option
        if o.choices and value not in o.choices:
            return False
        return (
            (o.minimum is None or value >= o.minimum)
            and (o.maximum is None or value <= o.maximum)
            and (o.above is None or value > o.above)
            and (o.below is None or value < o.below)
        )

    def _mapping(self, value: Any) -> dict[str, str]:
        if not isinstance(value, Mapping):
            raise self._error(value)
        for key, each in value.items():
            if not isinstance(key, str) or not _KEY.fullmatch(key) or not isinstance(each, str):
                raise self._error(value)
        return dict(value)

    def _error(self, value: Any) -> InputError:
        if isinstance(value, str) and value in self.option.refused:
            return InputError(f"{self.flag} {value} is refused: {self.option.refused[value]}")
        if self.form == "one" and self.option.choices:
            return InputError(f"{self.flag} {_shown(value)} is not {self.rule}")
        return InputError(f"{self.flag} is {_shown(value)}, it must be {self.rule}")

    @property
    def rule(self) -> str:
        """What the value must be, in words: "an integer from 1 to 4096"."""
        if self.form == "mapping":
            return "names with texts: key=value"
        if self.option.choices:
            text = f"one of {', '.join(self.option.choices)}"
        else:
            text = _NOUNS[self.kind] + self._range_words()
        if self.form == "size":
            text += ", or two of them: height and width"
        elif self.form != "one":
            many = f"{self.length} values" if self.form == "tuple" else "a list"
            text = f"{many}, each {text}"
        return f"{text}, or None" if self.optional else text

    def _range_words(self) -> str:
        o = self.option
        closed_low, open_low, closed_high, open_high = (
            None if bound is None else _plain(bound)
            for bound in (o.minimum, o.above, o.maximum, o.below)
        )
        low = (closed_low and f" from {closed_low}") or (open_low and f" above {open_low}")
        high = (closed_high and f" to {closed_high}") or (open_high and f" to below {open_high}")
        if low and high:
            return low + high
        if closed_low:
            return f" of {closed_low} or more"
        if closed_high:
            return f" of at most {closed_high}"
        return low or (f" below {open_high}" if open_high else "")


def option(
    default: Any = MISSING,
    help: str = "",
    *,
    factory: Callable[[], Any] | None = None,
    choices: Sequence[str] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    metavar: str | None = None,
    cli_name: str | None = None,
    short: str | None = None,
    default_text: str | None = None,
    refused: Mapping[str, str] | None = None,
) -> Any:
    """A dataclass field that is an option.

    default        without it (and without `factory`) the option must be given
    help           one plain sentence, for --help
    choices        the strings it may be; those of a Literal type need not be repeated
    minimum, maximum, above, below   range of a number: the first two belong to it, the others not
    metavar        stands for the value in --help, such as PX
    cli_name       name on the command line without dashes; default: the field's, "-" for "_"
    short          one-letter form, such as "-o"
    default_text   what a default of None means, for --help
    refused        value that somebody may well ask for -> why it is no choice
    """
    stored = Option(
        help=help,
        refused=refused or {},
        choices=tuple(choices),
        minimum=minimum,
        maximum=maximum,
        above=above,
        below=below,
        metavar=metavar,
        cli_name=cli_name,
        short=short,
        default_text=default_text,
    )
    metadata = {_METADATA_KEY: stored}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def device_option(what: str) -> Any:
    """The option of where nets run, for every class of options that has it."""
    return option("auto", f"{what}; auto is CUDA where torch sees it, else the CPU.")


@dataclass(frozen=True)
class NoOptions:
    """The options of something that has none."""


@cache
def option_fields(cls: type) -> tuple[OptionField, ...]:
    """The options of a dataclass, in order. Raises TypeError for a type that no option can have."""
    hints = get_type_hints(cls)
    return tuple(
        _option_field(f, f.metadata[_METADATA_KEY], hints[f.name])
        for f in fields(cls)
        if _METADATA_KEY in f.metadata
    )


def check(options: Any) -> None:
    """Check every option of a dataclass instance and bring it to its field's type; for
    `__post_init__`, of frozen classes too.

    A bool is no number, NaN and infinities are refused, as are integers of over 63 bits. Raises
    InputError naming the option, the value and the rule.
    """
    for each in option_fields(type(options)):
        value = each.checked(getattr(options, each.name))
        object.__setattr__(options, each.name, value)


def option_texts(options: Any) -> dict[str, str]:
    """The options of an instance as texts, for a record of how something was made.

    Left out is what has no value, and paths: they say nothing to who reads the record elsewhere.
    """
    found = {each.name: getattr(options, each.name) for each in option_fields(type(options))}
    return {
        name: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for name, value in found.items()
        if value is not None and not isinstance(value, Path)
    }


def _option_field(found: Field[Any], stored: Option, hint: Any) -> OptionField:
    optional = False
    if get_origin(hint) in (Union, types.UnionType):
        rest = [each for each in get_args(hint) if each is not types.NoneType]
        optional = len(rest) < len(get_args(hint))
        hint = rest[0] if len(rest) == 1 else hint
    form: Form = "one"
    length, arguments = 1, get_args(hint)
    if set(arguments) - {types.NoneType} == set(get_args(Size)):
        form, hint = "size", int
    elif get_origin(hint) is tuple and arguments:
        form = "list" if arguments[-1] is Ellipsis else "tuple"
        length = 0 if form == "list" else len(arguments)
        kinds = set(arguments) - {Ellipsis}
        hint = kinds.pop() if len(kinds) == 1 else hint
    elif get_origin(hint) is dict and arguments == (str, str):
        form, length, hint = "mapping", 0, str
    if get_origin(hint) is Literal:
        stored = Option(**{**vars(stored), "choices": get_args(hint)})
        hint = str
    if hint not in _NOUNS:
        raise TypeError(f"{found.name}: no option can be of type {hint}")
    default = found.default
    if found.default_factory is not MISSING:
        default = found.default_factory()
    return OptionField(found.name, stored, hint, form, length, optional, default)


def _plain(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _integer(value: Any) -> int | None:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        return None
    return int(value) if -_INTEGER_LIMIT <= int(value) < _INTEGER_LIMIT else None


def _number(value: Any) -> float | None:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _path(value: Any) -> Path | None:
    if not isinstance(value, str | os.PathLike) or "\0" in str(value):
        return None
    return Path(value)


_CONVERT: dict[type, Callable[[Any], Any]] = {
    bool: lambda value: value if isinstance(value, bool) else None,
    int: _integer,
    float: _number,
    str: lambda value: value if isinstance(value, str) else None,
    Path: _path,
}


def _shown(value: Any) -> str:
    """A value for people, cut to a line; Python refuses to print the digits of a huge integer."""
    if isinstance(value, int) and abs(value) >= _INTEGER_LIMIT:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value)
    except ValueError:
        text = f"a {type(value).__name__} of huge numbers"
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
