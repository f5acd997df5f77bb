"""Outputs that appear whole or not at all, and the checksum that names a file."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgevit.errors import EdgevitError, InputError

FOLDER_MARKER = "manifest.json"


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The hex SHA-256 of a file's bytes. Raises InputError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


@contextmanager
def atomic_path(
    path: str | os.PathLike[str], force: bool = False, *, marker: str = FOLDER_MARKER
) -> Iterator[Path]:
    """Yield a path to write a file or a folder to, which takes its real name at the end.

    The yielded path does not exist, and lies in the same folder as `path` (made if missing), so
    that the last step is one rename. On any exception, Ctrl-C included, what was written is
    removed and an earlier `path` is as it was.

    Without `force` an existing `path` is refused. With it, a file is replaced by a file, and a
    folder by a folder, the latter only when it is empty or holds a file named `marker`: what
    edgevit did not write is never deleted. Replacing a folder takes two renames; a kill between
    them leaves the old folder beside under a hidden name.

    Raises InputError, before anything is written, when `path` may not be written.
    """
    path = Path(os.path.abspath(path))
    check_target(path, force)
    made = _make_parents(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        _sync_tree(temporary)
        # Once more: writing may have taken hours, and another process the name.
        check_target(path, force)
        _move(temporary, path, marker)
        _sync(path.parent)
    except BaseException:
        _remove(temporary)
        for folder in made:
            # Only the ones that are still empty: another output may have come in meanwhile.
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def check_target(path: str | os.PathLike[str], force: bool = False) -> None:
    """Raises InputError when `path` may not be written: ask before work that takes long."""
    path = Path(os.path.abspath(path))
    if os.path.lexists(path) and not force:
        raise InputError(f"{path} exists already; choose another name, or --force to replace it")
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise InputError(f"{path} cannot be written: {parent} is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written: no permission to write in {parent}")


def _make_parents(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns the ones that were missing, deepest first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
    return missing


def _move(temporary: Path, path: Path, marker: str) -> None:
    if not temporary.is_dir():
        if path.is_dir() and not path.is_symlink():
            raise InputError(f"{path} is a folder; give the name of a file to write")
        temporary.replace(path)
        return
    if not os.path.lexists(path):
        temporary.rename(path)
        return
    if path.is_symlink() or not path.is_dir():
        raise InputError(f"{path} is a file; give the name of a folder to write")
    if any(path.iterdir()) and not (path / marker).is_file():
        raise InputError(
            f"{path} holds files but no {marker}: it was not written by edgevit and is not replaced"
        )
    old = temporary.with_suffix(".old")
    path.rename(old)
    try:
        temporary.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old)


def _sync_tree(path: Path) -> None:
    """Flush a file, or a folder and all in it, to the disk, so that the rename comes last."""
    if not os.path.lexists(path):
        raise EdgevitError(f"nothing was written to {path}")
    if path.is_dir():
        for folder, _, names in os.walk(path):
            for name in names:
                _sync(Path(folder) / name)
            _sync(Path(folder))
    else:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
