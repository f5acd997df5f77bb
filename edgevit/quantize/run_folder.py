"""The folder that keeps a run's state, so that a run that was killed goes on from there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgevit.data.distributed import Group
from edgevit.errors import InputError
from edgevit.files import check_written, read_file, remove_written, writing
from edgevit.leftovers import tidy
from edgevit.schema import parse_json

RUN_SUFFIX = ".run"
"""What the folder of M.evq is called beside it: M.evq.run."""
MARKER, UNFINISHED_MARKER = "run.json", ".run.json"
POST_TRAINING, METRICS, STATE = "ptq.safetensors", "ptq.json", "state.safetensors"
DAMAGE = "damaged.json"
FILES = (MARKER, UNFINISHED_MARKER, POST_TRAINING, METRICS, STATE, DAMAGE)
"""All that a run writes into its folder."""
_MAX_MARKER_BYTES = 2**16
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL)


@contextmanager
def run_folder(folder: Path | None, key: str, fresh: bool, group: Group) -> Iterator[Path]:
    """Yield the folder, made or found by the run of that key; None: a temporary one.

    `fresh` discards what an earlier run left there. A run that ends before any state
    was kept leaves no folder. Raises InputError when another run works in the
    folder, when it holds another run's state or other files, and for several processes without a
    folder that they share.
    """
    if folder is None:
        if group.size > 1:
            raise InputError("several processes need a folder that they share: give run_dir=")
        with tempfile.TemporaryDirectory(prefix="edgevit-run-") as temporary:
            yield Path(temporary)
        return
    if not group.is_main:
        group.wait()
        yield folder
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder)
    try:
        with writing(folder):
            _claim(folder, key, fresh)
        group.wait()
        try:
            yield folder
        except BaseException:
            # Refused or stopped before there was anything to go on with.
            if not any(os.path.lexists(folder / name) for name in (POST_TRAINING, STATE)):
                remove_run(folder)
            raise
    finally:
        os.close(lock)


def remove_run(folder: Path) -> bool:
    """Remove a run's state, and its folder where nothing else is in it; whether it is gone."""
    return remove_written(folder, FILES)


def written_run(folder: Path) -> tuple[str, ...]:
    """The files in a run's folder that edgevit wrote; none in a folder without its marker."""
    return FILES if _stored_key(folder) is not None else (UNFINISHED_MARKER,)


def _locked(folder: Path) -> int:
    """A descriptor that keeps other runs out of the folder until it is closed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InputError(
            f"{folder}: another run is working there; wait until it ends, or choose another output"
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:  # a network file system without locks
            os.close(descriptor)
            raise
    return descriptor


def _claim(folder: Path, key: str, fresh: bool) -> None:
    marker = folder / MARKER
    ours = written_run(folder)
    if fresh or not os.path.lexists(marker):
        check_written(folder, ours)
    if fresh:
        for name in ours:
            (folder / name).unlink(missing_ok=True)
    if not os.path.lexists(marker):
        temporary = folder / UNFINISHED_MARKER
        temporary.write_text(json.dumps({"schema_version": 1, "key": key}))
        temporary.replace(marker)
    elif _stored_key(folder) != key:
        raise InputError(
            f"{folder} holds the state of a run with another model, options, data or thread "
            "count; repeat those to go on with it, or use --fresh to discard it"
        )
    for name in FILES:
        tidy(folder / name)


def _stored_key(folder: Path) -> str | None:
    path = folder / MARKER
    try:
        marker = parse_json(read_file(path, _MAX_MARKER_BYTES, "a run's marker"), str(path))
    except InputError:
        return None  # of no run that could go on
    key = marker.get("key") if isinstance(marker, dict) else None
    return key if isinstance(key, str) else None
