"""What the tests of hostile files share: refusals by message, junk, and every place to put it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edgevit.errors import InputError
from edgevit.program import Program
from tests.program import version1
from tests.programs import make_program

JUNK: list[Any] = [
    None, True, False, 0, -1, 2**31, 2**40, -(2**70), 10**400, 1.5, 64.0, 1e308, -0.0, "",
    "__class__", "../x", "\0", "\ud800", "a\nb", "x" * 10_000, [], {}, [1], [[]], {"a": {}},
    {"as_int": 3}, {"as_tensor": {"name": "input"}}, [2**30, 2**30], [-1, -1], [0, 0], [1, 1, 1],
]  # fmt: skip
"""JSON values that do not belong in most places."""

FILES = {
    "version 1": version1.real,
    "version 2": lambda: make_program().to_bytes(),
}
"""A good file of each version."""


def refused(tmp_path: Path, data: bytes, message: str | None = None) -> str:
    path = tmp_path / "hostile.evq"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        Program.load(path)
    assert str(path) in str(error.value) and len(str(error.value)) < 2000
    return str(error.value)


def opens(tmp_path: Path, data: bytes) -> bool:
    """Whether a file opens; if so it also runs, or is refused then. Nothing else may be raised."""
    path = tmp_path / "perhaps.evq"
    path.write_bytes(data)
    try:
        program = Program.load(path)
    except InputError as error:
        assert len(str(error)) < 2000
        return False
    size = program.info.model.image_size
    try:
        logits = program.run(torch.zeros(1, 3, size, size))
    except InputError:
        return True
    assert logits.shape == (1, program.info.model.classes)
    return True


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value inside a JSON value, itself not."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def put(value: Any, path: tuple, new: Any) -> Any:
    """A copy of a JSON value with another one at a place."""
    value = copy.deepcopy(value)
    found = value
    for step in path[:-1]:
        found = found[step]
    found[path[-1]] = new
    return value


def without(value: Any, path: tuple) -> Any:
    """A copy of a JSON value without what is at a place."""
    value = copy.deepcopy(value)
    found = value
    for step in path[:-1]:
        found = found[step]
    del found[path[-1]]
    return value
