"""The folder that keeps a run's state, so that a run that was killed goes on from there."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
CURVES, RECIPE = "metrics.csv", "recipe.toml"
FILES = (MARKER, UNFINISHED_MARKER, POST_TRAINING, METRICS, STATE, DAMAGE, CURVES, RECIPE)
"""All that a run writes into its folder."""
_MAX_MARKER_BYTES = 2**16

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Marker:
    """Whose state is in a folder: the run's key, and how many processes train."""

    key: str
    processes: int


_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL)


@contextmanager
def run_folder(
    folder: Path | None, key: str, fresh: bool, group: Group, other_processes: bool = False
) -> Iterator[Path]:
    """Yield the folder, made or found by the run of that key; None: a temporary one.

    `fresh` discards what an earlier run left there; with `other_processes` the state of a run of
    another number of processes is gone on with. A run that ends before any state was kept leaves no
    folder. Raises InputError when another run works in the
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
            _claim(folder, Marker(key, group.size), fresh, other_processes)
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
    return FILES if _stored(folder) is not None else (UNFINISHED_MARKER,)


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


def _claim(folder: Path, own: Marker, fresh: bool, other_processes: bool) -> None:
    path = folder / MARKER
    ours = written_run(folder)
    if fresh or not os.path.lexists(path):
        check_written(folder, ours)
    if fresh:
        for name in ours:
            (folder / name).unlink(missing_ok=True)
    if os.path.lexists(path):
        _check_same(folder, own, other_processes)
    if _stored(folder) != own:
        temporary = folder / UNFINISHED_MARKER
        temporary.write_text(json.dumps({"schema_version": 1, **asdict(own)}))
        temporary.replace(path)
    for name in FILES:
        tidy(folder / name)


def _check_same(folder: Path, own: Marker, other_processes: bool) -> None:
    """Raises InputError where the folder's run is another one."""
    found = _stored(folder)
    if found is None or found.key != own.key:
        raise InputError(
            f"{folder} holds the state of a run with another model, options, data or thread "
            "count; repeat those to go on with it, or use --fresh to discard it"
        )
    if found.processes == own.processes:
        return
    differ = (
        f"{folder} holds the state of a run of {_counted(found.processes)}, and here "
        f"{'is' if own.processes == 1 else 'are'} {_counted(own.processes)}: every step still "
        "sees the same images, but its gradients are added in another order, so that the weights "
        "differ by rounding"
    )
    if not other_processes:
        raise InputError(
            f"{differ}; use --resume-with-processes to go on all the same, as many processes as "
            "before, or --fresh to discard the state"
        )
    log.warning("%s", differ)


def _counted(processes: int) -> str:
    return f"{processes} process{'es' if processes > 1 else ''}"


def _stored(folder: Path) -> Marker | None:
    path = folder / MARKER
    try:
        marker = parse_json(read_file(path, _MAX_MARKER_BYTES, "a run's marker"), str(path))
    except InputError:
        return None  # of no run that could go on
    key = marker.get("key") if isinstance(marker, dict) else None
    processes = marker.get("processes") if isinstance(marker, dict) else None
    if not isinstance(key, str):
        return None
    return Marker(key, processes if isinstance(processes, int) else 1)
