"""Where compiled code is kept: one library a source, flags and machine, in the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BUILD_PREFIX = ".build-"
_ABANDONED_S = 3600
"""A build takes a minute: an older folder is of one that was killed."""


def library_path(name: str, *what: str) -> Path:
    """The library of that name, made of all that `what` says."""
    key = hashlib.sha256("\0".join(what).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "edgevit" / f"{name}-{key}.so"


@contextmanager
def build_folder(target: Path) -> Iterator[Path]:
    """A folder of this process's own to build in, on the disk of `target`, so that what is built
    takes its name in one step and a killed build leaves no half. Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in target.parent.glob(f"{_BUILD_PREFIX}*"):
        if old.stat().st_mtime < time.time() - _ABANDONED_S:
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=_BUILD_PREFIX) as folder:
        yield Path(folder)
