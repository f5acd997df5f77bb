"""The hidden names under which outputs are written, and what a killed run left of them.

An output NAME is written beside as `.NAME.PID.TOKEN.tmp`, where PID is the process that writes it,
and a folder that is being replaced may for a moment be `.NAME.PID.TOKEN.old`. They are edgevit's:
once that process is gone, the next run on NAME removes them.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST_BYTES = 200
"""Of NAME in a hidden name, whose other parts need up to 25 of the 255 bytes."""
_END = r"(?P<pid>[0-9]{1,10})\.(?P<token>[0-9a-f]{8})\.(tmp|old)"
_LEFTOVER = re.compile(r"\..+\." + _END, re.DOTALL)
_active: set[str] = set()


@contextmanager
def temporary_name(path: Path) -> Iterator[Path]:
    """A hidden path beside `path`, known as this process's own while the body runs."""
    token = secrets.token_hex(4)
    _active.add(token)
    try:
        yield path.with_name(f"{_prefix(path)}.{os.getpid()}.{token}.tmp")
    finally:
        _active.discard(token)


def is_leftover(path: Path) -> bool:
    """Whether a path has the hidden name of an output whose process is gone."""
    match = _LEFTOVER.fullmatch(path.name)
    return match is not None and not _is_alive(int(match["pid"]), match["token"])


def tidy(path: Path) -> None:
    """Put right what killed runs left beside `path`: an old output gets its name back when nothing
    has taken it, all else is removed.
    """
    prefix = _prefix(path) + "."
    try:
        names = [name for name in os.listdir(path.parent) if name.startswith(prefix)]
    except OSError:  # no such folder yet, or one that cannot be listed
        return
    for name in sorted(names):
        left = path.with_name(name)
        if not re.fullmatch(_END, name[len(prefix) :]) or not is_leftover(left):
            continue
        if name.endswith(".old") and not os.path.lexists(path):
            left.rename(path)
        elif left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


def _prefix(path: Path) -> str:
    """ ".NAME", short enough for the rest of the hidden name."""
    name = os.fsencode(path.name)
    if len(name) > _LONGEST_BYTES:
        digest = hashlib.sha256(name).hexdigest()[:16].encode()
        name = name[: _LONGEST_BYTES - len(digest)] + digest
    return "." + os.fsdecode(name)


def _is_alive(pid: int, token: str) -> bool:
    if pid == os.getpid():
        return token in _active  # in a container every run may have the same number
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
