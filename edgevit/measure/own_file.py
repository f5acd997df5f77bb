"""Whether a file that is there already is an earlier run's, which the next one may replace."""

from __future__ import annotations

from pathlib import Path

from edgevit.errors import InputError
from edgevit.files import read_file
from edgevit.schema import parse_json

MAX_BYTES = 64 * 2**20


def is_own(path: Path, kind: str) -> bool:
    """Whether `path` is a regular file of JSON that edgevit wrote and that says it is a `kind`."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        value = parse_json(read_file(path, MAX_BYTES), str(path))
    except InputError:
        return False
    return isinstance(value, dict) and value.get("kind") == kind
