"""Reading files that a user names, and outputs that appear whole or not at all.

A file that a user names may be anything: a FIFO, a device, a folder, larger than memory.
`read_file` and `open_file` take plain files only and never wait.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from edgevit.errors import EdgevitError, InputError
from edgevit.leftovers import is_leftover, temporary_name, tidy
from edgevit.limits import MAX_TREE_BYTES, MAX_TREE_DEPTH, MAX_TREE_ENTRIES
from edgevit.system import exchange

PathLike = str | os.PathLike[str]
Listing = Callable[[Path], Collection[str]]
"""Of a folder the relative paths (with "/") of the files that edgevit wrote; empty: none."""

MAX_NAME_BYTES = 255
"""Of one part of a path, on every common file system."""

_KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"), (stat.S_ISSOCK, "a socket"),
)  # fmt: skip


def open_file(path: PathLike) -> BufferedReader:
    """A file opened for reading bytes. Raises InputError for what is no plain file.

    It never waits, as the opening of a FIFO does.
    """
    if "\0" in os.fspath(path):
        raise InputError(f"{os.fspath(path)!r} cannot be read: there is a NUL in the name")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise InputError(f"{path} is {_kind(mode)}; a plain file is needed")
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "rb")


def read_file(path: PathLike, limit: int, what: str = "such a file") -> bytes:
    """The bytes of a plain file of up to `limit` bytes; `what` names its kind in errors.

    Raises InputError for a file that is larger or cannot be read, and for what is no plain file.
    """
    with open_file(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        try:
            data = file.read(limit + 1) if size_bytes <= limit else b""
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if max(size_bytes, len(data)) > limit:
        raise InputError(f"{path} is too large for {what}: over {limit} bytes")
    return data


def sha256_file(path: PathLike) -> str:
    """The hex SHA-256 of a file's bytes. Raises InputError when it is no plain, readable file."""
    with open_file(path) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def sha256_tree(folder: PathLike) -> str:
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


def read_tree(folder: PathLike) -> dict[str, bytes]:
    """Every file of a folder: relative path with "/" -> bytes. Raises InputError as sha256_tree."""
    folder = Path(folder)
    return {name: read_file(folder / name, MAX_TREE_BYTES) for name in _tree_names(folder)}


def write_tree(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files (relative path -> bytes) below a folder that is made for them."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _tree_digest(sums: Mapping[str, str]) -> str:
    # Names that are not UTF-8 are digested as their own bytes.
    lines = (f"{sums[name]}  {name}\n" for name in sorted(sums, key=os.fsencode))
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()


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


def _kind(mode: int) -> str:
    return next((words for test, words in _KINDS if test(mode)), "no plain file")


@contextmanager
def atomic_path(
    path: PathLike, force: bool = False, *, listing: Listing | None = None
) -> Iterator[Path]:
    """Yield a path to write a file or a folder to, which takes its real name at the end.

    The yielded path does not exist, and lies in the same folder as `path` (made if missing), so
    that the last step is one rename. On any exception, Ctrl-C included, what was written is
    removed and an earlier `path` is as it was. What a killed run left beside is removed first.

    listing     of a folder to write, what edgevit wrote into an earlier one; None: it is a file

    Without `force` an existing `path` is refused. With it, a plain file is replaced by a file, and
    a folder whose contents are all in `listing` by a folder: what edgevit did not write is never
    removed, and no link or device is replaced.

    Raises InputError, before anything is written, when `path` may not be written, and when writing
    fails, on a full disk for example.
    """
    path = Path(os.path.abspath(path))
    check_target(path, force, listing=listing)
    with writing(path), temporary_name(path) as temporary:
        made = _make_parents(path.parent)
        try:
            yield temporary
            _sync_tree(temporary)
            # Once more: writing may have taken hours, and another process the name.
            check_target(path, force, listing=listing)
            _move(temporary, path)
            _sync(path.parent)
        except BaseException:
            _remove(temporary)
            for folder in made:
                # Only the ones that are still empty: another output may have come in meanwhile.
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
            raise


@contextmanager
def writing(path: PathLike) -> Iterator[None]:
    """Turn an OSError of the body into an InputError: `path` cannot be written."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(f"{path} cannot be written: {why}") from error


def check_target(path: PathLike, force: bool = False, *, listing: Listing | None = None) -> None:
    """Raises InputError when `path` may not be written: ask before work that takes long.

    listing     as of `atomic_path`. What a killed run left beside `path` is put right first.
    """
    if "\0" in os.fspath(path):
        raise InputError(f"{os.fspath(path)!r} cannot be written: there is a NUL in the name")
    path = Path(os.path.abspath(path))
    if not path.name:
        raise InputError(f"{path} cannot be written: it names no file or folder")
    if len(os.fsencode(path.name)) > MAX_NAME_BYTES:
        raise InputError(
            f"{path} cannot be written: a name may have {MAX_NAME_BYTES} bytes at most, this one "
            f"has {len(os.fsencode(path.name))}"
        )
    with writing(path):
        parent = _existing_parent(path)
        tidy(path)
        if os.path.lexists(path):
            if not force:
                raise InputError(
                    f"{path} exists already; choose another name, or --force to replace it"
                )
            _check_replaceable(path, listing)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written: no permission to write in {parent}")


def _existing_parent(path: Path) -> Path:
    parent = path.parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        raise InputError(f"{path} cannot be written: {parent} is not a folder")
    return parent


def _check_replaceable(path: Path, listing: Listing | None) -> None:
    """Raises InputError for a `path` that edgevit would not have written."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise InputError(f"{path} is a link and is not replaced; give the name it points to")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path} is {_kind(mode)} and is not replaced; choose another name")
    if listing is None:
        if stat.S_ISDIR(mode):
            raise InputError(f"{path} is a folder; give the name of a file to write")
        return
    if not stat.S_ISDIR(mode):
        raise InputError(f"{path} is a file; give the name of a folder to write")
    check_written(path, listing(path))


