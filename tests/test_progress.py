"""Progress: silent in a library, records of a logger, lines for the command."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from edgevit.progress import Progress

WORK = "from edgevit.progress import Progress, to_standard_error\n{before}\n" \
    "with Progress('count', 2, 'sheep') as p:\n    p.update(1); p.update(2)"  # fmt: skip


def run(before: str) -> subprocess.CompletedProcess[str]:
    code = WORK.format(before=before)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_a_library_says_nothing() -> None:
    done = run("")
    assert (done.stdout, done.stderr) == ("", "")


def test_the_command_shows_lines_on_standard_error() -> None:
    done = run("to_standard_error(); to_standard_error()")
    assert done.stdout == ""
    assert done.stderr.startswith("count: 2/2 sheep") and done.stderr.count("\n") == 1


def test_the_records_are_those_of_the_edgevit_logger(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "edgevit"), Progress("count", 1, "sheep") as progress:
        progress.update(1, "a note")
    assert [r.name for r in caplog.records] == ["edgevit.progress"]
    assert caplog.messages[0].startswith("count: 1/1 sheep") and "a note" in caplog.messages[0]
