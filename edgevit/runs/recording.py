"""The curves of a fine-tuning: rows of metrics.csv, and TensorBoard's events where asked for.

The file belongs to the run's state: it is replaced with every saved state, and a run that goes on
keeps the rows up to the state it goes on from.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, SupportsFloat

from edgevit.errors import InputError, ToolMissing
from edgevit.files import atomic_path, read_file

EVERY_STEPS = 10
"""Steps between two rows."""
FIRST = ("step", "loss", "lr", "scale_lr", "images_per_s")
"""The first columns; those of the hold-out figures follow, named as the task names them."""
_MAX_BYTES = 2**28


class Recorder:
    """Rows of a run, of the main process; `save` puts them on disk."""

    def __init__(self, path: Path, tensorboard: Path | None = None, done: int = 0) -> None:
        """
        path            metrics.csv
        tensorboard     a folder for its events; None: there are none
        done            steps of the state that the run goes on from: later rows are dropped
        """
        self._path = path
        self._rows = [row for row in _read(path) if _step_of(row) <= done]
        self._writer = None if tensorboard is None else _open_writer(tensorboard, done)
        self.restart_clock()

    def restart_clock(self) -> None:
        """Time no images from before this moment, such as an evaluation's."""
        self._since_s, self._images = time.monotonic(), 0

    def step(self, step: int, loss: SupportsFloat, rates: Mapping[str, float], images: int) -> None:
        """A step that is done, counted from 1; `rates` by column.

        A loss that is a tensor on a GPU is read, and so waited for, for a row only.
        """
        self._images += images
        if step % EVERY_STEPS and step != 1:
            return
        elapsed_s = time.monotonic() - self._since_s
        speed = round(self._images / elapsed_s, 1) if elapsed_s > 0 else 0.0
        self._add({"step": step, "loss": float(loss), **rates, "images_per_s": speed})
        self.restart_clock()

    def evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures on the hold-out images after a step."""
        self._add({"step": step, **figures})
        self.restart_clock()

    def save(self) -> None:
        """Replace the file. Raises InputError where it cannot be written."""
        columns = list(dict.fromkeys([*FIRST, *(name for row in self._rows for name in row)]))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        with atomic_path(self._path, force=True) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Let go of TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()

    def _add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if self._writer is not None:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name, value, row["step"])


def check_tensorboard() -> None:
    """Raises ToolMissing where TensorBoard is not installed: ask before work that takes long."""
    if find_spec("tensorboard") is None:
        raise ToolMissing(
            "--tensorboard: the tensorboard package is not installed; "
            "pip install 'edgevit[tensorboard]'"
        )


def _open_writer(folder: Path, done: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    try:
        return SummaryWriter(str(folder), purge_step=done + 1 if done else None)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows of an earlier part of the run; none where the file is not there or is damaged."""
    if not path.exists():
        return []
    try:
        text = read_file(path, _MAX_BYTES, "a run's metrics").decode()
        rows = [
            {name: value for name, value in row.items() if value}
            for row in csv.DictReader(text.splitlines())
        ]
    except (UnicodeDecodeError, csv.Error):
        return []
    return rows if all(str(row.get("step", "")).isdecimal() for row in rows) else []


def _step_of(row: Mapping[str, Any]) -> int:
    return int(row["step"])