def check_written(folder: Path, names: Collection[str]) -> None:
    """Raises InputError when the folder holds anything that is not among `names`, naming it.

    names   the relative paths, with "/", of files that edgevit wrote; all else is another's
    """
    foreign = next(_foreign(folder, names), None)
    if foreign is not None:
        raise InputError(
            f"{folder} holds {foreign}, which was not written by edgevit: it is not replaced. Move "
            "that elsewhere, or choose another name"
        )


def _foreign(folder: Path, names: Collection[str]) -> Iterator[str]:
    """Relative paths of what is in the folder without being edgevit's."""
    ours = set(names)
    parents = {str(parent) for name in ours for parent in Path(name).parents}
    for here, folders, files in os.walk(folder, onerror=_raise):
        for name in [*folders]:
            relative = os.path.relpath(os.path.join(here, name), folder)
            if is_leftover(Path(here) / name):
                folders.remove(name)
            elif relative not in parents or os.path.islink(os.path.join(here, name)):
                yield relative
        for name in files:
            path = Path(here) / name
            relative = path.relative_to(folder).as_posix()
            plain = stat.S_ISREG(path.lstat().st_mode)
            if not (plain and relative in ours) and not is_leftover(path):
                yield relative


def remove_written(folder: Path, names: Collection[str]) -> bool:
    """Remove the files of a folder that edgevit wrote, and the folder when nothing else is in it.

    names   as of `check_written`. Returns whether the folder is gone.
    """
    ours = {folder / parent for name in names for parent in Path(name).parents}
    with writing(folder):
        for name in names:
            path = folder / name
            if path.is_file() and not path.is_symlink():
                path.unlink()
        for here in sorted(ours, key=lambda each: len(each.parts), reverse=True):
            if not here.is_dir() or here.is_symlink():
                continue
            for each in here.iterdir():
                if is_leftover(each):
                    _remove(each)
            if not any(here.iterdir()):
                here.rmdir()
    return not os.path.lexists(folder)


def _make_parents(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns the ones that were missing, deepest first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
    return missing


def _move(temporary: Path, path: Path) -> None:
    """Give what was written its name; an earlier folder of that name is removed."""
    if not temporary.is_dir():
        temporary.replace(path)
        return
    if not os.path.lexists(path):
        temporary.rename(path)
        return
    old = temporary
    if not exchange(temporary, path):
        # A kill between these two leaves the old one beside; the next run gives it its name back.
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
