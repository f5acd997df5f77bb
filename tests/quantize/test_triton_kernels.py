"""The kernels that run on a GPU, without one: Triton interprets them on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_interpreted_kernels_are_torchs_definition() -> None:
    """Each of `interpreted.py`, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         "tests/quantize/interpreted.py"],
        capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "EDGEVIT_NO_KERNEL": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout
