"""Dataclasses as JSON: the generated schema, the strict reader and the writer agree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator

from edgevit.errors import EdgevitError, InputError
from edgevit.schema import (
    OMIT_DEFAULT,
    Rule,
    check_json,
    json_schema,
    parse_json,
    read_json,
    to_json,
)


@dataclass(frozen=True)
class Inner:
    """A part."""

    kind: Literal["a", "b"]
    size: Annotated[int, Rule(minimum=1, maximum=9)] | None = None

    def __post_init__(self) -> None:
        if self.kind == "b" and self.size is None:
            raise InputError("size: a part of kind b has one")


@dataclass(frozen=True)
class Outer:
    """Everything that a field may be."""

    name: Annotated[str, Rule(pattern="[a-z]+")]
    scale: Annotated[float, Rule(above=0)]
    on: bool
    inner: Inner
    several: Annotated[tuple[Inner, ...], Rule(max_size=2)]
    triple: tuple[float, float, float]
    options: Annotated[Mapping[str, str], Rule(key_pattern="[a-z]+")]
    free: Any
    words: Annotated[tuple[str, ...], Rule(unique=True)]
    colour: Annotated[str, Rule(choices=("red", "blue"))] = "red"
    version: Literal[2] = 2
    more: Mapping[str, int] = field(default_factory=dict, metadata=OMIT_DEFAULT)


GOOD: dict[str, Any] = {
    "name": "abc",
    "scale": 0.5,
    "on": True,
    "inner": {"kind": "a", "size": None},
    "several": [{"kind": "b", "size": 3}],
    "triple": [1, 2.5, -3],
    "options": {"io": "int8"},
    "free": [None, {"x": 1}],
    "words": ["x", "y"],
    "colour": "blue",
    "version": 2,
}
SCHEMA = json_schema(Outer, "outer.json")


def test_a_value_is_read_and_written_back() -> None:
    found = read_json(Outer, GOOD, "f")
    assert found.several == (Inner("b", 3),) and found.triple == (1, 2.5, -3) and found.more == {}
    assert to_json(found) == GOOD
    with_more = GOOD | {"more": {"z": 1}}
    assert to_json(read_json(Outer, with_more, "f")) == with_more


def test_the_schema_is_one_and_takes_the_same() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    check_json(GOOD, "f", SCHEMA)
    assert SCHEMA["required"] == [*GOOD] and SCHEMA["description"] == Outer.__doc__
    assert SCHEMA["$defs"]["Inner"]["required"] == ["kind", "size"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "ABC"}, r"f: name: 'ABC' does not match '\^\[a-z\]\+\$'"),
        ({"name": "abc\n"}, "f: name: .* does not match"),
        ({"name": 5}, "f: name: 5 is not of type 'string'"),
        ({"name": None}, "f: name: None is not of type 'string'"),
        ({"scale": 0}, "f: scale: 0 is less than or equal to the minimum of 0"),
        ({"scale": "0.5"}, "f: scale: '0.5' is not of type 'number'"),
        ({"scale": True}, "f: scale: True is not of type 'number'"),
        ({"on": 1}, "f: on: 1 is not of type 'boolean'"),
        ({"inner": []}, r"f: inner: \[\] is not of type 'object'"),
        ({"inner": {"kind": "a"}}, "f: inner: 'size' is a required property"),
        ({"inner": {"kind": "c", "size": 1}}, "f: inner/kind: 'c' is not one of"),
        ({"inner": {"kind": "a", "size": 10}}, "f: inner/size: 10 is greater than the maximum"),
        ({"inner": {"kind": "a", "size": 0}}, "f: inner/size: 0 is less than the minimum of 1"),
        ({"inner": {"kind": "a", "size": True}}, "f: inner/size: True is not of type 'integer'"),
        ({"inner": {"kind": "a", "size": None, "x": 1}}, "f: inner: Additional properties"),
        ({"several": [{"kind": "a", "size": 1}, 5]}, "f: several/1: 5 is not of type 'object'"),
        ({"several": [{"kind": "a", "size": 1}] * 3}, "f: several: .* too long, expected 2"),
        ({"several": {}}, "f: several: {} is not of type 'array'"),
        ({"triple": [1, 2]}, r"f: triple: \[1, 2\] has 2 items, expected 3"),
        ({"triple": [1, 2, "3"]}, "f: triple/2: '3' is not of type 'number'"),
        ({"options": {"io": 8}}, "f: options/io: 8 is not of type 'string'"),
        ({"options": {"IO": "x"}}, "f: options: 'IO' does not match"),
        ({"options": []}, "f: options: .* is not of type 'object'"),
        ({"words": ["x", "x"]}, "f: words: .* has non-unique elements"),
        ({"colour": "green"}, "f: colour: 'green' is not one of"),
        ({"version": 3}, "f: version: 3 is not 2"),
        ({"other": 1}, r"f: top level: Additional properties are not allowed \('other'\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_reader_and_schema(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_json(Outer, GOOD | changes, "f")
    # Python's `$` lets a line break pass; the schema's reader of another language does not.
    if changes != {"name": "abc\n"}:
        with pytest.raises(InputError, match="f: "):
            check_json(GOOD | changes, "f", SCHEMA)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inner": {"kind": "a", "size": 1.0}}, "1.0 is not of type 'integer'"),
        ({"scale": float("inf")}, "scale: inf is not a finite number"),
        ({"scale": 10**400}, "scale: 1000.* is not a finite number"),
        ({"version": 2.0}, "version: 2.0 is not 2"),
        ({"name": "\ud800"}, "name: .*ud800' is not valid Unicode"),
        ({"inner": {"kind": "b", "size": None}}, "f: inner: size: a part of kind b has one"),
    ],
)
def test_the_reader_is_stricter_than_json_schema(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_json(Outer, GOOD | changes, "f")


@pytest.mark.parametrize("name", GOOD)
def test_every_key_is_needed_but_those_that_may_be_left_out(name: str) -> None:
    without = {key: value for key, value in GOOD.items() if key != name}
    with pytest.raises(InputError, match=f"f: top level: '{name}' is a required property"):
        read_json(Outer, without, "f")


def test_a_type_without_a_json_form_is_the_programmers_fault() -> None:
    @dataclass
    class Wrong:
        found: set

    with pytest.raises(TypeError, match="set.* has no JSON form"):
        json_schema(Wrong, "wrong")


def test_check_json_raises_what_it_is_told_to() -> None:
    with pytest.raises(EdgevitError, match="f: top level: 5 is not of type 'object'") as raised:
        check_json(5, "f", SCHEMA, EdgevitError)
    assert raised.type is EdgevitError


@pytest.mark.parametrize(
    "text", [b"{", b"\xff", b"[" * 100_000, b'{"a": 1, "a": 2}', b"[NaN]", b"[-Infinity]"]
)
def test_only_json_is_parsed(text: bytes) -> None:
    with pytest.raises(InputError, match="f is not valid JSON"):
        parse_json(text, "f")
    assert parse_json(json.dumps(GOOD).encode(), "f") == GOOD
