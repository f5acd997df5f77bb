"""Outputs that appear whole or not at all, and the checksum that names a file or a folder."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edgevit.errors import EdgevitError, InputError
from edgevit.limits import MAX_TREE_BYTES, MAX_TREE_DEPTH, MAX_TREE_ENTRIES

FOLDER_MARKER = "manifest.json"


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The hex SHA-256 of a file's bytes. Raises InputError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def sha256_tree(folder: str | os.PathLike[str]) -> str:
    """The hex SHA-256 of a folder: of the text that `sha256sum` would print for its files.

    One line "<sha256>  <relative path>\\n" a regular file, sorted by the bytes of the path. Raises
    InputError for a link or special file in it, an unreadable one, or a folder beyond the limits.
    """
    folder = Path(folder)
    return _tree_digest({name: sha256_file(folder / name) for name in _tree_names(folder)})


def sha256_bytes(data: bytes | Mapping[str, bytes]) -> str:
    """`sha256_file` of a file's bytes, or `sha256_tree` of a folder's: path -> bytes."""
    if isinstance(data, Mapping):
        return _tree_digest({n: hashlib.sha256(d).hexdigest() for n, d in data.items()})
    return hashlib.sha256(data).hexdigest()


def read_tree(folder: str | os.PathLike[str]) -> dict[str, bytes]:
    """Every file of a folder: relative path with "/" -> bytes. Raises InputError as sha256_tree."""
    folder = Path(folder)
    try:
        return {name: (folder / name).read_bytes() for name in _tree_names(folder)}
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error


def write_tree(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files (relative path -> bytes) below a folder that is made for them."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _tree_digest(sums: Mapping[str, str]) -> str:
    lines = (f"{sums[name]}  {name}\n" for name in sorted(sums, key=str.encode))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _tree_names(folder: Path) -> list[str]:
    names: list[str] = []
    entries, size_bytes = 0, 0
    for parent, folders, files in os.walk(folder, onerror=_raise):
        here = Path(parent).relative_to(folder)
        entries += len(folders) + len(files)
        if entries > MAX_TREE_ENTRIES or len(here.parts) > MAX_TREE_DEPTH:
            raise InputError(f"{folder}: too many files or folders to be an artifact")
        for name in folders + files:
            path = Path(parent) / name
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise InputError(f"{path}: a link or special file cannot be part of an artifact")
            if "\n" in name:
                raise InputError(f"{path!r}: has a line break in its name")
        for name in files:
            size_bytes += (Path(parent) / name).stat().st_size
            names.append((here / name).as_posix())
    if size_bytes > MAX_TREE_BYTES:
        raise InputError(f"{folder}: holds {size_bytes} bytes, too many for an artifact")
    return names


def _raise(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error


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
