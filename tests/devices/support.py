"""Stand-ins and settings that the tests of devices share."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgevit.measure.harness import build_harness
from edgevit.measure.request import HarnessRequest

# Broken connections and time-outs take minutes, and their timing is at the mercy of a busy machine.
broken_connections = pytest.mark.full


def asked(artifact: Path, data: Path, logits: Path, **options: Any) -> HarnessRequest:
    """A run without warm-up that brings its logits back."""
    return HarnessRequest(artifact, data, logits=logits, warmup=0, **options)


def program(path: Path, before: str) -> Path:
    """A harness that does `before` (shell) and is then the real one."""
    path.write_text(f'#!/bin/sh\n{before}\nexec {shlex.quote(str(build_harness()))} "$@"\n')
    path.chmod(0o755)
    return path


class Here:
    """A transport without a connection: the scripts alone, behind a login shell that chatters."""

    kind, name = "ssh", "here"

    def __init__(self, folder: Path) -> None:
        self.root = f'"{folder}"'

    def command(self, script: str) -> list[str]:
        return ["sh", "-c", "echo welcome; echo 'have a nice day' >&2\n" + script]

    def refusal(self, errors: str) -> str | None:
        return None


class AndroidsTools(Here):
    """The same in Android's shell with Android's tools alone, as Debian has them."""

    APPLETS = (
        "cat", "chmod", "cut", "find", "head", "kill", "mkdir", "mv", "readlink", "rm", "setsid",
        "sha256sum", "sleep", "tail", "tar", "uname", "wc",
    )  # fmt: skip

    def __init__(self, folder: Path, tools: Path) -> None:
        super().__init__(folder)
        tools.mkdir()
        for name in self.APPLETS:
            (tools / name).symlink_to(str(shutil.which("toybox")))
        (tools / "sh").symlink_to(str(shutil.which("mksh")))
        self.tools = tools

    def command(self, script: str) -> list[str]:
        return ["/usr/bin/env", f"PATH={self.tools}", str(shutil.which("mksh")), "-c", script]
