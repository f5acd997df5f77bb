"""Progress of long work: records of the logger "edgevit", or a live bar where the command asks.

A library is silent until its user wants to hear it: `logging.basicConfig(level="INFO")` shows these
records, and the command line shows them on standard error (`to_standard_error`).
"""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any

from edgevit.console import printable

PLAIN_INTERVAL_S = 10.0
FIRST_LINE_S = 1.0
"""After the beginning of long work."""

log = logging.getLogger(__name__)
_LOGGER = logging.getLogger("edgevit")


class _StandardError(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print(printable(self.format(record)), file=sys.stderr, flush=True)


def to_standard_error() -> None:
    """Show the logger's records, and bars on a terminal, from here on: for the command line."""
    if not _is_shown():
        _LOGGER.addHandler(_StandardError())
    _LOGGER.setLevel(logging.INFO)


def _is_shown() -> bool:
    return any(isinstance(handler, _StandardError) for handler in _LOGGER.handlers)


class Progress:
    """Counts work done out of a total; use as a context manager and call `update`.

    total       None where it is not known
    quiet       show nothing of work that ends within `FIRST_LINE_S`
    """

    def __init__(
        self, title: str, total: int | None, unit: str, done: int = 0, *, quiet: bool = False
    ) -> None:
        self.title, self.total, self.unit, self.quiet = title, total, unit, quiet
        self.start_done = self.done = done
        self._started_s = time.monotonic()
        self._next_line_s = self._started_s + FIRST_LINE_S
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if not self.quiet:
            self._start_bar()
        return self

    def _start_bar(self) -> None:
        if not _is_shown() or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        self._bar = Bar(*columns, console=Console(stderr=True))
        self._bar.start()
        self._task = self._bar.add_task(
            printable(self.title, keep=""), total=self.total, completed=self.done, note=""
        )

    def update(self, done: int, note: str = "") -> None:
        """`done` is the total so far; `note` is shown as it is."""
        self.done = done
        now_s = time.monotonic()
        if self.quiet and now_s < self._next_line_s:
            return
        if self.quiet:
            self.quiet = False
            self._start_bar()
        of = "" if self.total is None else f"/{self.total}"
        text = f"{done}{of} {self.unit}{self._rate(now_s)}{' ' + note if note else ''}"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=printable(text, keep=""))
        elif now_s >= self._next_line_s or done == self.total:
            self._next_line_s = now_s + PLAIN_INTERVAL_S
            log.info("%s: %s", self.title, text)

    def _rate(self, now_s: float) -> str:
        elapsed_s = now_s - self._started_s
        fresh = self.done - self.start_done
        if fresh <= 0 or elapsed_s <= 0:
            return ""
        per_s = fresh / elapsed_s
        if self.total is None:
            return f", {per_s:.0f} {self.unit}/s"
        left_s = int((self.total - self.done) / per_s)
        return f", {per_s:.0f} {self.unit}/s, {left_s // 60}:{left_s % 60:02d} left"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
