"""adb: the real client is not here, so its absence and a stand-in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgevit.errors import ToolMissing
from edgevit.measure.devices import link, open_device, run_on_device
from edgevit.measure.devices.adb import Adb
from edgevit.measure.devices.base import DeviceGone
from edgevit.measure.harness import build_harness, run_harness
from edgevit.measure.request import HarnessRequest
from tests.devices.support import asked
from tests.test_harness import edit_manifest


def test_the_command_line_reaches_the_device(artifact, images, tmp_path):
    """`edgevit validate --device adb:X` without adb is exit code 4, not a run here."""
    edit_manifest(artifact, target="tflite")
    command = [sys.executable, "-m", "edgevit", "validate", artifact, "--data", images, "--no-gate"]
    done = subprocess.run(
        [*command, "--device", "adb:X", "--backend", "null"],
        capture_output=True, text=True, env=os.environ | {"PATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, "apt-get install -y adb" in done.stderr) == (4, True), done.stderr
    assert not (artifact / "validation.json").exists()


def test_without_adb_the_message_says_how_to_get_it(artifact, images, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="apt-get install -y adb"):
        run_on_device(Adb("X"), asked(artifact, images, tmp_path / "l"))


@pytest.fixture
def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in of adb: `-s SERIAL shell -T SCRIPT` runs here, below a folder of the test.

    It knows nothing of adb's protocol: what is tested is our side of the argv, not adb.
    """
    far = tmp_path / "data"
    stand_in = tmp_path / "bin" / "adb"
    stand_in.parent.mkdir()
    stand_in.write_text(
        '#!/bin/sh\n[ "$1 $3 $4" = "-s shell -T" ] && [ $# = 5 ] || { echo usage >&2; exit 64; }\n'
        "case $2 in gone) echo \"adb: device 'gone' not found\" >&2; exit 1;;\n"
        'locked) echo "adb: device unauthorized." >&2; exit 1;; esac\n'
        f'exec sh -c "$(printf %s "$5" | sed "s|/data/local/tmp|{far}|g")"\n'
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(link, "BACKOFF_S", (0.1, 0.1))
    return far


def test_a_run_over_the_stand_in_of_adb(adb, artifact, images, tmp_path):
    device = open_device("adb:SERIAL1")
    with pytest.raises(ToolMissing, match="is Android x86_64.*ANDROID_NDK.*--harness"):
        run_on_device(device, asked(artifact, images, tmp_path / "l"))
    there = run_on_device(device, asked(artifact, images, tmp_path / "l"), harness=build_harness())
    assert there["accuracy"] == run_harness(HarnessRequest(artifact, images))["accuracy"]
    assert list((adb / "edgevit-device" / "runs").iterdir()) == []
    assert len(list((adb / "edgevit-device" / "blobs").iterdir())) == 4


def test_what_adb_says_is_passed_on(adb, artifact, images, tmp_path):
    with pytest.raises(DeviceGone, match="allow USB debugging"):
        run_on_device(Adb("locked"), asked(artifact, images, tmp_path / "l"))
    with pytest.raises(DeviceGone, match="failed, after 2 attempts.*'gone' not found"):
        run_on_device(Adb("gone"), asked(artifact, images, tmp_path / "l"))
