"""The folder that keeps a run's state, so that a run that was killed goes on from there."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgevit.data.distributed import Group
from edgevit.errors import InputError
from edgevit.quantize.snapshot import remove_leftovers

UNFINISHED_MARKER = ".run.json"


@contextmanager
def run_folder(folder: Path | None, key: str, fresh: bool, group: Group) -> Iterator[Path]:
    """Yield the folder, made or found by the run of that key; None: a temporary one.

    `fresh` discards what an earlier run left there. Raises InputError when the folder holds
    another run or other files, and for several processes without a folder that they share.
    """
    if folder is None:
        if group.size > 1:
            raise InputError("several processes need a folder that they share: give run_dir=")
        with tempfile.TemporaryDirectory(prefix="edgevit-run-") as temporary:
            yield Path(temporary)
        return
    if group.is_main:
        _claim(folder, key, fresh)
    group.wait()
    yield folder


def _claim(folder: Path, key: str, fresh: bool) -> None:
    marker = folder / "run.json"
    if folder.exists() and fresh:
        if _foreign_files(folder) and not marker.exists():
            raise InputError(f"{folder} is not a run folder of edgevit: not removed")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not marker.exists():
        if _foreign_files(folder):
            raise InputError(f"{folder} holds other files; choose another name")
        temporary = folder / UNFINISHED_MARKER
        temporary.write_text(json.dumps({"schema_version": 1, "key": key}))
        temporary.replace(marker)
    elif _stored_key(marker) != key:
        raise InputError(
            f"{folder} holds the state of a run with another model, options, data or thread "
            "count; repeat those to go on with it, or use --fresh to discard it"
        )
    remove_leftovers(folder)


def _foreign_files(folder: Path) -> bool:
    """Whether there is more than the marker that a killed run had not renamed yet."""
    return any(path.name != UNFINISHED_MARKER for path in folder.iterdir())


def _stored_key(marker: Path) -> str | None:
    try:
        return json.loads(marker.read_text("utf-8"))["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # of no run that could go on
