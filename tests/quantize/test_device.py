"""The pipeline on a device that is not the CPU, without one (tests/standin)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.standin import cases


def test_the_pipeline_runs_on_another_device() -> None:
    """Each of `tests/standin/cases.py`, in a process of their own."""
    path = Path(cases.__file__)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)],
        capture_output=True, text=True, cwd=path.parent.parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout
