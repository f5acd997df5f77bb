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


def test_work_of_unknown_length_is_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgevit.progress.FIRST_LINE_S", 0.0)
    with caplog.at_level(logging.INFO, "edgevit"), Progress("index", None, "files") as progress:
        progress.update(7)
        progress.update(9)  # the next line is due in ten seconds
    (line,) = caplog.messages
    assert line.startswith("index: 7 files, ") and line.endswith(" files/s")


def test_short_work_says_nothing_where_it_is_quiet(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [100.0]
    monkeypatch.setattr("edgevit.progress.time.monotonic", lambda: now_s[0])
    with (
        caplog.at_level(logging.INFO, "edgevit"),
        Progress("index", 4, "files", quiet=True) as progress,
    ):
        progress.update(3)
        progress.update(4)
        assert not caplog.messages
        now_s[0] += 1.9  # what takes longer is seen within two seconds
        progress.update(4)
    assert caplog.messages == ["index: 4/4 files, 2 files/s, 0:00 left"]
