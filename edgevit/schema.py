"""JSON that a stranger may have written: parsed, checked, and read into dataclasses.

A dataclass is the definition. `json_schema` generates its JSON Schema (draft 2020-12) for other
tools, `read_json` reads a value strictly, and `to_json` writes one. The types that a field may
have: str, int, float, bool, None, Any, Literal, unions, `tuple[X, ...]`, `tuple[X, X, X]`,
`Mapping[str, X]` and dataclasses; `Annotated[X, Rule(...)]` narrows any of them.

Every field is a required key, whatever its default, but for those with `metadata=OMIT_DEFAULT`:
such a key is left out of the JSON where the field has its default.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from edgevit.errors import EdgevitError, InputError

T = TypeVar("T")

OMIT_DEFAULT: Mapping[str, bool] = {"omit_default": True}
"""Metadata of a dataclass field whose key may be missing."""

_SCALARS: dict[Any, tuple[str, tuple[type, ...]]] = {
    str: ("string", (str,)),
    int: ("integer", (int,)),
    float: ("number", (int, float)),
    bool: ("boolean", (bool,)),
    type(None): ("null", (type(None),)),
}

MAX_DEPTH = 64
"""Levels of JSON: no reader or writer of it meets Python's recursion limit later."""


@dataclass(frozen=True)
class Rule:
    """Demands on a JSON value beyond its type.

    minimum, maximum    inclusive bounds of a number
    above               exclusive lower bound of a number
    choices             the strings that are allowed
    pattern             regular expression that a string matches as a whole
    key_pattern         the same for every key of a mapping
    min_size, max_size  characters of a string, or items of an array
    unique              whether the items of an array are distinct
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    choices: tuple[str, ...] | None = None
    pattern: str | None = None
    key_pattern: str | None = None
    min_size: int | None = None
    max_size: int | None = None
    unique: bool = False

    def keywords(self, kind: str) -> dict[str, Any]:
        """The keywords of JSON Schema that say the same of a value of this JSON type."""
        sizes = {"string": ("minLength", "maxLength")}.get(kind, ("minItems", "maxItems"))
        keywords = {
            "enum": None if self.choices is None else list(self.choices),
            "pattern": None if self.pattern is None else f"^{self.pattern}$",
            "propertyNames": None
            if self.key_pattern is None
            else {"pattern": f"^{self.key_pattern}$"},
            "minimum": self.minimum,
            "exclusiveMinimum": self.above,
            "maximum": self.maximum,
            sizes[0]: self.min_size,
            sizes[1]: self.max_size,
            "uniqueItems": self.unique or None,
        }
        return {name: value for name, value in keywords.items() if value is not None}

    def failures(self, value: Any) -> Iterator[str]:
        """What is wrong with a value of the right type, in words of JSON Schema's."""
        if self.choices is not None and value not in self.choices:
            yield f"{value!r} is not one of {list(self.choices)}"
        if self.pattern is not None and not re.fullmatch(self.pattern, value):
            yield f"{value!r} does not match '^{self.pattern}$'"
        for key in value if self.key_pattern is not None else ():
            if not re.fullmatch(self.key_pattern or "", key):
                yield f"{key!r} does not match '^{self.key_pattern}$'"
        if self.minimum is not None and value < self.minimum:
            yield f"{value} is less than the minimum of {self.minimum}"
        if self.above is not None and value <= self.above:
            yield f"{value} is less than or equal to the minimum of {self.above}"
        if self.maximum is not None and value > self.maximum:
            yield f"{value} is greater than the maximum of {self.maximum}"
        if self.min_size is not None and len(value) < self.min_size:
            yield f"{value!r} is too short, expected {self.min_size} or more"
        if self.max_size is not None and len(value) > self.max_size:
            yield f"{value!r:.40} is too long, expected {self.max_size} or less"
        if self.unique and len(set(value)) != len(value):
            yield f"{value!r:.80} has non-unique elements"


def parse_json(data: bytes, what: str) -> Any:
    """JSON as the standard has it: UTF-8, no NaN or Infinity, no key twice in an object.

    what    names the file in errors
    Raises InputError for anything else, for half a surrogate pair, which no file name or terminal
    takes, for numbers that are beyond float64 or, without a decimal point, beyond 64 bits, and for
    more than MAX_DEPTH levels.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = dict(pairs)
        if len(keys) != len(pairs):
            raise ValueError("a key occurs twice in one object")
        return keys

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
        _check_values(value)
        return value
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} is not valid JSON: {error}") from error


def _check_values(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += (*item, *item.values())
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, str) and not item.isascii():
                item.encode()
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError("a number is too large")
            elif isinstance(item, int) and not -(2**63) <= item < 2**63:
                raise ValueError("an integer is beyond 64 bits")
        if not inner:
            return
        level = inner
    raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")


def check_json(
    value: Any, what: str, rules: Mapping[str, Any], error: type[EdgevitError] = InputError
) -> None:
    """Raises `error`, saying where, when `value` does not fit a JSON Schema.

    what    names the file in errors
    rules   the schema, draft 2020-12; here 3.0 is no integer, for sizes are made of them
    """
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, v: type(v) is int)
    validator = extend(Draft202012Validator, type_checker=types)(rules)
    found = next(iter(validator.iter_errors(value)), None)
    if found is not None:
        where = "/".join(str(step) for step in found.absolute_path) or "top level"
        raise error(f"{what}: {where}: {found.message[:200]}")


def json_schema(cls: type, title: str) -> dict[str, Any]:
    """The JSON Schema of a dataclass; dataclasses inside it are its $defs, by their names."""
    defs: dict[str, Any] = {}
    schema = _object_schema(cls, defs)
    schema.pop("description", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": inspect.cleandoc(cls.__doc__ or ""),
        **schema,
        **({"$defs": dict(sorted(defs.items()))} if defs else {}),
    }


def read_json(cls: type[T], value: Any, what: str) -> T:
    """A dataclass from a parsed JSON value.

    what    names the file in errors
    Raises InputError, saying where, for a key that is missing or unknown, another type (an
    integer is no boolean and has no decimal point; a number is finite), and a value that a rule
    or the dataclass itself refuses.
    """
    return _read(cls, value, what, ())


def to_json(value: Any) -> Any:
    """The inverse of `read_json`: dicts, lists and scalars."""
    if dataclasses.is_dataclass(value):
        pairs = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {f.name: to_json(v) for f, v in pairs if not (_may_miss(f) and v == _default(f))}
    if isinstance(value, Mapping):
        return {key: to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    return value


def _may_miss(field: Field[Any]) -> bool:
    return bool(field.metadata.get("omit_default"))


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _object_schema(cls: type, defs: dict[str, Any]) -> dict[str, Any]:
    own = dataclasses.fields(cls)
    hints = _hints(cls)
    return {
        "description": inspect.cleandoc(cls.__doc__ or ""),
        "type": "object",
        "additionalProperties": False,
        "required": [field.name for field in own if not _may_miss(field)],
        "properties": {field.name: _schema(hints[field.name], defs) for field in own},
    }


def _schema(hint: Any, defs: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        schema = _schema(arguments[0], defs)
        for rule in arguments[1:]:
            schema |= rule.keywords(schema.get("type", ""))
        return schema
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        name = hint.__name__
        if name not in defs:
            defs[name] = {}
            defs[name] = _object_schema(hint, defs)
        return {"$ref": f"#/$defs/{name}"}
    if hint in _SCALARS:
        return {"type": _SCALARS[hint][0]}
    if origin is Literal:
        return {"const": arguments[0]} if len(arguments) == 1 else {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(each, defs) for each in arguments]}
    if origin is tuple:
        schema = {"type": "array", "items": _schema(arguments[0], defs)}
        sizes = {} if arguments[1:] == (...,) else {"minItems": len(arguments)}
        return schema | sizes | ({"maxItems": len(arguments)} if sizes else {})
    if _is_mapping(origin):
        return {"type": "object", "additionalProperties": _schema(arguments[1], defs)}
    if hint is Any:
        return {}
    raise TypeError(f"{hint} has no JSON form here")


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _fail(what: str, path: tuple[str, ...], message: str) -> InputError:
    return InputError(f"{what}: {'/'.join(path) or 'top level'}: {message[:200]}")


def _read(hint: Any, value: Any, what: str, path: tuple[str, ...]) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        found = _read(arguments[0], value, what, path)
        for message in (each for rule in arguments[1:] for each in rule.failures(found)):
            raise _fail(what, path, message)
        return found
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _read_object(hint, value, what, path)
    if hint in _SCALARS:
        return _read_scalar(hint, value, what, path)
    if origin is Literal:
        if not any(type(value) is type(each) and value == each for each in arguments):
            wanted = repr(arguments[0]) if len(arguments) == 1 else f"one of {list(arguments)}"
            raise _fail(what, path, f"{value!r} is not {wanted}")
        return value
    if origin in (Union, types.UnionType):
        return _read_union(arguments, value, what, path)
    if origin is tuple:
        return _read_array(arguments, value, what, path)
    if _is_mapping(origin):
        if not isinstance(value, dict):
            raise _fail(what, path, f"{value!r} is not of type 'object'")
        for key in value:
            _check_unicode(key, what, path)
        return {k: _read(arguments[1], v, what, (*path, k)) for k, v in value.items()}
    return value


def _read_object(cls: type, value: Any, what: str, path: tuple[str, ...]) -> Any:
    if not isinstance(value, dict):
        raise _fail(what, path, f"{value!r} is not of type 'object'")
    own = {field.name: field for field in dataclasses.fields(cls)}
    for name, field in own.items():
        if name not in value and not _may_miss(field):
            raise _fail(what, path, f"{name!r} is a required property")
    for name in value:
        if name not in own:
            raise _fail(what, path, f"Additional properties are not allowed ({name!r:.60})")
    hints = _hints(cls)
    found = {name: _read(hints[name], v, what, (*path, name)) for name, v in value.items()}
    try:
        return cls(**found)
    except InputError as error:
        raise _fail(what, path, str(error)) from error


def _read_scalar(kind: Any, value: Any, what: str, path: tuple[str, ...]) -> Any:
    name, allowed = _SCALARS[kind]
    if type(value) not in allowed:
        raise _fail(what, path, f"{value!r} is not of type {name!r}")
    if kind is float and not _is_finite(value):
        raise _fail(what, path, f"{value!r:.40} is not a finite number")
    if kind is str:
        _check_unicode(value, what, path)
    return value


def _check_unicode(text: str, what: str, path: tuple[str, ...]) -> None:
    """JSON can escape half of a surrogate pair, which is no character and cannot be written."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _fail(what, path, f"{text!a} is not valid Unicode") from error


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def _read_union(choices: tuple[Any, ...], value: Any, what: str, path: tuple[str, ...]) -> Any:
    """The value as the first type that takes it; the error is that of the last one."""
    if value is None and type(None) in choices:
        return None
    *others, last = (each for each in choices if each is not type(None))
    for each in others:
        try:
            return _read(each, value, what, path)
        except InputError:
            continue
    return _read(last, value, what, path)


def _read_array(
    items: tuple[Any, ...], value: Any, what: str, path: tuple[str, ...]
) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _fail(what, path, f"{value!r} is not of type 'array'")
    is_open = items[1:] == (...,)
    if not is_open and len(value) != len(items):
        raise _fail(what, path, f"{value!r:.60} has {len(value)} items, expected {len(items)}")
    kinds = [items[0]] * len(value) if is_open else items
    return tuple(
        _read(kind, each, what, (*path, str(index)))
        for index, (kind, each) in enumerate(zip(kinds, value, strict=True))
    )
